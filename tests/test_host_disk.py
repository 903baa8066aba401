"""The disk is full, read-only or broken: it is told, nothing is lost or doubled, and all goes on after it."""

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest

import outboxd
from outboxd import backup, pool
from outboxd.brevo.sandbox import Fault, Sandbox
from outboxd.errors import DatabaseError
from outboxd.outbox.pruning import Pruning
from tests.conftest import until
from tests.outboxes import new_outbox
from tests.processes import Daemon, write_config
from tests.users import needs_mounts


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MiB of its own, with an outbox."""
    at = tmp_path / "disk"
    at.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "none", at], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        new_outbox(at / "outbox.db")
        yield at
    finally:
        while subprocess.run(["umount", "--lazy", at], capture_output=True).returncode == 0:
            pass


def fill(disk: Path) -> Path:
    """Leave no byte of it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return filler
    raise AssertionError("the disk has no end")


def created(outbox: Path, number: int) -> int:
    """As by a program that ends with that: nothing stays open."""
    data = {"id": number, "email": f"ann{number}@example.com"}
    try:
        return outboxd.enqueue("customer_created", data, db=outbox)
    finally:
        pool.close()


def outboxd_says(config: Path, *words: str) -> str:
    command = [sys.executable, "-m", "outboxd", *words, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


def spent(daemon: Daemon) -> float:
    """Seconds of a processor that it has used."""
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def once_each(sandbox: Sandbox, count: int) -> None:
    """So many customers were made in Brevo, each by one call."""
    made = [(call.body or {})["email"] for call in sandbox.calls if call.method == "POST"]
    assert sorted(made) == sorted({f"ann{number}@example.com" for number in range(count)})


def survives(
    daemon: Daemon, slow: Sandbox, break_it: Callable[[], object], mend_it: Callable[[], None], reason: str
) -> None:
    """Let the file take no writes while deliveries are under way and a shop writes, and then again.

    What was in flight is recorded afterwards, no event that was accepted is lost, and nothing is said twice.
    """
    outbox = daemon.database
    written = 0
    for _ in range(4):
        created(outbox, written)
        written += 1
    until(lambda: slow.stats["under_way"] == 4)
    break_it()
    daemon.says(f'stuck reason="{reason}')
    begun, used = monotonic(), spent(daemon)
    for _ in range(8):
        try:
            created(outbox, written)
        except DatabaseError:
            break
        written += 1
    until(lambda: monotonic() - begun > 2.5)
    assert spent(daemon) - used < (monotonic() - begun) / 2, "it is busy with nothing"
    assert daemon.words.count("stuck reason") == 1
    mend_it()
    daemon.says(" unstuck seconds=")
    created(outbox, written)
    until(lambda: daemon.status()["delivered"] == written + 1)
    assert daemon.status()["dead"] == 0
    once_each(slow, written + 1)
    assert daemon.words.count("stuck reason") == 1
    assert "Traceback" not in daemon.words
    daemon.send(signal.SIGTERM)
    assert daemon.ended() == 0
    backup.check(outbox)


@needs_mounts
def test_a_full_disk_is_told_once_and_all_is_delivered_once_when_there_is_room(disk: Path) -> None:
    with Sandbox(latency=timedelta(milliseconds=700)) as slow:
        config = write_config(disk / "config.yaml", slow.url, brevo={"workers": 4})
        with Daemon(config, said_to=disk.parent) as daemon:
            daemon.ready()

            def mend() -> None:
                told = outboxd_says(config, "status")
                assert f"the disk is full: 0 KiB are left at {disk}" in told
                assert f"the disk that holds {daemon.database} is full" in told
                assert "FAIL  disk" in outboxd_says(config, "check", "--offline")
                (disk / "filler").unlink()

            survives(daemon, slow, lambda: fill(disk), mend, f"the disk that holds {daemon.database} is full")
        assert "trouble" not in outboxd_says(config, "status")


@needs_mounts
def test_what_is_lost_on_a_full_disk_is_salvaged_once_there_is_room(disk: Path) -> None:
    with Sandbox(faults=[Fault(status=503, method="POST")]) as sandbox:
        config = write_config(disk / "config.yaml", sandbox.url)
        with Daemon(config, said_to=disk.parent) as daemon:
            outbox = daemon.ready().database
            created(outbox, 1)
            until(lambda: daemon.status()["retrying"] == 1)
            filler = fill(disk)
            outbox.unlink()
            reason = f"the disk that holds {disk} has no room for a copy"
            tried_at = monotonic()
            daemon.says(reason)
            until(lambda: monotonic() > tried_at + 2.5)  # and tried again meanwhile
            assert daemon.words.count(reason) == 1
            assert "salvaged" not in daemon.words
            filler.unlink()
            daemon.says(" salvaged ")
    [lost] = disk.glob("outbox.db.lost-*")
    backup.check(lost)


@needs_mounts
def test_what_is_lost_where_nothing_can_be_made_is_told_as_that_and_held(disk: Path) -> None:
    with Sandbox() as sandbox:
        config = write_config(disk.parent / "config.yaml", sandbox.url)
        room = disk / "room"
        room.mkdir()
        settings = json.loads(config.read_text())
        config.write_text(json.dumps({**settings, "database": str(room / "outbox.db")}))
        with Daemon(config) as daemon:
            daemon.ready()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", room], check=True)
            daemon.says("cannot be created: Read-only file system", 40)
            assert f'hint="sudo mount -o remount,rw {room}"' in daemon.words
            subprocess.run(["umount", room], check=True)
            daemon.says("unstuck")
            assert "bug" not in daemon.words


def test_a_disk_that_fails_to_write_is_told_once_and_recovered_from(tmp_path: Path, db: Path) -> None:
    """Real errors of the kernel: no file of the daemon's may grow beyond 96 KiB."""
    with Sandbox(latency=timedelta(milliseconds=700)) as slow:
        config = write_config(tmp_path / "config.yaml", slow.url, brevo={"workers": 4})
        with Daemon(config) as daemon:
            pid = daemon.ready().process.pid
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)

            def spoil() -> None:
                log = daemon.database.with_name("outbox.db-wal")
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (log.stat().st_size, hard))

            def mend() -> None:
                told = outboxd_says(config, "status")
                assert "does not read or write (disk I/O error)" in told
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

            survives(
                daemon, slow, spoil, mend, f"the disk that holds {daemon.database} does not read or write"
            )


