"""A stand-in for Brevo that is never the bottleneck, in a process of its own: `python -m …stand_in LATENCY`.

It answers each call with what Brevo says when all is well, after LATENCY seconds, and keeps no contacts:
only how many calls there were, and when each came, on the clock that all processes of a host share
(`time.monotonic`). outboxd's own sandbox keeps the contacts, which is work that would be measured too.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, perf_counter
from typing import Any, cast

import requests

ATTRIBUTES = {
    "attributes": [
        {"name": name, "category": "normal", "type": "text"} for name in ("FIRSTNAME", "LASTNAME", "SMS")
    ]
}
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


class Told:
    """What the stand-in keeps: when each call for a contact came, and its first line with what was sent."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, str]] = []


class Conversation(asyncio.Protocol):
    """One connection, kept open."""

    def __init__(self, told: Told, latency: float) -> None:
        self._told = told
        self._latency = latency
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        made = self._transport.get_extra_info("socket")
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            length = _length(head)
            whole = end + 4 + length
            if len(self._buffer) < whole:
                return
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            answer = self._answer(head[: head.find(b"\r\n")], body)
            if self._latency:
                asyncio.get_running_loop().call_later(self._latency, self._transport.write, answer)
            else:
                self._transport.write(answer)

    def _answer(self, line: bytes, body: bytes) -> bytes:
        method, path, _ = line.split(b" ", 2)
        if path == b"/calls":
            calls, self._told.calls = self._told.calls, []
            return _json(200, calls)
        if method == b"GET":
            return _json(200, ATTRIBUTES if path.endswith(b"/attributes") else {})
        self._told.calls.append((monotonic(), _whom(path, body)))
        return _json(201, {"id": len(self._told.calls)}) if path.endswith(b"/contacts") else NO_CONTENT


def _length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"content-length:")
    return int(lower[at + 15 :].split(b"\r", 1)[0]) if at >= 0 else 0


def _whom(path: bytes, body: bytes) -> str:
    """The address that a call is about: it stands in its path or in its body; a batch is told by its size."""
    if path.endswith(b"/batch"):
        return f"batch of {body.count(b'email')}"
    if b"@" in path or b"%40" in path:
        return path.rsplit(b"/", 1)[-1].decode()
    at = body.find(b'"email":')
    return body[at + 8 :].split(b'"', 2)[1].decode() if at >= 0 else ""


def _json(status: int, body: object) -> bytes:
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    return head.encode() + text


class Brevo:
    """The stand-in, seen from the benchmark."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/v3"

    def calls(self) -> list[tuple[float, str]]:
        """The calls for contacts since this was last asked: when each came (time.monotonic), about whom."""
        told: list[list[Any]] = requests.get(f"http://127.0.0.1:{self.port}/calls", timeout=60).json()
        return [(float(at), str(whom)) for at, whom in told]

    def ceiling(self, calls: int = 4000) -> float:
        """The calls a second that it takes from a client that costs next to nothing."""
        body = b'{"email": "customer1@example.com"}'
        call = b"POST /v3/contacts HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        open_ = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(8)]
        started = perf_counter()
        for _ in range(calls // len(open_)):
            for each in open_:
                each.sendall(call)
            for each in open_:
                each.recv(4096)
        took = perf_counter() - started
        for each in open_:
            each.close()
        self.calls()
        return calls / took


@contextmanager
def brevo(latency: float = 0.0) -> Iterator[Brevo]:
    """The stand-in, running."""
    command = [sys.executable, "-m", __name__, str(latency)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None
    try:
        yield Brevo(int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait(15)


async def _serve(latency: float) -> None:
    told = Told()
    server = await asyncio.get_running_loop().create_server(
        lambda: Conversation(told, latency), "127.0.0.1", 0
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
