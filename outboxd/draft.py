"""Draft: a throw-away copy of what the outbox knows of some events and their customers.

The very code that admits, claims and folds then runs on the copy, and nothing of that reaches the outbox,
which is only read. In the draft every event is pending and due.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from outboxd import database
from outboxd.admit import admission
from outboxd.clock import to_text
from outboxd.errors import NoOutboxError
from outboxd.event import Event, Others
from outboxd.keys import address_key
from outboxd.outbox import Admission, Outbox, addresses, customers
from outboxd.outbox.rows import EVENT, event_of
from outboxd.sources import Options

FRESH = 2000
"""New events that are read to find those of the same customers: nobody has said yet whose they are."""

TABLES = ("outbox", "attempts", "contacts", "addresses", "state", "stats", "totals", "import_rows")

SCHEMA = """
SELECT sql FROM sqlite_master
WHERE sql IS NOT NULL AND type IN ('table', 'index') AND tbl_name IN (SELECT value FROM json_each(:tables))
ORDER BY type DESC
"""

EVENTS = f"SELECT {EVENT}, customer_key FROM outbox WHERE id = :id"  # noqa: S608 - of constants

FRESH_EVENTS = f"""
SELECT {EVENT} FROM outbox
WHERE status = 'pending' AND customer_key IS NULL ORDER BY is_backfill, id LIMIT {FRESH}
"""  # noqa: S608 - of constants

CONTACTS = "SELECT * FROM contacts WHERE customer_key IN (SELECT value FROM json_each(:keys))"

SHARERS = "SELECT * FROM contacts WHERE synced_email = :email"

ADDRESSES = """
SELECT addresses.* FROM json_each(:wanted) AS wanted
JOIN addresses ON address_key = json_extract(wanted.value, '$[1]')
"""

PENDING = """
SELECT * FROM outbox WHERE status = 'pending' AND customer_key IN (SELECT value FROM json_each(:keys))
"""

BY_ID = "SELECT * FROM outbox WHERE id IN (SELECT value FROM json_each(:ids))"

LAST_ID = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0)"

REPEATED = "SELECT id FROM outbox WHERE idempotency_key = :key"

WRITE = """
INSERT INTO outbox (id, event, payload, source, occurred_at, idempotency_key, created_at, next_attempt_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""

# What a delivered event was warned of is no failed attempt, whose end would be in doubt.
ALIVE = """
UPDATE outbox SET
    attempts = CASE status WHEN 'pending' THEN attempts ELSE 0 END,
    last_error = CASE status WHEN 'delivered' THEN NULL ELSE last_error END,
    status = 'pending', finished_at = NULL, dropped_at = NULL, claimed_at = NULL, is_head = 0,
    next_attempt_at = :now
"""

HEADS = """
UPDATE outbox SET is_head = 1
WHERE id IN (SELECT min(id) FROM outbox WHERE customer_key IS NOT NULL GROUP BY customer_key)
"""

Row = tuple[Any, ...]


@contextmanager
def of_event(path: Path, event_id: int, options: Options, *, source: str, now: datetime) -> Iterator[Outbox]:
    """A draft of the outbox at `path` with one of its events, finished or not, and what belongs to that.

    `source` is whose events those without one are. Raises NoOutboxError if there is no such event.
    """
    with database.reading(path) as shop:
        row = shop.execute(EVENTS, {"id": event_id}).fetchone()
        if row is None:
            raise NoOutboxError(f"there is no event {event_id}", hint="see: outboxd events")
        key = [row[-1]] if row[-1] is not None else []
        copy = _Copy(shop, [admission(event_of(row[:-1], source), options)], key, options, source)
        with _drafted(copy, [event_id], [], now) as outbox:
            yield outbox


@contextmanager
def of_new(
    path: Path, written: Sequence[Row], options: Options, *, source: str, now: datetime
) -> Iterator[tuple[Outbox, list[int]]]:
    """A draft in which `written` (rows of the intake) were written to the outbox at `path`; and their ids."""
    with database.reading(path) as shop:
        last = int(shop.execute(LAST_ID).fetchone()[0])
        at = to_text(now)
        rows = [(last + number, *row, at, at) for number, row in enumerate(written, start=1)]
        admissions = [admission(_event(row, source), options) for row in rows]
        with _drafted(_Copy(shop, admissions, [], options, source), [], rows, now) as outbox:
            yield outbox, [row[0] for row in rows]


def repeated(path: Path, keys: Sequence[str | None]) -> list[int | None]:
    """The event that was written under each of these idempotency keys before; None where there is none."""
    with database.reading(path) as shop:
        found = [shop.execute(REPEATED, {"key": key}).fetchone() for key in keys]
    return [row and int(row[0]) for row in found]


class _Copy:
    """What the outbox knows of the customers of some events: by their keys, ids and addresses."""

    def __init__(
        self,
        shop: sqlite3.Connection,
        admissions: Sequence[Admission],
        keys: Sequence[str],
        options: Options,
        source: str,
    ) -> None:
        self.shop = shop
        self.source = source
        known = shop.execute(CONTACTS, {"keys": json.dumps(keys)})
        names = [column[0] for column in known.description]
        contacts = [dict(zip(names, row, strict=True)) for row in known]
        ids = {(each.event.source, each.customer_id) for each in admissions if each.customer_id}
        ids |= {(each["source"], each["customer_id"]) for each in contacts if each["customer_id"]}
        wanted = {(each.event.source, address) for each in admissions for address in each.address_keys}
        for each in contacts:
            told = (each["email"], each["synced_email"])
            wanted |= {(each["source"], address_key(email)) for email in told if email}
        self.fresh = [
            event.id
            for event in (event_of(row, source) for row in shop.execute(FRESH_EVENTS).fetchall())
            if _is_of(admission(event, options), ids, wanted)
        ]
        self._wanted = {"wanted": json.dumps(sorted(wanted))}
        found = set(keys)
        found |= {
            row[0] for row in shop.execute(customers.CUSTOMERS_BY_ID, {"wanted": json.dumps(sorted(ids))})
        }
        found |= {row[2] for row in shop.execute(addresses.CUSTOMERS_BY_ADDRESS, self._wanted)}
        self._keys = {"keys": json.dumps(sorted(found))}

    def into(self, draft: sqlite3.Connection, event_ids: Iterable[int]) -> None:
        """Write it into an empty draft, with the events of these ids."""
        for (sql,) in self.shop.execute(SCHEMA, {"tables": json.dumps(TABLES)}):
            draft.execute(sql)
        ids = json.dumps([*event_ids, *self.fresh])
        self._put(draft, "outbox", BY_ID, {"ids": ids})
        self._put(draft, "outbox", PENDING, self._keys)
        self._put(draft, "contacts", CONTACTS, self._keys)
        self._put(draft, "addresses", ADDRESSES, self._wanted)

    def meet(self, draft: sqlite3.Connection, email: str) -> None:
        """Write those into the draft who have the contact at an address, whichever shop they are of."""
        self._put(draft, "contacts", SHARERS, {"email": email})

    def _put(self, draft: sqlite3.Connection, table: str, sql: str, values: dict[str, str]) -> None:
        rows = self.shop.execute(sql, values).fetchall()
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            draft.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)  # noqa: S608


