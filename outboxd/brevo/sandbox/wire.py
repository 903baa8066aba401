"""HTTP/1.1 on one connection: requests read, answers written, nothing understood.

A small reader instead of `http.server`, whose header parsing (by way of the email package) costs more than
everything else the sandbox does. Bodies come with Content-Length only, which is what clients of Brevo send.
"""

import re
import socket
from http import HTTPStatus

from outboxd.brevo.sandbox.messages import Answer, Request, loads

LARGEST_HEAD = 65_536  # bytes
LARGEST_BODY = 16 * 1024 * 1024  # bytes
_LINGER = 1.0  # seconds to wait for the rest of what is not wanted

_REASONS = {status.value: status.phrase for status in HTTPStatus}
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]*|\*) HTTP/1\.([01])")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")


class MalformedError(Exception):
    """What arrived is no request; `status` is what it deserves, and the connection ends after that."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Connection:
    """One client's connection. Reading ends with None, whether the client or the sandbox closed it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.stays_open = True
        self._unread = b""

    def read(self) -> Request | None:
        """The next request; raises MalformedError."""
        head = self._head()
        if head is None:
            return None
        first, *lines = head.split("\r\n")
        line = _REQUEST_LINE.fullmatch(first)
        if line is None:
            raise MalformedError("The request line is malformed")
        headers = _headers(lines)
        wish = headers.get("connection", "").lower()
        self.stays_open = wish != "close" and (line[3] == "1" or wish == "keep-alive")
        content = self._content(headers)
        if content is None:
            return None
        path, _, query = line[2].partition("?")
        return Request(line[1], path, query, headers, content, loads(content) if content else None)

    def write(self, answer: Answer, request_id: str) -> None:
        """Send an answer whole."""
        self.sock.sendall(encoded(answer, request_id, stays_open=self.stays_open))

    def refuse(self, error: MalformedError) -> None:
        """Answer what is no request, and see to it that the answer arrives.

        Closing while the client still sends would reset the connection, and take the answer with it.
        """
        self.stays_open = False
        self.write(Answer.error(error.status, "bad_request", str(error)), "sandbox-malformed")
        self.sock.shutdown(socket.SHUT_WR)
        self.sock.settimeout(_LINGER)
        drained = 0
        while drained < LARGEST_BODY and (part := self.sock.recv(65_536)):
            drained += len(part)

    def _head(self) -> str | None:
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            if len(self._unread) > LARGEST_HEAD:
                raise MalformedError("The headers are too large")
            if not self._receive():
                return None
        if end > LARGEST_HEAD:
            raise MalformedError("The headers are too large")
        head, self._unread = self._unread[:end], self._unread[end + 4 :]
        return head.decode("latin-1")

    def _content(self, headers: dict[str, str]) -> bytes | None:
        if "transfer-encoding" in headers:
            raise MalformedError("Transfer-Encoding is not supported, send Content-Length")
        declared = headers.get("content-length", "0")
        if not declared.isascii() or not declared.isdigit() or len(declared) > 12:
            raise MalformedError("Content-Length is malformed")
        length = int(declared)
        if length > LARGEST_BODY:
            raise MalformedError("The body is larger than 16 MB", 413)
        if length > len(self._unread) and headers.get("expect", "").lower() == "100-continue":
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return self._exactly(length)

    def _exactly(self, length: int) -> bytes | None:
        if len(self._unread) < length:
            parts, missing = [self._unread], length - len(self._unread)
            while missing > 0:
                part = self.sock.recv(min(missing, 1 << 20))
                if not part:
                    return None
                parts.append(part)
                missing -= len(part)
            self._unread = b"".join(parts)
        content, self._unread = self._unread[:length], self._unread[length:]
        return content

    def _receive(self) -> bool:
        part = self.sock.recv(65_536)
        self._unread += part
        return bool(part)


def encoded(answer: Answer, request_id: str, *, stays_open: bool = True) -> bytes:
    """An answer as it goes over the wire."""
    head = [
        f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Unknown')}",
        f"sib-request-id: {request_id}",
    ]
    head += [f"{name}: {value}" for name, value in answer.headers.items()]
    if answer.status != HTTPStatus.NO_CONTENT:
        head.append(f"content-length: {len(answer.content)}")
    if not stays_open:
        head.append("connection: close")
    return "\r\n".join([*head, "\r\n"]).encode("latin-1", "replace") + answer.content


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise MalformedError("A header is malformed")
        name = header[1].lower()
        if headers.setdefault(name, header[2]) != header[2] and name in ("content-length", "api-key"):
            raise MalformedError(f"Two different values for {name}")
    return headers
