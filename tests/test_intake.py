"""`outboxd.enqueue`: an event is written once, in a transaction of its own or in the caller's."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.orm import Session

import outboxd
from outboxd import EventError, intake
from outboxd.errors import DatabaseError, NoOutboxError
from outboxd.payload import LIMIT

JANE = {"id": 5, "email": "jane@example.com"}
ENVELOPE = {
    "event": "customer_updated",
    "timestamp": "2026-01-15T14:45:00Z",
    "data": {"id": "cust_5", "changes": {"phone": {"old": None, "new": "+12025550123"}}},
}


def rows(path: Path, columns: str = "id, event, payload") -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT {columns} FROM outbox ORDER BY id").fetchall()


def test_an_event_is_stored_as_the_shop_wrote_it(db: Path) -> None:
    first = outboxd.enqueue("customer_created", {"id": 5, "firstName": "Zoë"}, db=db)
    second = outboxd.enqueue("customer_updated", ENVELOPE, db=str(db))
    (stored, enveloped) = rows(db)
    assert (stored, first) == ((1, "customer_created", '{"id":5,"firstName":"Zoë"}'), 1)
    assert (enveloped[:2], second) == ((2, "customer_updated"), 2)
    assert json.loads(enveloped[2]) == ENVELOPE


@pytest.mark.parametrize(
    "data",
    [
        JANE,
        ENVELOPE,
        {"customer_id": 5, "first_name": "Jane"},
        {"customerId": "5"},
        {"customer": {"email_address": "jane@example.com"}},
        {"event": {"email": "jane@example.com"}},
    ],
    ids=["bare", "envelope", "snake", "camel", "wrapped", "wrapped-in-event"],
)
def test_every_shape_that_names_somebody_is_taken(db: Path, data: dict[str, Any]) -> None:
    assert outboxd.enqueue("customer_updated", data, db=db) == 1


def test_a_moment_is_stored_in_utc(db: Path) -> None:
    when = datetime(2026, 3, 1, 1, 0, 0, 999_900, tzinfo=timezone(timedelta(hours=2)))
    outboxd.enqueue("customer_created", JANE, db=db, occurred_at=when, source="shopify:second")
    assert rows(db, "occurred_at, source") == [("2026-02-28T23:00:00.999Z", "shopify:second")]


def test_the_clock_of_the_caller_dates_the_event(db: Path) -> None:
    outboxd.intake.enqueue(
        "customer_created", JANE, db=db, now=lambda: datetime(2026, 1, 2, 3, 4, 5, 6000, UTC)
    )
    assert rows(db, "created_at, next_attempt_at") == [("2026-01-02T03:04:05.006Z",) * 2]


def test_the_environment_names_the_outbox(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOXD_DATABASE", str(db))
    outboxd.enqueue("customer_created", JANE)
    assert len(rows(db)) == 1


def test_a_missing_outbox_is_told_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(NoOutboxError) as caught:
        outboxd.enqueue("customer_created", JANE, db=tmp_path / "none.db")
    assert "outboxd migrate" in (caught.value.hint or "")
    assert not (tmp_path / "none.db").exists()


def test_a_file_without_an_outbox_is_told(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER)")
    with pytest.raises(DatabaseError, match="holds no outbox"):
        outboxd.enqueue("customer_created", JANE, db=path)


# Repeats


def test_a_repeated_key_writes_nothing_and_tells_the_first_id(db: Path) -> None:
    first = outboxd.enqueue("customer_created", JANE, db=db, idempotency_key="order-1")
    outboxd.enqueue("customer_created", JANE, db=db)
    again = outboxd.enqueue("customer_updated", {"id": 6}, db=db, idempotency_key="order-1")
    assert first == again == 1
    assert [row[1] for row in rows(db)] == ["customer_created"] * 2


# In the caller's transaction


@pytest.fixture
def engine(db: Path) -> Iterator[Engine]:
    made = create_engine(f"sqlite:///{db}")
    yield made
    made.dispose()


def purchase(connection: Any, *, commit: bool) -> int:
    """A shop's transaction: its own row and the event, kept or given up together."""
    execute = connection.execute if isinstance(connection, sqlite3.Connection) else None
    if execute is not None:
        execute("INSERT INTO orders VALUES (1)")
    else:
        driver = connection if isinstance(connection, Connection) else connection.connection()
        driver.exec_driver_sql("INSERT INTO orders VALUES (1)")
    written = outboxd.enqueue("customer_created", JANE, connection=connection, idempotency_key="once")
    assert outboxd.enqueue("customer_created", JANE, connection=connection, idempotency_key="once") == written
    (connection.commit if commit else connection.rollback)()
    return written


@pytest.mark.parametrize("kind", ["sqlite3", "sqlite3 with dicts", "connection", "session"])
@pytest.mark.parametrize("commit", [True, False], ids=["committed", "rolled back"])
def test_the_event_shares_the_fate_of_the_callers_transaction(
    db: Path, engine: Engine, kind: str, commit: bool
) -> None:
    """Nothing of it is to be seen before, all of it after a commit, none of it after a rollback."""
    with closing(sqlite3.connect(db)) as shop:
        shop.execute("CREATE TABLE orders (id INTEGER)")
        shop.commit()
        if kind.startswith("sqlite3"):
            if kind.endswith("dicts"):
                shop.row_factory = lambda cursor, row: {
                    column[0]: value for column, value in zip(cursor.description, row, strict=True)
                }
            assert purchase(shop, commit=commit) == 1
        elif kind == "connection":
            with engine.connect() as connection:
                assert purchase(connection, commit=commit) == 1
        else:
            with Session(engine) as session:
                assert purchase(session, commit=commit) == 1
    with closing(sqlite3.connect(db)) as reader:
        assert reader.execute("SELECT count(*) FROM orders").fetchone() == (int(commit),)
    assert len(rows(db)) == int(commit)


