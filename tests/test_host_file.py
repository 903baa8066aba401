"""The outbox is removed or replaced under a running daemon: it is told, salvaged, and taken up again."""

import fcntl
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

import outboxd
from outboxd import app, backup, database, pool
from outboxd.brevo.sandbox import Fault, Sandbox
from outboxd.errors import AdriftError, DatabaseError, RightsError
from outboxd.outbox import Outbox
from tests.conftest import until
from tests.processes import Daemon, write_config
from tests.shop import MakeShop, Shop
from tests.test_pool import open_files
from tests.test_relay import running


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


@pytest.fixture
def config(tmp_path: Path, db: Path, sandbox: Sandbox) -> Path:
    return write_config(tmp_path / "config.yaml", sandbox.url)


def created(outbox: Path, number: int) -> int:
    data = {"id": number, "email": f"ann{number}@example.com"}
    return outboxd.enqueue("customer_created", data, db=outbox)


def lost(outbox: Path) -> Path:
    """What was salvaged, which must be one file."""
    [found] = outbox.parent.glob(f"{outbox.name}.lost-*")
    return found


def pending(path: Path) -> list[int]:
    """The customers that a file has pending events of; the file must be sound."""
    backup.check(path)
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT payload ->> 'id' FROM outbox WHERE status = 'pending' ORDER BY id")
        return [row[0] for row in rows]


