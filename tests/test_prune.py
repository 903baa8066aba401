"""What is over leaves when its time has come; what is pending or dead never does by itself."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from time import perf_counter

import pytest

import outboxd
from outboxd import app, clock, database
from outboxd.clock import to_text
from outboxd.errors import AdriftError
from outboxd.outbox.pruning import BUDGET, SPARE, Pruning
from outboxd.prune import sweep
from outboxd.retention import Retention
from tests.shop import MakeShop, Shop
from tests.test_backup import rows
from tests.test_cli import exit_code, run
from tests.test_schema import assert_depth_is_right

MONTH = Retention(delivered=timedelta(days=30), attempts=timedelta(days=30), counters=timedelta(days=400))
SHOP = "INSERT INTO outbox (event, payload) VALUES ('customer_created', 'late')"
DELIVER = "UPDATE outbox SET status = 'delivered', finished_at = created_at"


def fill(path: Path, count: int, size: int = 400) -> None:
    """So many events that were delivered long ago, with payloads of `size` bytes."""
    with closing(sqlite3.connect(path)) as connection, connection:
        rows = (("customer_updated", json.dumps({"id": n, "x": "x" * size})) for n in range(count))
        connection.executemany("INSERT INTO outbox (event, payload) VALUES (?, ?)", rows)
        connection.execute(DELIVER)


def prune(path: Path, retention: Retention = MONTH, **later: float) -> int:
    """Prune all that is past its time, `later`; the number of steps."""
    with closing(Pruning(path)) as pruning:
        return sum(1 for _ in sweep(pruning, retention, clock.wall() + timedelta(**later)))


def test_delivered_events_leave_after_their_time_with_their_attempts(shop: Shop) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    shop.later(days=29)
    shop.sent("created", id=2, email="tom@example.com")
    assert shop.rows("SELECT id FROM outbox") == [(1,), (2,)]
    shop.later(days=2)
    shop.drain()
    assert shop.rows("SELECT id FROM outbox") == [(2,)]
    assert shop.rows("SELECT event_id FROM attempts") == [(2,)]


def test_the_contact_stays_as_brevo_has_it(shop: Shop) -> None:
    shop.sent("created", id=1, email="mara@example.com", firstName="Mara")
    shop.later(days=31)
    shop.drain()
    assert shop.rows("SELECT count(*) FROM outbox") == [(0,)]
    again = shop.sent("updated", id=1, email="mara@example.com", firstName="Mara")
    assert again["attempts_made"][0]["verdict"] == "unchanged"


def test_what_is_pending_or_dead_stays_whatever_its_age(make_shop: MakeShop) -> None:
    shop = make_shop(options={"sync_mode": "batch"})
    dead = shop.sent("updated", id=9, firstName="Nobody")
    assert dead["status"] == "dead"
    waiting = shop.enqueue("created", id=1, email="mara@example.com")
    prune(shop.path, Retention(*[timedelta(hours=1)] * 3), days=3650)
    assert shop.rows("SELECT id, status FROM outbox") == [(dead["id"], "dead"), (waiting, "pending")]
    assert len(shop.event(dead["id"])["attempts_made"]) == 1


def test_a_dropped_letter_leaves_when_it_was_dropped_long_ago_and_a_dead_one_stays(shop: Shop) -> None:
    """Its age counts from the operator's word, not from its death."""
    shop.later(days=-40)
    lost, kept = (shop.sent("updated", id=number, firstName="Nobody")["id"] for number in (8, 9))
    shop.later(days=40)
    with closing(app.outbox(shop.settings)) as outbox:
        assert outbox.drop([lost], "olga", shop.clock()) == [lost]
    prune(shop.path, days=29)
    assert shop.rows("SELECT id FROM outbox") == [(lost,), (kept,)]
    prune(shop.path, days=31)
    assert shop.rows("SELECT id FROM outbox") == [(kept,)]
    assert shop.rows("SELECT event_id FROM attempts") == [(kept,)]
    with closing(sqlite3.connect(shop.path)) as connection:
        assert_depth_is_right(connection)


