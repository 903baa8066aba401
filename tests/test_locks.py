"""The turn to write: in a fair queue, and never without end where whoever has it has stopped."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread, active_count

import pytest

import outboxd
from outboxd import database, locks, pool
from outboxd.clock import wall
from outboxd.errors import DatabaseError, NoOutboxError
from outboxd.locks import drainer, turn
from outboxd.outbox import Outbox
from tests.conftest import until
from tests.processes import Daemon, write_config
from tests.users import DAEMON, SHOP, needs_mounts, needs_users, shared_directory

HOLD = """
import sys
from outboxd.locks import turn
with turn(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""

INTAKE = """
from outboxd import locks
from outboxd.intake.command import main
locks.PATIENCE = 0.2
main()
"""


DAEMON_OF_LITTLE_PATIENCE = """
from outboxd import locks
from outboxd.__main__ import main
locks.PATIENCE = 0.2
main()
"""


@pytest.fixture
def holder(db: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the turn, and has stopped."""
    command = [sys.executable, "-c", HOLD, str(db)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        yield process
        process.kill()


def write(db: Path, number: int) -> int:
    return outboxd.enqueue("customer_created", {"id": number}, db=db)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_who_has_stopped_keeps_nobody_from_writing(db: Path, holder: subprocess.Popen[str]) -> None:
    event = ("--event", "customer_created", "--data", '{"id": 5}')
    command = [sys.executable, "-c", INTAKE, "--db", str(db), *event]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert holder.poll() is None


def test_a_daemon_that_started_while_somebody_had_stopped_ends_in_good_order(
    db: Path, holder: subprocess.Popen[str]
) -> None:
    config = write_config(db.with_name("config.yaml"), "http://127.0.0.1:9/v3")
    with Daemon(config, program=("-c", DAEMON_OF_LITTLE_PATIENCE)) as daemon:
        daemon.ready().send(signal.SIGTERM)
        assert daemon.ended() == 0
        assert daemon.words.rstrip().endswith("stopped")
    assert holder.poll() is None


def test_who_waited_in_vain_does_not_wait_again_until_the_turn_has_come(
    db: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    assert write(db, 1) == 1
    pool.close()
    monkeypatch.setattr(locks, "PATIENCE", 1e6)
    assert [write(db, number) for number in range(2, 50)] == list(range(2, 50))
    pool.close()
    assert descriptors() == before + 1, "one thread waits, however many write"
    holder.kill()
    until(lambda: descriptors() == before)
    assert write(db, 50) == 50
    with turn(db):  # is had again, so that others wait
        other = Thread(target=write, args=(db, 51))
        other.start()
        other.join(0.1)
        assert other.is_alive()
    other.join()


def test_a_turn_that_comes_in_time_is_waited_for(db: Path, holder: subprocess.Popen[str]) -> None:
    threads = active_count()
    waiting = Thread(target=write, args=(db, 1))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    holder.send_signal(signal.SIGCONT)
    assert holder.stdin is not None
    holder.stdin.write("\n")
    holder.stdin.close()
    waiting.join()
    assert write(db, 2) == 2
    assert active_count() == threads


def test_who_drains_waits_for_a_turn_like_any_other(db: Path) -> None:
    with closing(Outbox(db, default_source="custom")) as outbox:
        with turn(db):
            draining = Thread(target=outbox.save_state, args=({"heartbeat": "late"}, wall()))
            draining.start()
            draining.join(0.1)
            assert draining.is_alive()
            assert outbox.state("heartbeat") is None
        draining.join()
        assert outbox.state("heartbeat") == "late"


def test_what_waits_for_its_turn_while_the_outbox_is_put_aside_is_written_to_the_next_one(db: Path) -> None:
    """As by a restore, which has the turn; the file that was opened before is nobody's any more."""
    ids: list[int] = []
    with turn(db):
        writing = Thread(target=lambda: ids.append(write(db, 7)))
        before = descriptors()
        writing.start()
        until(lambda: descriptors() == before + 4)  # the outbox, its log, their index, and the turn
        for suffix in ("", "-wal", "-shm"):
            if (file := Path(f"{db}{suffix}")).exists():
                file.rename(f"{db}.aside{suffix}")
        database.create(db)
        database._migrate(db)  # as `migrate`, which takes the turn itself
    writing.join()
    with database.reading(db) as connection:
        found = connection.execute("SELECT id FROM outbox").fetchall()
    assert (ids, found) == ([1], [(1,)])


def test_a_process_that_is_forked_off_meanwhile_does_not_keep_the_turn(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 1e6)
    reading, writing = os.pipe()
    with turn(db):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    assert write(db, 1) == 1
    with turn(db):
        os.close(writing)
    os.close(reading)
    assert os.waitpid(child, 0)[1] == 0


def drain(path: Path) -> None:
    with drainer(path, who="a test", shared=False):
        pass


def test_where_no_lock_can_be_made_the_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoOutboxError, match=f"the directory {tmp_path}/no does not exist") as told:
        drain(tmp_path / "no" / "outbox.db")
    assert (told.value.hint or "").startswith("sudo install -d ")


@needs_mounts
def test_where_the_file_system_is_read_only_that_is_told(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", tmp_path], check=True)
    try:
        with pytest.raises(DatabaseError, match=f"the file system of {tmp_path} is read-only") as told:
            drain(tmp_path / "outbox.db")
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert told.value.hint == f"sudo mount -o remount,rw {tmp_path}"


DRAIN = """
import os, resource, sys
from outboxd import OutboxdError
from outboxd.locks import drainer
{}
try:
    with drainer(sys.argv[1], who="a test", shared=False):
        print("drains")
except OutboxdError as error:
    print(error, error.hint)
"""


def test_a_drainer_that_has_too_many_files_open_is_told_so(db: Path) -> None:
    crowded = DRAIN.format("resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))")
    told = subprocess.run([sys.executable, "-c", crowded, str(db)], capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"this process has too many files open to open {db}.daemon close some")


@pytest.mark.parametrize("is_dangling", [False, True])
@pytest.mark.parametrize("suffix", [".daemon", ".drainers", ".turn"])
def test_a_link_in_place_of_a_lock_leads_to_nothing_that_is_written(
    db: Path, tmp_path: Path, suffix: str, is_dangling: bool
) -> None:
    """Where it was put by a shop, it could lead to a file that root alone may write to."""
    victim = tmp_path / "victim"
    if not is_dangling:
        victim.write_text("precious")
    link = Path(f"{db}{suffix}")
    link.unlink(missing_ok=True)
    link.symlink_to(victim)
    if suffix == ".turn":
        outboxd.enqueue("customer_created", {"id": 1}, db=db)
    else:
        with pytest.raises(DatabaseError, match=f"^{link} is a link") as told:
            with drainer(db, who="a test", shared=False):
                pass
        assert told.value.hint == f"remove it: rm {link}"
    assert victim.exists() != is_dangling
    assert is_dangling or victim.read_text() == "precious"


@needs_users
def test_a_lock_that_another_user_has_closed_is_named_with_the_user_to_be() -> None:
    with shared_directory() as directory:
        (directory / "outbox.db.daemon").touch(0o600)
        told = SHOP.run(sys.executable, "-c", DRAIN.format(""), str(directory / "outbox.db"), reads_all=True)
    assert told.stdout.startswith(f"{directory}/outbox.db.daemon cannot be opened: Permission denied")
    assert "sudo -u outboxd" in told.stdout


SLOW = """
at_once = os.open
def slowly(path, *arguments, **options):
    try:
        return at_once(path, *arguments, **options)
    except FileNotFoundError:
        print("missing", flush=True)
        input()
        raise
os.open = slowly
"""


@needs_users
def test_two_users_may_make_a_lock_at_the_same_moment() -> None:
    """It belongs to one of them, and only that one can set its rights."""
    with shared_directory() as directory:
        path = directory / "outbox.db"
        command = SHOP.command(sys.executable, "-c", DRAIN.format(SLOW), str(path), reads_all=True)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as slow:
            assert slow.stdin is not None
            assert slow.stdout is not None
            for suffix in (".daemon", ".drainers"):
                assert slow.stdout.readline() == "missing\n"
                lock = Path(f"{path}{suffix}")
                lock.touch()
                lock.chmod(0o660)
                os.chown(lock, DAEMON.number, DAEMON.number)
                slow.stdin.write("\n")
                slow.stdin.flush()
            assert slow.stdout.read() == "drains\n"
