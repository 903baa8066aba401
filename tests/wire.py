"""A server that says what it is told to say, byte for byte, and keeps what it hears just as it arrived."""

import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

from tests.loopback import serving
from tests.shop import PATIENCE


@dataclass
class Wire:
    """Each call as the pieces that were received, and how many connections there were."""

    url: str = ""
    calls: list[list[bytes]] = field(default_factory=list)
    connections: int = 0


@contextmanager
def wired(answers: Sequence[bytes], context: ssl.SSLContext | None = None) -> Iterator[Wire]:
    """One that gives these answers, one a call; with a `context` it speaks TLS."""
    wire, left = Wire(), list(answers)

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            wire.connections += 1
            sock = context.wrap_socket(self.request, server_side=True) if context else self.request
            with sock:
                sock.settimeout(PATIENCE)
                while left and (piece := sock.recv(1 << 20)):
                    pieces = [piece]
                    while not is_whole(b"".join(pieces)):
                        pieces.append(sock.recv(1 << 20))
                    wire.calls.append(pieces)
                    sock.sendall(left.pop(0))

    with serving(ThreadingTCPServer(("127.0.0.1", 0), Handler)) as place:
        wire.url = f"http{'s' if context else ''}://{place}/v3"
        yield wire


def is_whole(call: bytes) -> bool:
    """Whether the body is there as far as the head says."""
    head, blank, body = call.partition(b"\r\n\r\n")
    _, _, length = head.lower().partition(b"content-length: ")
    return bool(blank) and len(body) >= int(length.partition(b"\r")[0] or 0)


def certified(directory: Path) -> ssl.SSLContext:
    """A TLS server's side with a certificate of its own making, `certificate.pem` in `directory`."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", "-x509", *kind, *subject, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
