"""A process of root crashed and left the log to itself: who comes is told which file, and what opens it."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outboxd import place
from outboxd.brevo.sandbox import Sandbox
from tests.conftest import until
from tests.outboxes import new_outbox
from tests.processes import KEY, Daemon, write_config
from tests.users import DAEMON, needs_users, shared_directory

CRASH = """
import os, signal, sys
import sqlite3, outboxd
for number in range(int(sys.argv[2])):
    outboxd.enqueue("customer_created", {"id": number, "email": f"ann{number}@example.com"}, db=sys.argv[1])
    keep = sqlite3.connect(sys.argv[1])
    keep.execute("SELECT count(*) FROM outbox").fetchone()
keep.execute("BEGIN IMMEDIATE")
keep.execute("INSERT INTO outbox (event, payload) VALUES ('customer_created', '{}')")
os.kill(os.getpid(), signal.SIGKILL)
"""

INTAKE = "import sys; from outboxd.intake.command import main; sys.exit(main())"


@pytest.fixture
def outbox() -> Iterator[Path]:
    with shared_directory() as directory:
        yield new_outbox(directory / "outbox.db")


def crash(path: Path, events: int = 3) -> None:
    """A process writes so many events and is killed in the middle of the next one."""
    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(path), str(events)], capture_output=True, text=True
    )
    assert done.returncode == -9, done.stderr
    assert path.with_name(path.name + "-wal").stat().st_size > 0


def mend(commands: str) -> None:
    """Do what is told, as root."""
    for command in commands.split(" && "):
        subprocess.run(shlex.split(command.removeprefix("sudo ")), check=True, timeout=10)


@needs_users
@pytest.mark.parametrize("closed", [("-wal",), ("-shm",), ("-wal", "-shm")])
@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_log_that_root_left_behind_is_named_and_after_the_mend_all_in_it_is_there(
    outbox: Path, closed: tuple[str, ...], mode: int
) -> None:
    crash(outbox)
    files = [outbox.with_name(outbox.name + suffix) for suffix in closed]
    for file in files:
        os.chown(file, 0, 0)
        file.chmod(mode)
    config = write_config(outbox.with_name("config.yaml"), "http://127.0.0.1:1")
    config.chmod(0o644)

    def said(*words: str) -> subprocess.CompletedProcess[str]:
        return DAEMON.run(sys.executable, *words, reads_all=True, BREVO_API_KEY=KEY)

    run = said("-m", "outboxd", "run", "--config", str(config))
    assert (run.returncode, "Traceback" in run.stderr) == (77, False)
    assert f"outboxd: this user may not read and write {files[0]}" in run.stderr
    checked = said("-m", "outboxd", "check", "--offline", "--config", str(config))
    assert all(f"FAIL  rights: {file} " in checked.stdout for file in files)

    event = ("--event", "customer_created", "--data", '{"id": 3, "email": "ann3@example.com"}')
    for file in files:
        written = said("-c", INTAKE, "--db", str(outbox), *event)
        assert written.returncode == 77
        assert f"this user may not read and write {file}" in written.stderr
        mend(written.stderr.partition("hint: ")[2].strip())
    written = said("-c", INTAKE, "--db", str(outbox), *event)
    assert written.returncode == 0, written.stderr
    with Sandbox() as sandbox:
        write_config(config, sandbox.url)
        with Daemon(config, user=DAEMON) as daemon:
            until(lambda: daemon.status()["delivered"] == 4)
        assert sandbox.stats["contacts"] == 4


def test_what_a_killed_writer_left_is_recovered_without_anybody(tmp_path: Path) -> None:
    crash(new_outbox(tmp_path / "outbox.db"), 5)
    with Sandbox() as sandbox:
        with Daemon(write_config(tmp_path / "config.yaml", sandbox.url)) as daemon:
            until(lambda: daemon.status()["delivered"] == 5)
            assert daemon.status()["pending"] == 0
            assert sandbox.stats["contacts"] == 5


@needs_users
def test_the_mend_removes_no_log(outbox: Path) -> None:
    crash(outbox)
    log = outbox.with_name("outbox.db-wal")
    os.chown(log, 0, 0)
    log.chmod(0o600)
    mends = [fault.mend for fault in place.faults(outbox)]
    assert mends
    assert not any("rm " in each or "unlink" in each or "mv " in each for each in mends)
