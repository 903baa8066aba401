"""Rows of the outbox table as events, and what is to be written, many rows at once."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from sqlite3 import Connection
from typing import Any

from outboxd.clock import from_text
from outboxd.database import decoded
from outboxd.event import Event

EVENT = """
id, event, substr(payload, 1, 262145), source, occurred_at, created_at, attempts, is_backfill,
last_error IS NOT NULL
"""
"""The columns of an event, in the order `event_of` takes them."""

Write = tuple[str, dict[str, Any]]
"""A statement and its values, made before the transaction begins: others wait for it to end."""


def event_of(row: Sequence[Any], default_source: str, *, is_claimed: bool = False, claims: int = 0) -> Event:
    """An event as it stands in the table, whatever a shop's client wrote there.

    `is_claimed` says that the last of its attempts is the one that is under way; `claims` are counted as
    attempts that the row does not know of yet.
    """
    id_, name, payload, source, occurred_at, created_at, attempts, is_backfill, has_failed = row
    return Event(
        id=id_,
        event=str(name),
        payload=decoded(payload) if isinstance(payload, bytes) else str(payload),
        source=str(source or default_source),
        occurred_at=_moment(occurred_at),
        created_at=from_text(created_at),
        attempts=attempts + claims,
        is_backfill=bool(is_backfill),
        was_tried=bool(has_failed) or attempts - is_claimed > 0,
    )


def table(*columns: str) -> str:
    """What `at_once` hands in, as a table `told` of these columns, for a FROM clause."""
    fields = ", ".join(f"json_extract(value, '$.{column}') AS {column}" for column in columns)
    return f"(SELECT {fields} FROM json_each(:rows)) AS told"


def at_once(sql: str, rows: Sequence[Mapping[str, Any]], **values: Any) -> list[Write]:
    """`sql` once for all of `rows`, which it reads from a `table`; nothing if there are none.

    Python lets its other threads go on at each row of `many`, and has to wait for them before the next one:
    for that long the database would be locked. SQLite's JSON ends a text at NUL; none that gets here has one.
    """
    return [(sql, {"rows": json.dumps(rows), **values})] if rows else []


def execute(connection: Connection, writes: Iterable[Write]) -> None:
    """Execute them in their order."""
    for sql, values in writes:
        connection.execute(sql, values)


def many(connection: Connection, sql: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Execute `sql` once for each of `rows`."""
    connection.executemany(sql, rows)


def insert(connection: Connection, sql: str, values: Mapping[str, Any]) -> int:
    """Execute `sql`, which inserts one row; its id."""
    made = connection.execute(sql, values).lastrowid
    if made is None:
        raise TypeError(f"not an INSERT: {sql}")
    return made


def _moment(text: Any) -> datetime | None:
    """A time as shops write it in SQL; SQLite's own `datetime('now')` has no offset and is UTC."""
    if text is None:
        return None
    for spelling in (str(text), f"{text}+00:00"):
        try:
            return from_text(spelling)
        except (ValueError, OverflowError):
            continue
    return None