def remove(outbox: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        outbox.with_name(outbox.name + suffix).unlink(missing_ok=True)  # the daemon may have been first


@pytest.mark.parametrize("suffixes", [("",), ("", "-wal", "-shm", ".daemon", ".drainers", ".turn")])
def test_a_removed_outbox_is_told_waited_for_and_taken_up_when_it_is_made_anew(
    config: Path, sandbox: Sandbox, suffixes: tuple[str, ...]
) -> None:
    """With the file alone, and with all that lies beside it, the locks included."""
    with Daemon(config) as daemon:
        created(daemon.ready().database, 1)
        until(lambda: daemon.status()["delivered"] == 1)
        remove(daemon.database, *suffixes)
        daemon.says("salvaged")
        assert f'reason="{daemon.database} was removed while it was in use"' in daemon.words
        missing = f'reason="there is no outbox at {daemon.database}" hint="create it with: outboxd migrate"'
        daemon.says(missing)
        told = subprocess.run(
            [sys.executable, "-m", "outboxd", "status", "--config", str(config)],
            capture_output=True,
            text=True,
        )
        assert (told.returncode, "there is no outbox" in told.stderr) == (66, True)
        database.migrate(daemon.database)
        created(daemon.database, 2)
        daemon.says("unstuck")
        until(lambda: sandbox.contact("ann2@example.com"))
        until(lambda: daemon.status()["delivered"] == 1)
        assert daemon.words.count(missing) == 1
        with Daemon(config) as second:
            assert second.ended() == 75
        daemon.send(signal.SIGTERM)
        assert daemon.ended() == 0
    backup.check(daemon.database)


@pytest.mark.parametrize("suffixes", [("-wal",), ("-shm",), ("-wal", "-shm")])
def test_a_log_that_is_removed_is_folded_into_the_outbox_and_made_anew(
    config: Path, sandbox: Sandbox, suffixes: tuple[str, ...]
) -> None:
    """Before shops write to another one, of which nobody would hear. A copy is kept, and not needed."""
    sandbox.faults.add(Fault(status=503, method="POST", times=1))
    with Daemon(write_config(config, sandbox.url, retry={"first_seconds": 600})) as daemon:
        created(daemon.ready().database, 1)
        until(lambda: daemon.status()["retrying"] == 1)
        remove(daemon.database, *suffixes)
        daemon.says("unstuck")
        assert f'reason="the log of {daemon.database} was removed while it was in use"' in daemon.words
        assert "to have it back" not in daemon.words
        created(daemon.database, 2)
        until(lambda: sandbox.contact("ann2@example.com"))
        until(lambda: daemon.status()["delivered"] == 1)
        daemon.send(signal.SIGTERM)
        assert daemon.ended() == 0
    assert pending(daemon.database) == pending(lost(daemon.database)) == [1]


def test_a_copied_outbox_that_has_no_log_is_given_one(config: Path, sandbox: Sandbox) -> None:
    """As a backup has none. Without a log readers and writers would wait for each other."""
    made = config.with_name("made.db")
    config.with_name("outbox.db").rename(made)
    backup.back_up(made, config.with_name("outbox.db"))
    with Daemon(config) as daemon:
        created(daemon.ready().database, 1)
        until(lambda: daemon.status()["delivered"] == 1)
        with closing(sqlite3.connect(daemon.database)) as shop:
            assert shop.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        created(daemon.database, 2)
        until(lambda: daemon.status()["delivered"] == 2)
        assert "stuck" not in daemon.words


def test_two_that_give_a_copied_outbox_its_log_at_once_take_turns(db: Path, tmp_path: Path) -> None:
    """SQLite makes one wait for whoever reads, and lets the other one fail at once."""
    copied = tmp_path / "copied.db"
    backup.back_up(db, copied)

    def open_it() -> bool:
        with closing(Outbox(copied, default_source="custom")) as outbox:
            return outbox.anchor.holds

    with closing(sqlite3.connect(copied, isolation_level=None)) as reader, ThreadPoolExecutor(2) as threads:
        reader.execute("BEGIN")
        reader.execute("SELECT 1 FROM outbox").fetchone()
        both = [threads.submit(open_it) for _ in range(2)]
        turns = copied.with_name("copied.db.turn")
        until(lambda: open_files(turns) or any(each.done() for each in both))
        assert open_files(turns)
        reader.execute("COMMIT")
        assert [each.result() for each in both] == [True, True]


def test_where_sqlite_can_keep_no_log_that_is_said(db: Path, tmp_path: Path) -> None:
    """Without shared memory it goes on as it was, and raises no error."""
    copied = tmp_path / "copied.db"
    backup.back_up(db, copied)
    with (
        closing(sqlite3.connect(f"file:{copied}?vfs=unix-dotfile", uri=True)) as without,
        pytest.raises(DatabaseError, match="cannot keep a write-ahead log") as told,
    ):
        database.keep_log(copied, without)
    assert told.value.hint


def test_a_program_goes_on_in_a_copied_outbox_when_that_is_given_its_log(db: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied.db"
    backup.back_up(db, copied)
    created(copied, 1)
    with closing(Outbox(copied, default_source="custom")) as outbox:
        created(copied, 2)
        assert [event.id for event in outbox.fresh()] == [1, 2]
        assert outbox.anchor.holds


def test_what_was_pending_in_a_removed_file_is_salvaged(config: Path, sandbox: Sandbox) -> None:
    """Its log included: nobody else can reach it any more."""
    sandbox.faults.add(Fault(status=503, method="POST"))
    with Daemon(config) as daemon:
        for number in range(5):
            created(daemon.ready().database, number)
        until(lambda: daemon.status()["retrying"] == 5)
        remove(daemon.database, "", "-wal", "-shm")
        daemon.says("salvaged")
        assert f'pending=5 hint="to have it back: outboxd restore {lost(daemon.database)}"' in daemon.words
    assert pending(lost(daemon.database)) == [0, 1, 2, 3, 4]


def test_a_backup_moved_into_place_is_taken_up_and_spoilt_by_nothing_of_the_old_log(
    config: Path, sandbox: Sandbox
) -> None:
    """The log of the old file lies where the new one's would, full of pages that are not the new one's."""
    with Daemon(config) as daemon:
        created(daemon.ready().database, 1)
        until(lambda: daemon.status()["delivered"] == 1)
        saved = daemon.database.with_name("saved.db")
        backup.back_up(daemon.database, saved)
        sandbox.faults.add(Fault(status=503, method="POST"))
        for number in range(2, 5):
            created(daemon.database, number)
        until(lambda: daemon.status()["retrying"] == 3)
        assert daemon.database.with_name("outbox.db-wal").stat().st_size > 0
        sandbox.faults.clear()
        saved.replace(daemon.database)
        daemon.says("unstuck")
        assert f'reason="another file has taken the place of {daemon.database}"' in daemon.words
        created(daemon.database, 5)
        until(lambda: sandbox.contact("ann5@example.com"))
        until(lambda: daemon.status()["delivered"] == 2)
        assert daemon.status()["pending"] == 0
        daemon.send(signal.SIGTERM)
        assert daemon.ended() == 0
    backup.check(daemon.database)
    assert pending(lost(daemon.database)) == [2, 3, 4]
    assert sandbox.contact("ann2@example.com") is None


def test_nothing_is_taken_up_that_is_no_sound_outbox_of_this_version(config: Path) -> None:
    with Daemon(config) as daemon:
        daemon.ready()
        spoilt = daemon.database.with_name("spoilt.db")
        spoilt.write_bytes(b"this is no database " * 1000)
        spoilt.replace(daemon.database)
        daemon.says("is not a sound SQLite database")
        database.migrate(spoilt)
        with closing(sqlite3.connect(spoilt)) as connection, connection:
            connection.execute("UPDATE outboxd_schema SET version_num = '9999'")
        spoilt.replace(daemon.database)
        daemon.says("newer outboxd (schema 9999")
        assert "unstuck" not in daemon.words
        assert "Traceback" not in daemon.words


def test_where_there_is_no_room_for_a_copy_what_is_lost_is_held_until_there_is(config: Path) -> None:
    with Daemon(config) as daemon:
        created(daemon.ready().database, 1)
        until(lambda: daemon.status()["delivered"] == 1)
        directory = config.parent
        away = directory.with_name("away")
        directory.rename(away)
        daemon._words = away / daemon._words.name
        daemon.says("does not exist")
        assert "salvaged" not in daemon.words
        away.rename(directory)
        daemon._words = directory / daemon._words.name
        daemon.says("unstuck")
        created(daemon.database, 2)
        until(lambda: daemon.status()["delivered"] == 2)


@pytest.mark.parametrize("file", [".daemon", ".drainers"])
def test_a_removed_lock_is_taken_anew_before_another_daemon_can_be_in(config: Path, file: str) -> None:
    with Daemon(config) as daemon:
        daemon.ready()
        remove(daemon.database, file)
        daemon.says("unstuck")
        assert "the lock files beside the outbox were removed" in daemon.words
        assert not list(config.parent.glob("outbox.db.lost-*"))
        with Daemon(config) as second:
            assert second.ended() == 75
        created(daemon.database, 1)
        until(lambda: daemon.status()["delivered"] == 1)


def test_whose_lock_was_removed_and_taken_by_another_waits_for_that_one(config: Path) -> None:
    with Daemon(config) as daemon:
        daemon.ready()
        lock = daemon.database.with_name("outbox.db.daemon")
        theirs = lock.with_name("theirs")
        theirs.write_text("process 4711 on shop")
        with theirs.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            theirs.replace(lock)
            daemon.says("is drained already, by process 4711 on shop")
            created(daemon.database, 1)
            assert "unstuck" not in daemon.words
        daemon.says("unstuck")
        until(lambda: daemon.status()["delivered"] == 1)


def test_what_is_in_flight_when_the_file_goes_ends_before_the_next_one_is_taken_up(
    tmp_path: Path, db: Path
) -> None:
    """At no time are there two deliveries for one customer."""
    with Sandbox(latency=timedelta(seconds=1)) as slow:
        config = write_config(tmp_path / "config.yaml", slow.url)
        for number in range(4):
            created(db, number)
        saved = tmp_path / "saved.db"
        backup.back_up(db, saved)
        with Daemon(config) as daemon:
            until(lambda: slow.stats["under_way"] == 4)
            saved.replace(db)
            daemon.says("unstuck")
            until(lambda: daemon.status()["delivered"] == 4)
        assert slow.stats["contacts"] == 4
        assert slow.stats["largest_overlap"] == 1


def test_of_what_goes_together_no_call_is_begun_once_the_file_has_gone(make_shop: MakeShop) -> None:
    shop = make_shop(sandbox={"latency": timedelta(seconds=0.7)}, batch={"batch_size": 10})
    shop.know(50)
    shop.fill(
        "updated",
        [{"id": str(n), "email": f"ann{n}@example.com", "firstName": "Ann"} for n in range(50)],
        is_backfill=True,
    )
    with running(shop.relay):
        until(lambda: shop.sandbox.stats["under_way"] == 1)
        shop.path.rename(shop.path.with_name("elsewhere.db"))
        until(lambda: shop.relay.is_adrift)
        until(lambda: shop.sandbox.stats["under_way"] == 0)
    assert [call.path for call in shop.calls] == ["/contacts/batch"]


def test_a_drain_ends_with_what_has_happened(shop: Shop) -> None:
    shop.enqueue("created", id=1, email="ann@example.com")
    shop.path.rename(shop.path.with_name("elsewhere.db"))
    with pytest.raises(AdriftError, match="was removed while it was in use"):
        shop.drain()
    assert shop.calls == []


def test_what_a_drain_loses_is_salvaged(shop: Shop) -> None:
    shop.enqueue("created", id=1, email="ann@example.com")
    remove(shop.path, "", "-wal", "-shm")
    with pytest.raises(AdriftError):
        shop.drain()
    shop.close()
    assert pending(lost(shop.path)) == [1]


def test_what_is_lost_while_the_daemon_ends_is_salvaged(config: Path, tmp_path: Path) -> None:
    with Sandbox(latency=timedelta(seconds=1)) as slow:
        write_config(config, slow.url, brevo={"workers": 1})
        with Daemon(config) as daemon:
            for number in range(2):
                created(daemon.ready().database, number)
            until(lambda: slow.stats["under_way"] == 1)
            daemon.send(signal.SIGTERM)
            daemon.says("stopping")
            remove(daemon.database, "", "-wal", "-shm")
            assert daemon.ended() == 0
    assert pending(lost(daemon.database)) == [0, 1]


def test_each_of_two_that_lose_one_file_keeps_a_copy(config: Path, sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault(status=503, method="POST"))
    with Daemon(config, "--shared") as first, Daemon(config, "--shared") as second:
        created(first.ready().database, 1)
        second.ready()
        until(lambda: first.status()["retrying"] == 1)
        remove(first.database, "", "-wal", "-shm")
        for daemon in (first, second):
            daemon.says(" salvaged ")
    told = {each for daemon in (first, second) for each in re.findall(r"salvaged file=(\S+)", daemon.words)}
    assert {str(each) for each in first.database.parent.glob("outbox.db.lost-*")} == told
    assert [pending(Path(each)) for each in told] == [[1], [1]]


def test_a_file_that_is_made_where_one_was_lost_has_a_log_of_its_own(shop: Shop) -> None:
    """However often it takes to salvage the lost one: what the new one has is neither read nor emptied."""
    created(shop.path, 1)
    made = shop.path.with_name("made.db")
    database.migrate(made)
    with closing(app.outbox(shop.settings)) as outbox:
        remove(shop.path, "")
        for number in (2, 3):
            with outbox.opened() as origin:
                assert origin.execute("SELECT payload ->> 'id' FROM outbox").fetchall() == [(1,)]
            if made.exists():
                made.rename(shop.path)
            created(shop.path, number)
    assert pending(shop.path) == [2, 3]


SHOP = """
import sqlite3, sys
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    shop = sqlite3.connect(sys.argv[1])
    payload = f'{{"id": {number}, "email": "ann{number}@example.com"}}'
    shop.execute("INSERT INTO outbox (event, payload) VALUES ('customer_created', ?)", (payload,))
    shop.commit()
    shop.close()
"""


def write(outbox: Path, numbers: range) -> None:
    """As a shop that opens the outbox for each event: nobody has it open afterwards."""
    command = [sys.executable, "-c", SHOP, str(outbox), str(numbers.start), str(numbers.stop)]
    subprocess.run(command, check=True)


def test_a_log_that_others_write_to_is_left_alone_if_its_index_alone_was_removed(shop: Shop) -> None:
    """They have another index by then, and so other locks: nobody here knows what is in the log."""
    created(shop.path, 1)
    with closing(app.outbox(shop.settings)) as outbox:
        remove(shop.path, "-shm")
        write(shop.path, range(2, 22))
        assert not outbox.anchor.holds
        with outbox.opened() as origin:
            assert origin.execute("SELECT count(*) FROM outbox").fetchone()[0] >= 1
        write(shop.path, range(22, 42))
        pool.close()
        shop.close()
    assert pending(shop.path) == [*range(1, 42)]


def test_a_removed_log_is_not_carried_into_what_others_wrote_without_it(db: Path) -> None:
    """Pages of the one and of the other would make no database. A copy has what is lost."""
    write(db, range(1, 201))
    with closing(Outbox(db, default_source="custom")) as outbox:
        with closing(database.connect(db)) as other:
            other.execute("UPDATE outbox SET status = 'dead', finished_at = created_at WHERE id % 2 = 0")
        write(db, range(201, 221))
        remove(db, "-wal", "-shm")
        write(db, range(301, 304))
        with outbox.opened() as origin:
            assert origin.execute("SELECT count(*) FROM outbox").fetchone() == (220,)
    assert pending(db) == [*range(1, 201), *range(301, 304)]


def test_what_is_lost_of_a_removed_log_is_told_if_shops_wrote_before_the_daemon_saw(
    config: Path, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault(status=503, method="POST", times=1))
    with Daemon(write_config(config, sandbox.url, retry={"first_seconds": 600})) as daemon:
        created(daemon.ready().database, 1)
        pool.close()
        until(lambda: daemon.status()["retrying"] == 1)
        daemon.send(signal.SIGSTOP)
        os.waitpid(daemon.process.pid, os.WUNTRACED)
        remove(daemon.database, "-wal", "-shm")
        write(daemon.database, range(2, 12))
        daemon.send(signal.SIGCONT)
        daemon.says("unstuck")
        assert 'pending=1 hint="shops wrote without what is in there' in daemon.words
        until(lambda: daemon.status()["delivered"] == 10)
        assert pending(lost(daemon.database)) == [1]
    assert pending(daemon.database) == []


def test_an_outbox_that_cannot_be_looked_at_any_more_is_closed(tmp_path: Path) -> None:
    directory, away = tmp_path / "outbox", tmp_path / "away"
    directory.mkdir()
    path = directory / "outbox.db"
    database.migrate(path)
    created(path, 1)
    with closing(Outbox(path, default_source="custom")) as outbox:
        directory.rename(away)
        directory.symlink_to(directory)
        with pytest.raises(RightsError):
            assert outbox.anchor.holds
        pool.close()
    directory.unlink(missing_ok=True)  # the daemon may have been first
    away.rename(directory)
    assert pending(path) == [1]


@pytest.mark.parametrize("suffixes", [("-wal",), ("-shm",), ("-wal", "-shm")])
def test_what_shops_write_while_the_last_deliveries_of_a_removed_log_end_is_kept(
    config: Path, suffixes: tuple[str, ...]
) -> None:
    """Whoever closes the outbox last removes the log that lies there, which is theirs by then."""
    with Sandbox(latency=timedelta(seconds=2)) as slow:
        write_config(config, slow.url)
        with Daemon(config) as daemon:
            created(daemon.ready().database, 1)
            pool.close()
            until(lambda: slow.stats["under_way"] == 1)
            remove(daemon.database, *suffixes)
            daemon.says("salvaged")
            write(daemon.database, range(2, 32))
            daemon.says("unstuck")
            with database.reading(daemon.database) as connection:
                assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (31,)
    backup.check(daemon.database)


def test_a_file_that_is_moved_away_and_back_between_two_looks_is_the_same_one(shop: Shop) -> None:
    elsewhere = shop.path.with_name("elsewhere.db")
    shop.path.rename(elsewhere)
    elsewhere.rename(shop.path)
    assert shop.sent("created", id=1, email="ann@example.com")["status"] == "delivered"
    with closing(app.outbox(shop.settings)) as outbox:
        assert outbox.anchor.holds
