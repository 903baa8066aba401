"""The operator's side of notifications: a web server that keeps what it is told, and can be unwell."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import Any

from tests.loopback import serving


@dataclass
class Receiver:
    """What was posted so far, and what is answered: a status, or (None) nothing at all."""

    url: str = ""
    status: int | None = 204
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def told(self) -> list[dict[str, Any]]:
        """The bodies."""
        return [json.loads(body) for _, body in self.posts]

    def of_type(self, type_: str) -> list[dict[str, Any]]:
        return [each["data"] for each in self.told if each["type"] == type_]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on loopback."""
    receiver = Receiver()
    closing = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.posts.append((dict(self.headers.items()), body))
            if receiver.status is None:
                closing.wait(30)
                return
            self.send_response(receiver.status)
            self.send_header("content-length", "0")
            self.send_header("location", "http://127.0.0.1:9/")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as place:
        receiver.url = f"http://{place}/hook"
        try:
            yield receiver
        finally:
            closing.set()
