"""The intake: a program writes an event into the outbox, by `outboxd.enqueue` or by `outboxd-intake`.

Standard library only, and little of it: a shop may start it for every event. What can be seen to be
unusable without knowing the shop is refused here; everything else is stored as it came. `lines` are how a
script says its events, and `command` is the script's command.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from time import monotonic, sleep

from outboxd import database, payload, pool, topics
from outboxd.clock import from_text, to_text, wall
from outboxd.errors import AdriftError, EventError, NoOutboxError
from outboxd.locks import turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike
    from typing import Any

    Row = tuple[str, str, str | None, str | None, str | None]
    """One event, checked: event, payload, source, occurred_at, idempotency_key."""

_as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

INSERT = """
INSERT INTO outbox (event, payload, source, occurred_at, idempotency_key, created_at, next_attempt_at)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""


def enqueue(
    event: str,
    data: Mapping[str, Any],
    *,
    source: str | None = None,
    occurred_at: datetime | None = None,
    idempotency_key: str | None = None,
    db: str | PathLike[str] | None = None,
    connection: Any = None,
    now: Callable[[], datetime] = wall,
) -> int:
    """Write one event to the outbox and return its id.

    `data` is the customer as the shop has it, or the envelope {event, timestamp, data}. With `connection`
    (a sqlite3 connection, or a SQLAlchemy connection or session, to the outbox's database) the event joins
    the caller's transaction: it is committed and rolled back with it. Otherwise it is committed here, to
    `db`, $OUTBOXD_DATABASE or the default path. An `idempotency_key` that is known already writes nothing
    and returns the id of the first event. Not for handlers of signals: what they interrupt may be this.
    Raises EventError, NoOutboxError, RightsError, DatabaseError.
    """
    row = checked(event, data, source=source, occurred_at=occurred_at, idempotency_key=idempotency_key)
    if connection is None:
        return write(database_path(db), [row], now)[0]
    return _insert(_executor(connection), row, to_text(now()))


def database_path(given: str | PathLike[str] | None) -> str:
    """The outbox to write to: as given, by $OUTBOXD_DATABASE, or the default. Raises NoOutboxError."""
    path = os.fspath(given or os.environ.get("OUTBOXD_DATABASE") or database.DEFAULT_PATH)
    try:
        if "\0" not in path and os.fsencode(path):
            return path
    except UnicodeEncodeError:
        pass
    raise NoOutboxError("the outbox is named by what is no path", hint="name a file on this host")


def checked(
    event: object,
    data: object,
    *,
    source: object = None,
    occurred_at: object = None,
    idempotency_key: object = None,
) -> Row:
    """An event that is fit to be stored. Raises EventError, whose text holds nothing of the payload."""
    if not isinstance(event, str) or event not in topics.KNOWN:
        raise EventError("no such event", hint=f"the events are: {', '.join(topics.EVENTS)}")
    if not isinstance(data, dict) and isinstance(data, Mapping):  # a dict is one, but to ask that is slow
        data = dict(data)
    payload.check(data)
    stated = data.get("event") if isinstance(data, dict) and "data" in data else None
    if isinstance(stated, str) and stated in topics.EVENTS and event in topics.EVENTS and stated != event:
        raise EventError(f"the event is {event}, but its payload says {stated}", hint="make them agree")
    try:
        text = _as_json(data)
        size = len(text.encode())
    except UnicodeEncodeError:
        raise EventError("the payload holds half a character (a lone surrogate)") from None
    except (TypeError, ValueError, RecursionError):
        raise EventError(
            "the payload holds something that JSON cannot say", hint="send plain JSON values"
        ) from None
    if size > payload.LIMIT:
        raise EventError(
            f"the payload is larger than {payload.LIMIT // 1024} KiB", hint="send the customer alone"
        )
    for name, value in (("source", source), ("idempotency_key", idempotency_key)):
        if value is not None and not (
            isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable()
        ):
            raise EventError(f"{name} must be a text of 1 to 255 characters")
    if isinstance(source, str) and not topics.is_source(source):
        raise EventError(
            "no such source",
            hint=f"the sources are: {', '.join(topics.PRESETS)}; or of one shop: shopify:second-shop",
        )
    return event, text, _text(source), _moment(occurred_at), _text(idempotency_key)


def write(path: str | PathLike[str], rows: Sequence[Row], now: Callable[[], datetime] = wall) -> list[int]:
    """Write all of `rows` in one transaction, in turn with other producers; their ids."""
    give_up = monotonic() + pool.PATIENCE
    while True:
        try:
            with database.explained(path), pool.connection(path) as pooled, turn(path):
                pooled.begin()
                moment = to_text(now())
                ids = [_insert(pooled.connection.execute, row, moment) for row in rows]
                pooled.connection.execute("COMMIT")
                return ids
        except AdriftError:  # what was open is closed now, and others in here may have it still
            if monotonic() > give_up:
                raise
            sleep(pool.AGAIN)


def _insert(execute: Callable[[str, Any], Any], row: Row, moment: str) -> int:
    result = execute(INSERT, (*row, moment, moment))
    if result.rowcount != 0:
        return int(result.lastrowid)
    first = execute("SELECT id FROM outbox WHERE idempotency_key = ?", (row[4],)).fetchone()
    return int(first[0])


def _executor(connection: Any) -> Callable[[str, Any], Any]:
    """How to execute on the caller's connection; SQLAlchemy is known by its methods, not imported."""
    if isinstance(connection, sqlite3.Connection):
        cursor = connection.cursor()
        cursor.row_factory = None  # rows are tuples, whatever the caller wants its own to be
        return cursor.execute
    if callable(getattr(connection, "connection", None)):  # a session
        connection = connection.connection()
    if hasattr(connection, "exec_driver_sql"):
        return connection.exec_driver_sql  # type: ignore[no-any-return]
    raise TypeError("connection must be a sqlite3 connection, or a SQLAlchemy connection or session")


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _moment(value: object) -> str | None:
    if value is None:
        return None
    try:
        moment = value if isinstance(value, datetime) else from_text(str(value))
        if moment.tzinfo is None:
            raise ValueError
        return to_text(moment)
    except (ValueError, OverflowError):
        raise EventError(
            "occurred_at must be a time with its time zone", hint="such as 2026-11-23T16:12:51Z"
        ) from None