def test_an_open_transaction_shows_nobody_the_event(db: Path) -> None:
    with closing(sqlite3.connect(db)) as shop:
        outboxd.enqueue("customer_created", JANE, connection=shop)
        assert rows(db) == []
        shop.commit()
    assert len(rows(db)) == 1


def test_something_else_than_a_connection_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="sqlite3 connection"):
        outboxd.enqueue("customer_created", JANE, connection=object())


# What is refused

SECRET = "s3cr3t-of-jane"
LOOP: dict[str, Any] = {"id": 1}
LOOP["self"] = LOOP


class Array:
    """As of numpy: it cannot be said whether one is equal to something."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value of an array is ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("event", "data", "told", "hint"),
    [
        ("customer_vanished", JANE, "no such event", "customer_deleted"),
        (None, JANE, "no such event", "customer_created"),
        ("customer_created", [JANE], "not a JSON object", "email"),
        ("customer_created", SECRET, "not a JSON object", "email"),
        ("customer_created", {"firstName": SECRET}, "neither a customer id nor an address", "email"),
        ("customer_created", {"id": None, "email": ""}, "neither a customer id nor an address", "id"),
        ("customer_created", {"id": 1, "note": SECRET * 20_000}, f"larger than {LIMIT // 1024} KiB", "alone"),
        ("customer_created", {"id": 1, "at": {SECRET}}, "JSON cannot say", "plain"),
        ("customer_created", {"sizes": Array(), "id": 1}, "JSON cannot say", "plain"),
        ("customer_created", {"id": 1, SECRET: float("nan")}, "JSON cannot say", "plain"),
        ("customer_created", LOOP, "JSON cannot say", "plain"),
        ("customer_created", {"id": 1, SECRET: "\ud800"}, "half a character", None),
        ("customer_created", ENVELOPE, "its payload says customer_updated", "agree"),
    ],
)
def test_what_can_be_seen_to_be_unusable_is_refused(
    db: Path, event: Any, data: Any, told: str, hint: str | None
) -> None:
    with pytest.raises(EventError, match=told) as caught:
        outboxd.enqueue(event, data, db=db)
    assert (hint or "") in (caught.value.hint or "")
    assert SECRET not in f"{caught.value} {caught.value.hint}"
    assert rows(db) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"occurred_at": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001 - the point of it
        ({"occurred_at": "soon"}, "time zone"),
        ({"source": ""}, "source must be"),
        ({"source": 5}, "source must be"),
        ({"source": "shoppify"}, "no such source"),
        ({"source": "shopify:the second"}, "no such source"),
        ({"idempotency_key": "k" * 256}, "idempotency_key must be"),
        ({"idempotency_key": "a\nb"}, "idempotency_key must be"),
    ],
)
def test_wrong_particulars_are_refused(db: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(EventError, match=told):
        outboxd.enqueue("customer_created", JANE, db=db, **options)
    assert rows(db) == []


MARK = "¤"
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5).map(lambda t: MARK + t),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "email", "data", "event"]) | st.text(max_size=3), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["customer_created", MARK]), ANYTHING, st.none() | ANYTHING, st.none() | ANYTHING)
def test_whatever_is_offered_is_taken_whole_or_refused_without_a_word_of_it(
    event: str, data: Any, source: Any, moment: Any
) -> None:
    refusal = ""
    try:
        row = intake.checked(event, data, source=source, occurred_at=moment)
        assert json.loads(row[1]) == data
    except EventError as error:
        refusal = f"{error} {error.hint}"
    assert MARK not in refusal


# Lightness


def test_a_name_of_the_package_is_looked_up_once() -> None:
    """Then it stands in the package: the way through its home costs a fifteenth of an event's commit."""
    assert outboxd.enqueue is intake.enqueue
    assert vars(outboxd)["enqueue"] is intake.enqueue


@pytest.mark.parametrize("module", ["outboxd", "outboxd.intake.command"])
def test_the_intake_loads_the_standard_library_alone(module: str) -> None:
    """And of that not what costs a shop more than its event: typing, pathlib, urllib, logging."""
    code = f"import {module}, sys; print('\\n'.join(sys.modules))"
    environment: Mapping[str, str] = {"PYTHONNOUSERSITE": "1"}
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    loaded = {name.partition(".")[0] for name in set(told.stdout.split()) - set(bare.stdout.split())}
    assert loaded - sys.stdlib_module_names == {"outboxd"}
    assert not loaded & {"typing", "pathlib", "urllib", "logging", "dataclasses", "asyncio"}


@pytest.mark.parametrize("path", ["\ud800.db", "a\0.db"])
def test_what_is_no_path_holds_no_outbox(path: str) -> None:
    with pytest.raises(NoOutboxError, match="is no path"):
        outboxd.enqueue("customer_created", {"id": 1}, db=path)
