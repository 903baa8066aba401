"""The pool: a program's next event goes through the connection of its last one, where that is still right."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Barrier, Event, Thread

import pytest

import outboxd
from outboxd import backup, database, pool
from outboxd.errors import AdriftError, NoOutboxError
from outboxd.outbox import Outbox
from tests.conftest import until

opened: list[str] = []

SAFE = {"synchronous": 2, "journal_mode": "wal"}
"""The log is synced at each commit: 2 is FULL."""


def listen(event: str, arguments: tuple[object, ...]) -> None:
    if event == "sqlite3.connect":
        opened.append(str(arguments[0]))


sys.addaudithook(listen)


def write(db: Path, number: int) -> int:
    return outboxd.enqueue("customer_created", {"id": number}, db=db)


def ids(db: Path) -> list[int]:
    with database.reading(db) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM outbox ORDER BY id")]


def open_files(db: Path) -> list[str]:
    """What this process has open of an outbox, whatever was put aside or removed meanwhile."""
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return [told for link in links if link.is_symlink() and str(db) in (told := os.readlink(link))]


def test_one_connection_does_for_all_events_of_a_program(db: Path) -> None:
    opened.clear()
    assert [write(db, number) for number in range(20)] == list(range(1, 21))
    assert len(opened) == 1


def test_an_outbox_that_takes_the_place_of_another_is_written_to(db: Path) -> None:
    write(db, 1)
    db.rename(f"{db}.aside")
    database.migrate(db)
    for number in (1, 2):
        assert write(db, number) == number
    assert ids(db) == [1, 2]
    assert not [file for file in open_files(db) if "aside" in file]
    with closing(sqlite3.connect(f"{db}.aside")) as aside:
        assert aside.execute("SELECT count(*) FROM outbox").fetchall() in ([(0,)], [(1,)])


def test_an_outbox_that_is_removed_is_missed_at_once(db: Path) -> None:
    write(db, 1)
    db.unlink()
    with pytest.raises(NoOutboxError):
        write(db, 2)
    assert open_files(db) == []


def test_a_log_that_is_not_the_one_at_its_place_is_not_written_to(db: Path) -> None:
    """As where a program reads the outbox as a plain file: closing that drops all the locks it has there,
    and the last other one to close the outbox folds the log into it and removes it.
    """
    write(db, 1)
    db.read_bytes()
    reader = f"import sqlite3; sqlite3.connect({str(db)!r}).execute('SELECT 1 FROM outbox')"
    subprocess.run([sys.executable, "-c", reader], check=True)
    assert not db.with_name("outbox.db-wal").exists()
    assert write(db, 2) == 2
    assert ids(db) == [1, 2]
    pool.close()
    assert ids(db) == [1, 2]
    backup.check(db)


def test_a_log_whose_index_is_not_the_one_at_its_place_is_not_written_to(db: Path) -> None:
    """Others would write over what is written there, for they cannot see it."""
    write(db, 1)
    db.with_name("outbox.db-shm").unlink()
    insert = "INSERT INTO outbox (event, payload) VALUES ('customer_created', '{}')"
    writing = f"c = sqlite3.connect({str(db)!r}); c.execute({insert!r}); c.commit()"
    command = [sys.executable, "-c", f"import sqlite3; {writing}; print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert write(db, 3) == 3
        assert ids(db) == [1, 2, 3]
        other.communicate(b"\n")
    pool.close()
    backup.check(db)


PROGRAM = """
import outboxd, sys
outboxd.enqueue("customer_created", {"id": 1})
print(flush=True)
for line in sys.stdin:
    outboxd.enqueue("customer_created", {"id": int(line)})
    print(flush=True)
"""

SHOP = """
import sqlite3, sys
for number in range(10):
    shop = sqlite3.connect(sys.argv[1], isolation_level=None)
    shop.execute("INSERT INTO outbox (event, payload) VALUES ('customer_created', '{}')")
    shop.close()
