"""A total deadline over an answer.

`requests` bounds each wait for bytes, not their sum: a server that drips a byte a second, headers
included, holds a thread for ever. Here every read gets what is left of one allowance, and nothing is sent
any more once that is used up: a process that stood still meanwhile may have been taken for dead.
"""

import io
import socket
from http.client import HTTPResponse
from time import monotonic
from typing import Any, Self

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

LEAST = 0.001
"""Seconds: a time-out of zero would mean "do not wait" to a socket."""


class Allowance(float):
    """The seconds that a call may take from now `until` a moment of the monotonic clock."""

    until: float

    def __new__(cls, until: float) -> Self:
        made = super().__new__(cls, max(until - monotonic(), LEAST))
        made.until = until
        return made


class _Reads(io.RawIOBase):
    """A socket's bytes, none of them after the deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._raw = sock.makefile("rb", buffering=0)
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        self._sock.settimeout(max(left, LEAST))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, method: str | None, deadline: float) -> None:
        super().__init__(sock, method=method)
        self.fp.close()
        self.fp = io.BufferedReader(_Reads(sock, deadline))


class _Deadlined:
    """Mixed into a connection: its time-out is an Allowance, and nothing comes or goes after its end."""

    timeout: Allowance
    sock: socket.socket | None
    _deadline: float

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._deadline = self.timeout.until
        super().request(*args, **kwargs)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()  # type: ignore[attr-defined]
        if monotonic() > self._deadline:
            raise TimeoutError("it is too late to send this")
        if self.sock is not None:
            self.sock.settimeout(max(self._deadline - monotonic(), LEAST))
        super().send(data)  # type: ignore[misc]

    def response_class(self, sock: socket.socket, *_: Any, method: str | None = None, **__: Any) -> _Response:
        return _Response(sock, method, self._deadline)


class _Connection(_Deadlined, HTTPConnection):  # type: ignore[misc]
    pass


class _SecureConnection(_Deadlined, HTTPSConnection):  # type: ignore[misc]
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection  # type: ignore[assignment]


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection  # type: ignore[assignment]


class DeadlineAdapter(HTTPAdapter):
    """An adapter of requests for one host; the time-out of each call must be an Allowance."""

    _pool: Any = None

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """The pool of the host; it is looked up once, because that takes as long as half a call."""
        self._pool = self._pool or super().get_connection_with_tls_context(*args, **kwargs)
        return self._pool