def test_a_notification_leaves_once_it_was_delivered_and_no_other_does(db: Path) -> None:
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.executemany(
            "INSERT INTO notifications (type, data, status, next_attempt_at, created_at, finished_at)"
            " VALUES ('sync_failed', '{}', ?1, ?2, ?2, iif(?1 = 'pending', NULL, ?2))",
            [(status, to_text(clock.wall())) for status in ("pending", "delivered", "dead")],
        )
    prune(db, days=29)
    assert left(db, "notifications") == 3
    prune(db, days=31)
    with closing(sqlite3.connect(db)) as connection:
        told = connection.execute("SELECT status FROM notifications ORDER BY id").fetchall()
    assert told == [("pending",), ("dead",)]


def test_an_import_leaves_once_it_has_ended_and_none_that_is_under_way(shop: Shop) -> None:
    with closing(app.outbox(shop.settings)) as outbox:
        for _ in range(2):
            made, _ = outbox.imports.open([], shop.clock())
        outbox.imports.ended(made.id, "completed", 0, shop.clock())
    prune(shop.path, days=29)
    assert left(shop.path, "imports") == 2
    prune(shop.path, days=31)
    assert shop.rows("SELECT ended_at FROM imports") == [(None,)]


def left(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_a_dry_run_counts_what_a_sweep_removes(shop: Shop, tmp_path: Path) -> None:
    """Of everything one, and the same number by both."""
    shop.clock.ahead = -timedelta(days=500)
    shop.sent("created", id=1, email="mara@example.com")
    lost = shop.sent("updated", id=9, firstName="Nobody")["id"]
    with closing(app.outbox(shop.settings)) as outbox:
        outbox.drop([lost], "olga", shop.clock())
        made, _ = outbox.imports.open([], shop.clock())
        outbox.imports.ended(made.id, "completed", 0, shop.clock())
    with closing(sqlite3.connect(shop.path)) as connection, connection:
        connection.execute(
            "INSERT INTO notifications (type, data, status, next_attempt_at, created_at, finished_at)"
            " SELECT 'sync_failed', '{}', 'delivered', created_at, created_at, created_at FROM outbox LIMIT 1"
        )
    shop.clock.ahead = timedelta(0)
    counted = json.loads(run(shop, tmp_path, "prune", "--dry-run", "--json").output)
    assert counted == {**dict.fromkeys(counted, 1), "attempts": 0}
    removed = json.loads(run(shop, tmp_path, "prune", "--json").output)
    assert {what: removed[what] for what in counted} == counted


def test_nothing_is_locked_while_there_is_nothing_to_remove(db: Path) -> None:
    """Another writer holds the lock all the while."""
    with closing(sqlite3.connect(db, isolation_level=None)) as writer, closing(Pruning(db)) as pruning:
        writer.execute("BEGIN IMMEDIATE")  # or else: stayed locked for thirty seconds
        assert list(sweep(pruning, MONTH, clock.wall())) == []


def test_what_is_to_be_kept_for_ever_is(shop: Shop) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    prune(shop.path, Retention(None, None, None), days=3650)
    assert shop.rows("SELECT count(*) FROM outbox") == [(1,)]
    assert shop.rows("SELECT count(*) FROM attempts") == [(1,)]
    assert shop.rows("SELECT count(*) FROM stats") == [(1,)]


def test_attempts_and_counters_have_times_of_their_own(shop: Shop) -> None:
    for number in range(1, 30):
        shop.enqueue("created", id=number, email=f"c{number}@example.com")
    shop.drain()
    shop.enqueue("updated", id=9, firstName="Nobody")
    keeps = Retention(delivered=None, attempts=timedelta(days=3), counters=timedelta(days=5))
    prune(shop.path, keeps, days=2)
    assert shop.rows("SELECT count(*) FROM attempts") == [(29,)]
    prune(shop.path, keeps, days=4)
    assert shop.rows("SELECT count(*) FROM attempts") == [(0,)]
    assert shop.rows("SELECT count(*) FROM stats") == [(1,)]
    prune(shop.path, keeps, days=6)
    assert shop.rows("SELECT count(*) FROM stats") == [(0,)]
    assert shop.rows("SELECT count(*) FROM outbox") == [(30,)]
    shop.sent("created", id=99, email="late@example.com")
    prune(shop.path, keeps, days=9)
    assert shop.rows("SELECT count(*) FROM attempts") == [(0,)]


def test_the_depth_is_right_after_pruning(shop: Shop) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    shop.sent("updated", id=9, firstName="Nobody")
    shop.enqueue("created", id=2, email="tom@example.com")
    before = shop.status()
    prune(shop.path, days=31)
    with closing(sqlite3.connect(shop.path)) as connection:
        assert_depth_is_right(connection)
    after = shop.status()
    assert {name: after[name] for name in ("pending", "dead", "delivered")} == {
        name: before[name] for name in ("pending", "dead", "delivered")
    }


def test_an_idempotency_key_is_remembered_as_long_as_its_event(db: Path) -> None:
    def write() -> int:
        return outboxd.enqueue("customer_updated", {"id": 5}, idempotency_key="order-1", db=db)

    first = write()
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute(DELIVER)
    assert write() == first
    prune(db, days=31)
    assert write() > first


def test_the_file_and_its_log_shrink_again(db: Path) -> None:
    with closing(sqlite3.connect(db)) as connection:  # a reader keeps the log from starting anew
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM outbox").fetchone()
        fill(db, 4000, size=6000)
    full = db.stat().st_size
    prune(db, days=31)
    with closing(Pruning(db)) as pruning:
        assert pruning.cut_log(limit=0)
        assert db.with_name(db.name + "-wal").stat().st_size == 0
    assert full > 24_000_000
    assert db.stat().st_size < 2_000_000
    with closing(sqlite3.connect(db)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_pages_are_given_back_before_more_are_freed(db: Path) -> None:
    """However much goes: for each of them SQLite searches the list of all that are free."""
    fill(db, 8000)
    with closing(Pruning(db)) as pruning, database.reading(db) as connection:
        steps = sweep(pruning, MONTH, clock.wall() + timedelta(days=31))
        free = [connection.execute("PRAGMA freelist_count").fetchone()[0] for _ in steps]
    assert max(free) < SPARE + 400, "as many as one step frees"
    assert db.stat().st_size < 3_000_000


def test_a_reader_only_puts_the_cut_of_the_log_off(db: Path) -> None:
    fill(db, 10)
    with closing(sqlite3.connect(db)) as reader, closing(Pruning(db)) as pruning:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM outbox").fetchone()
        fill(db, 10)
        started = perf_counter()
        assert not pruning.cut_log(limit=0)
        assert perf_counter() - started < database.BUSY_TIMEOUT, "the reader was waited for"
        reader.rollback()
        assert pruning.cut_log(limit=0)


def test_a_file_that_gives_no_pages_back_is_not_asked_for_them_again_and_again(db: Path) -> None:
    """Such as one that somebody made anew from a dump, and so without auto_vacuum."""
    fill(db, 5000)
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
        connection.execute("PRAGMA journal_mode = WAL")
    with closing(Pruning(db)) as pruning:
        while pruning.events(MONTH, clock.wall() + timedelta(days=31)):
            pass
        assert pruning.shrink(spare=0) == 0


def test_a_step_takes_few_rows_and_stops_when_its_time_is_up(db: Path) -> None:
    fill(db, 1000)
    with closing(Pruning(db)) as pruning:
        steps = sweep(pruning, MONTH, clock.wall() + timedelta(days=31))
        counts = [step.number for step in steps if step.what == "events"]
    assert sum(counts) == 1000
    assert max(counts) <= 200
    fill(db, 60, size=250_000)
    taken = prune(db, days=31)
    assert taken > 3, f"15 MB in {taken} steps of {BUDGET} s"


def test_a_writer_gets_in_while_others_prune(db: Path) -> None:
    """Again and again; how long it waits is told by `python -m tests.soak`."""
    fill(db, 10_000, size=4000)
    written: list[int] = []
    with writing(db, written):
        prune(db, days=31)
        meanwhile = len(written)
    assert meanwhile > 5


@contextmanager
def writing(path: Path, written: list[int]) -> Iterator[None]:
    """A shop that writes meanwhile, and the ids of its events."""
    ended = Event()

    def write() -> None:
        with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
            while not ended.wait(0.003):
                done = connection.execute(
                    "INSERT INTO outbox (event, payload) VALUES ('customer_updated', '{}')"
                )
                written.append(done.lastrowid or 0)

    thread = Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_relay_with_nothing_to_do_prunes(shop: Shop) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    shop.later(days=31)
    shop.relay.step()
    shop.relay.step()
    assert shop.rows("SELECT count(*) FROM outbox") == [(0,)]


def test_the_command_says_what_would_go_and_removes_it(shop: Shop, tmp_path: Path) -> None:
    shop.clock.ahead = -timedelta(days=40)
    shop.sent("created", id=1, email="mara@example.com")
    shop.sent("updated", id=9, firstName="Nobody")
    shop.clock.ahead = timedelta(0)
    told = json.loads(run(shop, tmp_path, "prune", "--dry-run", "--json").output)
    assert told == dict.fromkeys(("attempts", "counters", "dropped", "notifications", "imports"), 0) | {
        "events": 1
    }
    assert len(shop.rows("SELECT id FROM outbox")) == 2
    result = run(shop, tmp_path, "prune")
    assert exit_code(result) == 0, result.output
    assert "1 delivered event, 0 dropped letters, " in result.output
    assert shop.rows("SELECT status FROM outbox") == [("dead",)]
    assert json.loads(run(shop, tmp_path, "prune", "--json").output)["events"] == 0


def test_what_others_write_after_the_log_was_removed_outlasts_a_sweep(db: Path) -> None:
    """Who closes the file last removes the log that lies there: it need not be the one that he knows."""
    fill(db, 1000)
    other = f"import sqlite3; sqlite3.connect({str(db)!r}, isolation_level=None).execute({SHOP!r})"
    with closing(Pruning(db)) as pruning:
        steps = sweep(pruning, MONTH, clock.wall() + timedelta(days=31))
        next(steps)
        db.with_name(f"{db.name}-shm").unlink()
        db.with_name(f"{db.name}-wal").unlink()
        subprocess.run([sys.executable, "-c", other], check=True)
        with pytest.raises(AdriftError, match="this program still has it open"):
            next(steps)
    prune(db, days=31)
    assert [payload for (payload,) in rows(db, "SELECT payload FROM outbox")] == ["late"]


def test_a_cursor_passes_over_events_that_ended_at_one_moment(db: Path) -> None:
    fill(db, 500)
    with closing(sqlite3.connect(db)) as connection, connection:
        moment = to_text(clock.wall())
        connection.execute("UPDATE outbox SET finished_at = ?", (moment,))
        connection.execute(
            "INSERT INTO attempts (event_id, number, started_at, finished_at, verdict)"
            " SELECT id, 1, finished_at, finished_at, 'delivered' FROM outbox"
        )
    prune(db, Retention(None, timedelta(hours=1), None), hours=2)
    with closing(sqlite3.connect(db)) as connection:
        assert connection.execute("SELECT count(*) FROM attempts").fetchone() == (0,)