"""


@pytest.mark.parametrize("more", ["", "2\n"], ids=["ends", "writes"])
@pytest.mark.parametrize(("suffixes", "left"), [(("-shm",), 1), (("-wal", "-shm"), 0)])
def test_a_log_that_others_write_to_instead_of_a_removed_one_outlasts_those_who_had_that(
    db: Path, suffixes: tuple[str, ...], left: int, more: str
) -> None:
    """What stands in a removed log is lost if nobody drains; what is written afterwards is not."""
    environ = {**os.environ, "OUTBOXD_DATABASE": str(db)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdout.readline()
        for suffix in suffixes:
            db.with_name(f"{db.name}{suffix}").unlink()
        subprocess.run([sys.executable, "-c", SHOP, str(db)], check=True)
        program.communicate(more)
    assert program.returncode == 0
    assert len(ids(db)) == left + 10 + len(more.split())
    backup.check(db)


@contextmanager
def removed(db: Path, *suffixes: str) -> Iterator[sqlite3.Connection]:
    """A connection of this process to a log that was removed, while others write to another one."""
    with closing(database.connect(db, read_only=True)) as reader:
        reader.execute("SELECT 1 FROM outbox").fetchone()
        for suffix in suffixes:
            db.with_name(f"{db.name}{suffix}").unlink()
        subprocess.run([sys.executable, "-c", SHOP, str(db)], check=True)
        yield reader


@pytest.mark.parametrize("suffixes", [("-shm",), ("-wal", "-shm")])
def test_a_program_that_has_a_removed_log_open_elsewhere_does_not_write_to_that(
    db: Path, monkeypatch: pytest.MonkeyPatch, suffixes: tuple[str, ...]
) -> None:
    """What is open in one process shares an index: a new connection gets that of the old one."""
    monkeypatch.setattr(pool, "PATIENCE", 0.1)
    with removed(db, *suffixes):
        with pytest.raises(AdriftError, match="this program still has it open") as told:
            write(db, 1)
        assert told.value.hint
        with pytest.raises(AdriftError), closing(Outbox(db, default_source="custom")) as outbox:
            outbox.data_version()
    assert write(db, 2) == 11
    pool.close()
    assert ids(db) == [*range(1, 12)]
    backup.check(db)


def test_who_has_a_removed_log_open_elsewhere_writes_once_that_is_closed(db: Path) -> None:
    with removed(db, "-shm") as reader, ThreadPoolExecutor(1) as threads:
        before = len(open_files(db))
        written = threads.submit(write, db, 1)
        until(lambda: len(open_files(db)) > before)
        reader.close()
        assert written.result() == 11
    pool.close()
    assert ids(db) == [*range(1, 12)]


def test_who_is_kept_from_writing_by_a_removed_log_is_not_sent_to_mend_the_disk(db: Path) -> None:
    with closing(sqlite3.connect(db)) as program, program:
        program.execute("INSERT INTO outbox (event, payload) VALUES ('customer_created', '{}')")
        program.commit()
        db.with_name(f"{db.name}-wal").unlink()
        intake = "import sys; from outboxd.intake.command import main; sys.exit(main())"
        event = ["--event=customer_created", '--data={"id": 1}', f"--db={db}"]
        told = subprocess.run([sys.executable, "-c", intake, *event], capture_output=True, text=True)
    assert told.returncode == 74
    assert f"the log of {db} was removed under programs that have it open" in told.stderr
    assert "hint: restart them" in told.stderr


CROWDED = """
import os, resource
from outboxd import OutboxdError, enqueue
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
while True:
    try:
        last = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        break
for number in range(5):
    try:
        print(enqueue("customer_created", {"id": 1}))
        break
    except OutboxdError as error:
        print(error.hint)
    os.close(last - number)
"""


def test_a_program_that_has_too_many_files_open_is_told_so(db: Path) -> None:
    environ = {**os.environ, "OUTBOXD_DATABASE": str(db)}
    told = subprocess.run([sys.executable, "-c", CROWDED], capture_output=True, text=True, env=environ)
    assert told.stderr == ""
    *hints, event_id = told.stdout.splitlines()
    assert event_id == "1"
    assert len(hints) == 3
    assert all("ulimit -n" in hint for hint in hints)


STRANGER = """
import sqlite3, sys
from outboxd.locks import turn
insert = "INSERT INTO outbox (event, payload) VALUES ('customer_created', '{}')"
def connection():
    return sqlite3.connect(sys.argv[1], isolation_level=None)