class _Draft(Outbox):
    """An outbox of copies. Who else has a contact is looked up in the shop's, once it is known which one."""

    def __init__(self, path: Path, copy: _Copy) -> None:
        super().__init__(path, default_source=copy.source)
        self._copy = copy

    def others(self, customer_key: str, email: str) -> Others:
        with closing(database.connect(self.path)) as draft:
            draft.execute("BEGIN")
            self._copy.meet(draft, email)
            draft.execute("COMMIT")
        return super().others(customer_key, email)


@contextmanager
def _drafted(
    copy: _Copy, event_ids: Sequence[int], written: Sequence[Row], now: datetime
) -> Iterator[Outbox]:
    with TemporaryDirectory(prefix="outboxd-") as directory:  # for this user's eyes only
        path = Path(directory, "draft.db")
        database.create(path)
        with closing(database.connect(path)) as draft:
            draft.execute("BEGIN")
            copy.into(draft, event_ids)
            draft.executemany(WRITE, written)
            draft.execute(ALIVE, {"now": to_text(now)})
            draft.execute(HEADS)
            draft.execute("COMMIT")
        with closing(_Draft(path, copy)) as outbox:
            yield outbox


def _is_of(admission: Admission, ids: set[tuple[str, str]], addresses: set[tuple[str, str]]) -> bool:
    source = admission.event.source
    return (source, admission.customer_id) in ids or any(
        (source, address) in addresses for address in admission.address_keys
    )


def _event(row: Row, source: str) -> Event:
    id_, name, payload, own, occurred_at, _, at, _ = row
    return event_of((id_, name, payload, own, occurred_at, at, 0, 0, 0), source)