@needs_mounts
def test_on_a_read_only_file_system_it_does_not_start_and_says_what_mends_that(disk: Path) -> None:
    with Sandbox() as sandbox:
        config = write_config(disk / "config.yaml", sandbox.url)
        created(disk / "outbox.db", 0)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with Daemon(config, said_to=disk.parent) as daemon:
            assert daemon.ended() == 74
        mend = f"sudo mount -o remount,rw {disk}"
        assert f"the file system of {disk} is read-only" in daemon.words
        assert mend in daemon.words
        assert "Traceback" not in daemon.words
        assert f"FAIL  disk: the file system of {disk} is read-only" in outboxd_says(
            config, "check", "--offline"
        )
        with pytest.raises(DatabaseError, match="is read-only"):
            created(disk / "outbox.db", 1)
        subprocess.run(mend.split()[1:], check=True)
        with Daemon(config, said_to=disk.parent) as daemon:
            until(lambda: sandbox.contact("ann0@example.com"))
            until(lambda: daemon.status()["delivered"] == 1)


@needs_mounts
def test_what_is_open_when_the_place_becomes_read_only_is_drained_and_who_comes_is_told(disk: Path) -> None:
    """The kernel lets no file system become read-only below an open file: only the way to it can."""
    with Sandbox() as sandbox:
        config = write_config(disk / "config.yaml", sandbox.url)
        with Daemon(config, said_to=disk.parent) as daemon:
            created(daemon.ready().database, 0)
            until(lambda: daemon.status()["delivered"] == 1)
            subprocess.run(["mount", "--bind", disk, disk], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
            with pytest.raises(DatabaseError, match="is read-only") as told:
                created(daemon.database, 1)
            subprocess.run(str(told.value.hint).replace("rw", "bind,rw").split()[1:], check=True)
            created(daemon.database, 1)
            until(lambda: daemon.status()["delivered"] == 2)
            assert "stuck" not in daemon.words
        once_each(sandbox, 2)


@needs_mounts
def test_a_log_for_which_the_file_has_no_room_is_told_and_cut_once_there_is_some(disk: Path) -> None:
    outbox = disk / "outbox.db"
    with closing(Pruning(outbox)) as pruning:
        with closing(sqlite3.connect(outbox)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM outbox").fetchone()
            for number in range(60):  # into the log, and no further
                created(outbox, number)
        filler = fill(disk)
        with pytest.raises(DatabaseError, match=f"the disk that holds {outbox} is full"):
            pruning.cut_log(limit=0)
        filler.unlink()
        assert pruning.cut_log(limit=0)
    backup.check(outbox)


def test_where_sqlites_temporary_files_have_no_room_the_outboxs_disk_is_not_blamed_alone(
    db: Path, disk: Path
) -> None:
    for number in range(60):  # more than SQLite keeps in memory
        outboxd.enqueue("customer_created", {"id": number, "note": "x" * 100_000}, db=db)
    fill(disk)
    code = "import sys; from outboxd.outbox.pruning import Pruning; Pruning(sys.argv[1]).rewrite()"
    done = subprocess.run(
        [sys.executable, "-c", code, db],
        env={**os.environ, "SQLITE_TMPDIR": str(disk)},
        capture_output=True,
        text=True,
    )
    assert f"the disk that holds {db} or temporary files is full" in done.stderr
