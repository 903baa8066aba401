"""Bad manners on the wire: everything a server, or a box in between, can do instead of answering.

Each behaviour lasts until it is done, the client leaves, or the sandbox stops, whatever comes first. An
OSError out of here means that the client has left.
"""

import socket
import struct
from collections.abc import Callable, Mapping
from threading import Event
from types import MappingProxyType

from outboxd.brevo.sandbox.faults import HELD_ANSWER

_PAUSE = 0.01  # seconds between two bytes of a drip
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def misbehave(behaviour: str, sock: socket.socket, stopping: Event) -> None:
    """Do it; the caller closes the connection afterwards."""
    _BEHAVIOURS[behaviour](sock, stopping)


def _reset(sock: socket.socket, _stopping: Event) -> None:
    """Closing with a linger time of zero sends RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _hang(sock: socket.socket, _stopping: Event) -> None:
    while sock.recv(65_536):
        pass


def _drip(sock: socket.socket, stopping: Event) -> None:
    sock.sendall(_OK + b"content-length: 1000000000\r\n\r\n")
    _drip_on(sock, b" ", stopping)


def _drip_headers(sock: socket.socket, stopping: Event) -> None:
    sock.sendall(_OK + b"x-drip: ")
    _drip_on(sock, b"a", stopping)


def _drip_on(sock: socket.socket, byte: bytes, stopping: Event) -> None:
    while not stopping.wait(_PAUSE):
        sock.sendall(byte)


def _garbage(sock: socket.socket, _stopping: Event) -> None:
    sock.sendall(b"\x15\x03\x01\x00\x02\x02\x50 this is not HTTP\r\n\r\n")


def _huge(sock: socket.socket, stopping: Event) -> None:
    sock.sendall(_OK + b"connection: close\r\n\r\n" + b'{"filler":"')
    block = b"a" * 65_536
    while not stopping.is_set():
        sock.sendall(block)


def _half(sock: socket.socket, _stopping: Event) -> None:
    sock.sendall(_OK + b'content-length: 100\r\n\r\n{"id":1,"at')


_BEHAVIOURS: Mapping[str, Callable[[socket.socket, Event], None]] = MappingProxyType(
    {
        "reset": _reset,
        "hang": _hang,
        HELD_ANSWER: _hang,
        "drip": _drip,
        "drip_headers": _drip_headers,
        "garbage": _garbage,
        "huge": _huge,
        "half": _half,
    }
)
