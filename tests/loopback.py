"""A server of a test's own, on loopback for as long as it is needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from socketserver import ThreadingTCPServer
from threading import Thread


@contextmanager
def serving(server: ThreadingTCPServer | ThreadingHTTPServer) -> Iterator[str]:
    """Let it serve; its host and port, as a URL has them. Nobody waits for the ends of its conversations."""
    server.daemon_threads = True
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
