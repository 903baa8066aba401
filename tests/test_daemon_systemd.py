"""What the daemon tells systemd, on a real notification socket."""

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from outboxd.brevo.sandbox import Sandbox
from tests.conftest import until
from tests.processes import Daemon, write_config

pytestmark = pytest.mark.usefixtures("db")
"""Every daemon finds its outbox made already."""


class Notified:
    """The socket that systemd would listen on, and what arrived there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self._heard: list[str] = []

    def heard(self) -> list[str]:
        while True:
            try:
                self._heard.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return self._heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Notified]:
    made = Notified(tmp_path / "notify")
    yield made
    made.close()


def test_it_tells_that_it_is_ready_alive_and_stopping(tmp_path: Path, systemd: Notified) -> None:
    with Sandbox() as sandbox:
        config = write_config(tmp_path / "config.yaml", sandbox.url)
        with Daemon(config, NOTIFY_SOCKET=str(systemd.path), WATCHDOG_USEC="300000") as daemon:
            until(lambda: "READY=1" in systemd.heard())
            until(lambda: systemd.heard().count("WATCHDOG=1") >= 3)
            until(lambda: any(word.startswith("STATUS=") for word in systemd.heard()))
            daemon.send(signal.SIGTERM)
            assert daemon.ended() == 0
        heard = systemd.heard()
        assert heard.index("READY=1") < heard.index("STOPPING=1")
        [told] = {word for word in heard if word.startswith("STATUS=")}
        assert re.fullmatch(r"STATUS=0 pending, 0 retrying, 0 dead; running", told)


def test_what_makes_it_plan_anew_puts_off_no_sign_of_life(tmp_path: Path, systemd: Notified) -> None:
    with Sandbox() as sandbox:
        config = write_config(tmp_path / "config.yaml", sandbox.url)
        with Daemon(config, NOTIFY_SOCKET=str(systemd.path), WATCHDOG_USEC="300000000") as daemon:
            until(lambda: systemd.heard().count("WATCHDOG=1") == 1)
            daemon.ready().send(signal.SIGHUP)
            until(lambda: systemd.heard().count("WATCHDOG=1") == 2)


def test_without_a_watchdog_it_gives_no_signs_of_life(tmp_path: Path, systemd: Notified) -> None:
    with Sandbox() as sandbox:
        config = write_config(tmp_path / "config.yaml", sandbox.url)
        with Daemon(config, NOTIFY_SOCKET=str(systemd.path), WATCHDOG_USEC="") as daemon:
            until(lambda: "READY=1" in systemd.heard())
            daemon.send(signal.SIGTERM)
            assert daemon.ended() == 0
        assert "WATCHDOG=1" not in systemd.heard()


def test_a_socket_that_nobody_reads_does_not_stop_it(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        config = write_config(tmp_path / "config.yaml", sandbox.url)
        with Daemon(config, NOTIFY_SOCKET=str(tmp_path / "nobody")) as daemon:
            daemon.ready().send(signal.SIGTERM)
            assert daemon.ended() == 0
