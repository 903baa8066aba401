"""A total deadline over an answer.

`requests` bounds each wait for bytes, not their sum: a server that drips a byte a second, headers
included, holds a thread for ever. Here every read gets what is left of one allowance, which is the
connection's time-out, counted from the request.
"""

import io
import socket
from http.client import HTTPResponse
from time import monotonic
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

LEAST = 0.001
"""Seconds: a time-out of zero would mean "do not wait" to a socket."""


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
    """Mixed into a connection: its answers end by the time-out, counted from the request."""

    timeout: float
    _deadline: float

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._deadline = monotonic() + self.timeout
        super().request(*args, **kwargs)  # type: ignore[misc]

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
    """An adapter of requests for one host; the connect time-out of each call is the allowance."""

    _pool: Any = None

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """The pool of the host; it is looked up once, because that takes as long as half a call."""
        self._pool = self._pool or super().get_connection_with_tls_context(*args, **kwargs)
        return self._pool