with turn(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
    last = connection()
    last.execute(insert)
    last.close()
    stays = connection()
    stays.execute(insert)
print("done", flush=True)
sys.stdin.readline()
"""
"""Writes, in its turn, once as the last one to have the outbox open and once with a log of its own."""


def test_a_log_that_is_made_anew_while_one_waits_for_the_turn_is_written_to(db: Path) -> None:
    write(db, 1)
    db.read_bytes()
    command = [sys.executable, "-c", STRANGER, str(db)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stranger:
        assert stranger.stdin is not None
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "held\n"
        found: list[int] = []
        before = len(open_files(db))
        waiting = Thread(target=lambda: found.append(write(db, 2)))
        waiting.start()
        until(lambda: len(open_files(db)) > before)  # the file of the turn
        stranger.stdin.write("\n")
        stranger.stdin.flush()
        assert stranger.stdout.readline() == "done\n"
        waiting.join()
        assert found == [4]
        assert write(db, 3) == 5
        assert ids(db) == [1, 2, 3, 4, 5]
        stranger.kill()
    pool.close()
    assert ids(db) == [1, 2, 3, 4, 5]
    backup.check(db)


def test_what_is_reached_by_two_names_is_kept_by_one(db: Path) -> None:
    link = db.with_name("link.db")
    link.symlink_to(db)
    write(db, 1)
    opened.clear()
    assert write(link, 2) == 2
    assert opened == []


def test_a_connection_that_failed_is_not_kept(db: Path) -> None:
    def never() -> object:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        outboxd.enqueue("customer_created", {"id": 1}, db=db, now=never)  # type: ignore[arg-type]
    assert open_files(db) == []
    assert write(db, 1) == 1


def test_no_more_are_kept_than_write_at_once_nor_more_than_a_few(db: Path, tmp_path: Path) -> None:
    threads = 2 * pool.MOST
    barrier = Barrier(threads)

    def work(number: int) -> int:
        barrier.wait()
        return write(db, number)

    with ThreadPoolExecutor(threads) as workers:
        assert sorted(workers.map(work, range(threads))) == list(range(1, threads + 1))
    # SQLite itself keeps the outbox open until all locks of a process are gone, but no log.
    assert 1 <= open_files(db).count(f"{db}-wal") <= pool.MOST
    others = [tmp_path / f"{number}.db" for number in range(threads)]
    for other in others:
        database.migrate(other)
        write(other, 1)
    assert len([file for file in open_files(tmp_path) if file.endswith("-wal")]) == pool.MOST


def test_nothing_is_open_across_a_fork(db: Path) -> None:
    write(db, 1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if open_files(db) == [] and write(db, 2) == 2 else 1
        finally:
            pool.close()
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert write(db, 3) == 3
    assert ids(db) == [1, 2, 3]
    backup.check(db)


def test_threads_that_write_lose_nothing_while_their_program_forks(db: Path) -> None:
    stopping, written = Event(), list[int]()

    def work(number: int) -> None:
        while not stopping.is_set():
            written.append(write(db, number))

    with ThreadPoolExecutor(3) as threads:
        for number in range(3):
            threads.submit(work, number)
        until(lambda: len(written) > 3)
        try:
            for _ in range(20):
                child = os.fork()
                if child == 0:
                    status = 1
                    try:
                        write(db, 7)
                        status = 0
                    finally:
                        pool.close()
                        os._exit(status)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            stopping.set()
    assert len(ids(db)) == len(written) + 20
    assert set(written) < set(ids(db))
    backup.check(db)


def test_a_program_that_ends_folds_the_log_into_the_file(db: Path) -> None:
    program = f"import outboxd; outboxd.enqueue('customer_created', {{'id': 1}}, db={str(db)!r})"
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert not db.with_name("outbox.db-wal").exists()
    assert ids(db) == [1]


def test_what_is_acknowledged_would_outlast_a_power_cut(db: Path) -> None:
    """Each commit is on the disk before it is told, by whichever door it came."""
    with closing(database.connect(db)) as plain, pool.connection(db) as pooled:
        drivers = (plain, pooled.connection)
        asked = [[each.execute(f"PRAGMA {name}").fetchone()[0] for name in SAFE] for each in drivers]
    assert asked == [[*SAFE.values()]] * 2


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace to see the calls of the kernel")
def test_an_id_is_told_only_once_its_event_is_synced(db: Path, tmp_path: Path) -> None:
    program = (
        "import outboxd, os\n"
        "for n in range(3): os.write(1, b'%d' % outboxd.enqueue('customer_created', {'id': n}))"
    )
    trace = tmp_path / "trace"
    strace = ["strace", "-y", "-e", "trace=fdatasync,fsync,write", "-o", str(trace)]
    done = subprocess.run(
        [*strace, sys.executable, "-c", program],
        env={**os.environ, "OUTBOXD_DATABASE": str(db)},
        capture_output=True,
        text=True,
    )
    if "ptrace" in done.stderr:
        pytest.skip("nobody may be traced here")
    assert (done.returncode, done.stdout) == (0, "123")
    synced = f"{db}-wal"
    seen = re.findall(rf"sync\(\d+<{re.escape(synced)}>\)|write\(1", trace.read_text())
    told = [at for at, each in enumerate(seen) if each == "write(1"]
    assert all(at and "sync" in seen[at - 1] for at in told), seen
    assert len(told) == 3
