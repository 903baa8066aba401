"""What wakes a drain: its bell, and commits by anybody, whether or not the host tells of writing."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from time import monotonic

import pytest

from outboxd import database
from outboxd.locks import drainer
from outboxd.wake import CALM, EAGER, Bell, Hints, Wake
from tests.outboxes import new_outbox

LONG = 20.0
"""Seconds that no test waits for in vain."""

INSERT = "INSERT INTO outbox (event, payload) VALUES ('customer_created', '{}')"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_outbox(tmp_path / "outbox.db")


@pytest.fixture
def watched(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(database.connect(path, read_only=True)) as connection:
        yield connection


@pytest.fixture(params=["inotify", "no inotify"])
def wake(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, path: Path, watched: sqlite3.Connection
) -> Iterator[Wake]:
    if request.param == "no inotify":
        monkeypatch.setattr("outboxd.wake.Hints.will_come", lambda hints: False)
        monkeypatch.setattr("outboxd.wake.Hints.fileno", lambda hints: -1)
    else:
        monkeypatch.setattr("outboxd.wake.CALM", 1000)  # no look but after a hint
    with closing(Wake(path, lambda: version(watched))) as made:
        yield made


def version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def commit(path: Path) -> None:
    """By another process, in plain SQL."""
    program = f"import sqlite3\nwith sqlite3.connect({str(path)!r}) as c: c.execute({INSERT!r})"
    subprocess.run([sys.executable, "-c", program], check=True)


def rested(wake: Wake, seen: int) -> float:
    """How long it rested, of a rest that nothing else would end."""
    started = monotonic()
    wake.rest(LONG, seen)
    return monotonic() - started


def test_a_commit_by_another_process_ends_the_rest(wake: Wake, path: Path) -> None:
    seen = wake.seen()
    other = Thread(target=commit, args=(path,))
    other.start()
    assert rested(wake, seen) < LONG
    other.join()


def test_a_commit_before_the_rest_lets_none_begin(wake: Wake, path: Path) -> None:
    seen = wake.seen()
    commit(path)
    assert rested(wake, seen) < LONG


def test_the_bell_ends_the_rest_also_if_it_rang_before_it(wake: Wake) -> None:
    seen = wake.seen()
    wake.bell.set()
    assert rested(wake, seen) < LONG


def test_a_commit_ends_the_rest_also_if_the_bell_rang_between_its_writing_and_its_end(
    wake: Wake, path: Path
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")  # so that it is written before the commit
        connection.execute("BEGIN IMMEDIATE")
        seen = wake.seen()
        for _ in range(200):
            connection.execute(INSERT.replace("{}", '{"id": "' + "7" * 500 + '"}'))
        wake.rest(0.05, seen)  # the hints are taken in
        wake.bell.set()
        wake.rest(LONG, seen)
        seen = wake.seen()
        connection.execute("COMMIT")
        assert rested(wake, seen) < LONG


def test_what_is_written_and_not_committed_ends_no_rest(wake: Wake, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        seen = wake.seen()
        connection.execute("PRAGMA cache_size = 1")  # so that it is written before the commit
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(200):
            connection.execute(INSERT.replace("{}", '{"id": "' + "7" * 500 + '"}'))
        wake.rest(0.1, seen)
        assert wake.seen() == seen
        connection.execute("COMMIT")
    assert rested(wake, seen) < LONG


def test_a_commit_is_not_looked_for_much_later_than_it_took_to_follow_its_writing() -> None:
    """As where a disk takes seconds to have it."""
    since = EAGER[0]
    for pause in (*EAGER, CALM):
        assert pause <= 4 * since
        since += pause


@pytest.mark.parametrize("file", ["", "-wal", "-shm", ".daemon", ".drainers"])
def test_what_must_stay_and_is_removed_ends_the_rest(
    monkeypatch: pytest.MonkeyPatch, path: Path, watched: sqlite3.Connection, file: str
) -> None:
    monkeypatch.setattr("outboxd.wake.CALM", 1000)
    with drainer(path, who="a test", shared=False), closing(Wake(path, lambda: version(watched))) as wake:
        seen = wake.seen()
        wake.rest(0.01, seen)
        path.with_name(path.name + file).unlink()
        assert rested(wake, seen) < LONG


def test_a_log_that_is_made_anew_is_watched_anew(path: Path) -> None:
    """Whoever closes a database last removes its log."""
    hints = Hints(path)
    with closing(database.connect(path, read_only=True)) as first:
        version(first)
        assert hints.will_come()
    commit(path)  # it is the last one to close
    assert not path.with_name("outbox.db-wal").exists()
    hints.take()
    assert not hints.will_come()
    with closing(database.connect(path)) as second:
        second.execute(INSERT)
        assert hints.will_come()
    hints.close()


def test_where_hints_were_lost_it_is_watched_anew(path: Path) -> None:
    """One of those may have told that the log is another file by now."""
    limit = Path("/proc/sys/fs/inotify/max_queued_events")
    if not os.access(limit, os.W_OK):
        pytest.skip("only root, where containers allow it, can make the queue of hints short")
    before = limit.read_text()
    limit.write_text("1")
    try:
        hints = Hints(path)
    finally:
        limit.write_text(before)
    with closing(hints), closing(database.connect(path)) as connection:
        connection.execute(INSERT)
        assert hints.will_come()
        path.with_name("outbox.db-wal").touch()
        path.touch()
        path.with_name("outbox.db-shm").touch()
        assert hints.take()
        assert not hints._are_watched
        assert hints.will_come()


def test_a_bell_that_is_closed_rings_for_nobody() -> None:
    """Its number may be another file's by then."""
    bell = Bell()
    number = bell.fileno()
    reading, writing = os.pipe()
    bell.close()
    os.dup2(writing, number)
    bell.set()
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):
        os.read(reading, 8)
    for descriptor in {reading, writing, number}:
        os.close(descriptor)
    bell.close()
