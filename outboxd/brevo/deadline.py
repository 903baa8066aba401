"""A total deadline over an answer, and what came in place of one.

`requests` bounds each wait for bytes, not their sum: a server that drips a byte a second, headers
included, holds a thread for ever. Here every read gets what is left of one allowance, and nothing is sent
any more once that is used up: a process that stood still meanwhile may have been taken for dead.
"""

import io
import socket
from http.client import HTTPResponse
from ssl import SSLCertVerificationError, SSLEOFError
from time import monotonic
from typing import Any, Self

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

LEAST = 0.001
"""Seconds: a time-out of zero would mean "do not wait" to a socket."""

SLACK = 0.01
"""By how much of itself a time-out may be off before it is set anew."""


class Allowance(float):
    """The seconds that a call may take from now `until` a moment of the monotonic clock."""

    until: float

    def __new__(cls, until: float) -> Self:
        made = super().__new__(cls, max(until - monotonic(), LEAST))
        made.until = until
        return made


class _Timed:
    """A connected socket, none of whose waits outlasts the call by more than SLACK.

    Whoever uses it sets its time-out before each wait, and each setting is a system call, at which the
    interpreter may turn to another thread. Here it is set when what is left comes to something else.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._timeout = 0.0
        self.until = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def settimeout(self, _: float | None) -> None:
        """Nothing: `until` says how long there is."""

    def limit_wait(self, too_late: str) -> None:
        """Let the next wait last for what is left of the call; TimeoutError if that is nothing."""
        left = self.until - monotonic()
        if left <= 0:
            raise TimeoutError(too_late)
        if abs(self._timeout - left) > left * SLACK:
            self._timeout = max(left, LEAST)
            self._sock.settimeout(self._timeout)

    def sendall(self, data: bytes) -> None:
        self.limit_wait("it is too late to send this")
        try:
            self._sock.sendall(data)
        except SSLEOFError as error:  # the other side may have answered before it closed
            raise BrokenPipeError(*error.args) from error


class _Reads(io.RawIOBase):
    """A socket's bytes, none of them after the deadline; http.client takes it for the socket itself."""

    def __init__(self, sock: _Timed) -> None:
        self._raw = sock.makefile("rb", buffering=0)
        self._sock = sock
        self.is_in_head = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.limit_wait("the answer took too long")
        count: int | None = self._raw.readinto(buffer)
        if count == 0 and self.is_in_head:
            raise ConnectionError("the answer breaks off in its head")
        return count

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    """http.client takes the end of the stream for the end of the head: a piece of one would be an answer.

    And it takes any word in advance but the first, "100 Continue", for the answer that is still to come.
    """

    def __init__(self, reads: _Reads, method: str | None) -> None:
        super().__init__(reads, method=method)  # type: ignore[arg-type]
        self._reads = reads

    def begin(self) -> None:
        super().begin()
        self._reads.is_in_head = False

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, 100 if status < 200 else status, reason


class _Deadlined:
    """Mixed into a connection: its time-out is an Allowance, and nothing comes or goes after its end."""

    timeout: Allowance
    sock: Any
    _until: float
    _head: bytes | None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.sock = _Timed(self.sock)

    def request(self, method: str, url: str, body: Any = None, *args: Any, **kwargs: Any) -> None:
        self._until = self.timeout.until
        self._head = None if body else b""
        super().request(method, url, body, *args, **kwargs)  # type: ignore[misc]

    def send(self, data: bytes) -> None:
        if self._head is None:  # it waits for the body: one packet, and the other side wakes up once
            self._head = data
            return
        if self.sock is None:
            self.connect()
        self.sock.until = self._until
        data, self._head = self._head + data, b""
        super().send(data)  # type: ignore[misc]

    def response_class(self, sock: _Timed, *_: Any, method: str | None = None, **__: Any) -> _Response:
        return _Response(_Reads(sock), method)


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

    def request_url(self, request: requests.PreparedRequest, *_: Any) -> str:
        """The path: there is no proxy."""
        return request.path_url

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """The answer as it came; nobody asks for its cookies, or for its text."""
        response = requests.Response()
        response.status_code, response.reason = resp.status, resp.reason
        response.headers, response.raw = resp.headers, resp
        response.url, response.request = req.url or "", req
        return response


def failure(error: BaseException, whom: str, allowed: float) -> str:
    """What a call to `whom`, which may take `allowed` seconds, failed of: by the root of the exceptions, and
    without the address in a URL.
    """
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, SSLCertVerificationError):
        return f"{whom}'s TLS certificate cannot be verified; check the host's clock and CAs"
    if isinstance(error, TimeoutError | requests.exceptions.Timeout | urllib3.exceptions.TimeoutError):
        return f"no answer within {allowed:g} seconds"
    text = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return f"{whom} cannot be reached: {text}"
