"""Other users of this host, by their numbers alone: the one who drains, one of a shop, and a stranger."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

READER = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
"""Reads whatever there is: the interpreter and this checkout may lie where only root can go."""


@dataclass(frozen=True, slots=True)
class User:
    """A user without a name, in a group of their own and perhaps in another one, with a umask of 022."""

    number: int
    joined: int | None = None

    def command(self, *command: str, reads_all: bool = False) -> list[str]:
        """`command` as this user runs it."""
        groups = ["--clear-groups"] if self.joined is None else ["--groups", str(self.joined)]
        rights = READER if reads_all else ()
        identity = ["--reuid", str(self.number), "--regid", str(self.number), *groups, *rights]
        return ["setpriv", *identity, "sh", "-c", 'umask 022; exec "$@"', "sh", *command]

    def run(
        self, *command: str, given: str = "", reads_all: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` to its end with `given` as its standard input."""
        environ = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment}
        words = self.command(*command, reads_all=reads_all)
        return subprocess.run(
            words, input=given, env=environ, cwd="/", capture_output=True, text=True, timeout=60
        )


DAEMON = User(4710)
SHOP = User(4711, joined=DAEMON.number)
STRANGER = User(4712)


def _can_be_others() -> bool:
    try:
        return os.geteuid() == 0 and DAEMON.run("true", reads_all=True).returncode == 0
    except FileNotFoundError:
        return False


needs_users = pytest.mark.skipif(not _can_be_others(), reason="only root, with setpriv, can be other users")

needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0,
    reason="only root, where containers allow it, can mount",
)


@contextmanager
def shared_directory() -> Iterator[Path]:
    """A directory as the installation makes it: DAEMON's, for its group, and open to nobody else."""
    with tempfile.TemporaryDirectory() as outer:
        Path(outer).chmod(0o755)
        made = Path(outer) / "outbox"
        made.mkdir()
        os.chown(made, DAEMON.number, DAEMON.number)
        made.chmod(0o2770)
        yield made
