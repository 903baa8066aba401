"""The outbox table as any program meets it: complete by its defaults, and proof against harm."""

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboxd import database, report
from outboxd.clock import from_text

INSERT = "INSERT INTO outbox (event, payload) VALUES ('customer_created', '{\"id\": 5}')"


@pytest.fixture
def client(db: Path) -> Iterator[sqlite3.Connection]:
    """A shop's own connection, as the driver makes it: nothing of ours in it."""
    with closing(sqlite3.connect(db, isolation_level=None)) as connection:
        yield connection


# What a plain INSERT comes to


def by_python(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(INSERT)
        connection.commit()


def by_command_line(path: Path) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("no sqlite3 command")
    subprocess.run(["sqlite3", str(path), INSERT], check=True, timeout=30)


def by_node(path: Path) -> None:
    script = f"new (require('node:sqlite').DatabaseSync)({json.dumps(str(path))}).exec({json.dumps(INSERT)})"
    probe = ["node", "-e", "require('node:sqlite')"]
    if shutil.which("node") is None or subprocess.run(probe, capture_output=True, timeout=30).returncode:
        pytest.skip("no Node with SQLite")
    subprocess.run(["node", "-e", script], check=True, timeout=30)


@pytest.mark.parametrize("insert", [by_python, by_command_line, by_node])
def test_a_plain_insert_of_any_client_is_complete(
    db: Path, client: sqlite3.Connection, insert: Callable[[Path], None]
) -> None:
    insert(db)
    client.row_factory = sqlite3.Row
    row = dict(client.execute("SELECT * FROM outbox").fetchone())
    for moment in (row.pop("created_at"), row.pop("next_attempt_at")):
        assert timedelta(0) <= datetime.now(UTC) - from_text(moment) < timedelta(minutes=1)
    set_ones = {name: value for name, value in row.items() if value is not None}
    assert set_ones == {
        "id": 1,
        "event": "customer_created",
        "payload": '{"id": 5}',
        "status": "pending",
        "attempts": 0,
        "is_head": 0,
        "is_backfill": 0,
    }


# The guards


@pytest.mark.parametrize(
    "column",
    [
        "id = 7",
        "status = 'delivered'",
        "status = 'dead'",
        "attempts = 3",
        "is_head = 1",
        "customer_key = 'custom:5'",
        "finished_at = '2026-01-01T00:00:00.000Z'",
        "claimed_at = '2026-01-01T00:00:00.000Z'",
        "last_error = 'none'",
        "dropped_at = '2026-01-01T00:00:00.000Z'",
    ],
)
@pytest.mark.parametrize("verb", ["INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE", "REPLACE"])
def test_nobody_writes_the_columns_that_outboxd_keeps(
    client: sqlite3.Connection, verb: str, column: str
) -> None:
    name, _, value = column.partition(" = ")
    for _ in range(8):
        client.execute(INSERT)
    with pytest.raises(sqlite3.IntegrityError, match="outboxd keeps the other columns itself"):
        client.execute(f"{verb} INTO outbox (event, payload, {name}) VALUES ('e', '{{}}', {value})")
    assert client.execute("SELECT count(*) FROM outbox WHERE event = 'customer_created'").fetchone() == (8,)


@pytest.mark.parametrize(
    "value",
    [
        "NULL",
        "'2026-01-01'",
        "'2026-01-01T00:00:00Z'",
        "'2026-02-30T00:00:00.000Z'",
        "'2026-01-01T29:00:00.000Z'",
        "'2026-01-01T00:00:61.000Z'",
        "'0000-01-01T00:00:00.000Z'",
        "'now'",
        "1767225600",
        "2461041.5",
        "CAST('2026-01-01T00:00:00.000Z' AS BLOB)",
    ],
)
@pytest.mark.parametrize("column", ["created_at", "next_attempt_at"])
@pytest.mark.parametrize("verb", ["INSERT", "INSERT OR IGNORE", "REPLACE"])
def test_what_is_no_time_never_gets_in(
    client: sqlite3.Connection, verb: str, column: str, value: str
) -> None:
    """One row whose time cannot be read would stand in every other event's way."""
    with pytest.raises(sqlite3.IntegrityError):
        client.execute(f"{verb} INTO outbox (event, payload, {column}) VALUES ('e', '{{}}', {value})")
    assert_depth_is_right(client)


@pytest.mark.parametrize("moment", ["2200-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"])
@pytest.mark.parametrize("column", ["created_at", "next_attempt_at"])
@pytest.mark.parametrize("verb", ["INSERT", "INSERT OR IGNORE", "REPLACE"])
def test_an_event_of_a_time_far_ahead_never_gets_in(
    client: sqlite3.Connection, verb: str, column: str, moment: str
) -> None:
    """It would wait for its time in a window, and nothing newer could win over it."""
    with pytest.raises(sqlite3.IntegrityError, match="a lifetime ahead"):
        client.execute(f"{verb} INTO outbox (event, payload, {column}) VALUES ('e', '{{}}', ?)", (moment,))
    assert_depth_is_right(client)


def test_a_time_of_the_writer_is_kept(client: sqlite3.Connection) -> None:
    for second in range(60_000):
        if second % 997 == 0:
            moment = f"2024-02-29T23:59:{second / 1000:06.3f}Z"
            client.execute("INSERT INTO outbox (event, payload, created_at) VALUES ('e', '{}', ?)", (moment,))
            last = client.execute("SELECT created_at FROM outbox ORDER BY id DESC LIMIT 1").fetchone()
            assert last == (moment,)


@pytest.mark.parametrize(
    "change",
    [
        "payload = '{\"id\": 6}'",
        "payload = '{}'",
        "event = 'e'",
        "source = 's'",
        "id = 9",
        "created_at = 'x'",
    ],
)
@pytest.mark.parametrize("verb", ["UPDATE", "UPDATE OR REPLACE", "UPDATE OR IGNORE"])
def test_an_event_is_not_changed_once_it_is_written(
    client: sqlite3.Connection, verb: str, change: str
) -> None:
    client.execute(INSERT)
    before = client.execute("SELECT * FROM outbox").fetchall()
    with pytest.raises(sqlite3.IntegrityError, match="not changed once it is written"):
        client.execute(f"{verb} outbox SET {change}")
    assert client.execute("SELECT * FROM outbox").fetchall() == before


def test_a_pending_event_is_not_deleted(client: sqlite3.Connection) -> None:
    client.execute(INSERT)
    for statement in ("DELETE FROM outbox", "DELETE FROM outbox WHERE id = 1"):
        with pytest.raises(sqlite3.IntegrityError, match="it would be lost"):
            client.execute(statement)
    client.execute("UPDATE outbox SET status = 'dead', finished_at = '2026-01-01T00:00:00.000Z'")
    client.execute("DELETE FROM outbox")
    assert_depth_is_right(client)


@pytest.mark.parametrize("verb", ["INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE", "REPLACE"])
def test_a_repeated_key_is_accepted_and_changes_nothing(client: sqlite3.Connection, verb: str) -> None:
    client.execute("INSERT INTO outbox (event, payload, idempotency_key) VALUES ('first', '{}', 'k')")
    client.execute(
        f"{verb} INTO outbox (event, payload, idempotency_key) VALUES"
        " ('again', '{}', 'k'), ('second', '{}', 'l'), ('again', '{}', 'l'), ('third', '{}', NULL)"
    )
    events = client.execute("SELECT id, event, idempotency_key FROM outbox ORDER BY id").fetchall()
    assert events == [(1, "first", "k"), (2, "second", "l"), (3, "third", None)]
    assert_depth_is_right(client)


def test_the_database_forbids_a_customer_two_heads(client: sqlite3.Connection) -> None:
    client.execute(INSERT)
    client.execute(INSERT)
    client.execute("UPDATE outbox SET customer_key = 'custom:5', is_head = 1 WHERE id = 1")
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        client.execute("UPDATE outbox SET customer_key = 'custom:5', is_head = 1 WHERE id = 2")


# The depth


def assert_depth_is_right(connection: sqlite3.Connection) -> None:
    counted = dict(
        connection.execute(
            "SELECT status, count(*) FROM outbox WHERE dropped_at IS NULL GROUP BY status"
        ).fetchall()
    )
    pending, _, dead = connection.execute(report.DEPTH).fetchone()
    assert (pending, dead) == (counted.get("pending", 0), counted.get("dead", 0))


FINISHED = "finished_at = '2026-01-01T00:00:00.000Z', is_head = 0"
TARGET = "WHERE id = (SELECT id FROM outbox ORDER BY id LIMIT 1 OFFSET :n)"
OPERATIONS = (
    INSERT,
    INSERT + ", ('e', '{}')",
    INSERT + ", ('e', NULL)",
    "INSERT OR IGNORE INTO outbox (event, payload) VALUES ('e', NULL), ('e', '{}')",
    "INSERT OR IGNORE INTO outbox (event, payload, idempotency_key) VALUES ('e', '{}', 'k' || (:n % 3))",
    "INSERT OR REPLACE INTO outbox (event, payload, idempotency_key) VALUES ('e', '{}', 'k' || (:n % 3))",
    "INSERT OR IGNORE INTO outbox (event, payload, created_at) VALUES ('e', '{}', 'then')",
    "INSERT OR REPLACE INTO outbox (id, event, payload) VALUES (:n, 'e', '{}')",
    f"UPDATE outbox SET status = 'delivered', {FINISHED} {TARGET}",
    f"UPDATE outbox SET status = 'dead', {FINISHED} {TARGET}",
    f"UPDATE outbox SET status = 'pending', finished_at = NULL {TARGET}",
    f"UPDATE outbox SET status = 'pending', finished_at = NULL, dropped_at = NULL {TARGET}",
    f"UPDATE outbox SET dropped_at = '2026-01-01T00:00:00.000Z' {TARGET}",
    f"UPDATE outbox SET status = 'dead', {FINISHED}, dropped_at = '2026-01-01T00:00:00.000Z' {TARGET}",
    f"UPDATE outbox SET dropped_at = NULL {TARGET}",
    f"DELETE FROM outbox {TARGET}",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
)


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """The schema to be copied into memory: hundreds of copies a second, unlike files."""
    path = tmp_path_factory.mktemp("schema") / "outbox.db"
    database.migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        yield connection


@settings(max_examples=100)
@given(operations=st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 9)), max_size=40))
def test_the_depth_equals_a_count_whatever_programs_do(
    migrated: sqlite3.Connection, operations: list[tuple[str, int]]
) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrated.backup(connection)
        for statement, n in operations:
            try:
                connection.execute(statement, {"n": n})
            except sqlite3.Error:
                continue  # refused: then it must have changed nothing
            finally:
                assert_depth_is_right(connection)
