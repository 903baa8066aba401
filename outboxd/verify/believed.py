"""What we believe Brevo has of each customer. It only reads, some customers at a time: no look lasts long."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from outboxd.errors import DatabaseError
from outboxd.event import Register, Stamp, illegible

CHUNK = 1000
"""Customers that are read at a time."""

AT = """
SELECT contacts.*, EXISTS (
    SELECT 1 FROM outbox WHERE status = 'pending' AND outbox.customer_key = contacts.customer_key
) AS is_pending
FROM json_each(:addresses) AS wanted JOIN contacts ON synced_email = wanted.value
"""

# Of those who were removed for good nothing but the hash of their address is left.
OWNERS = """
SELECT wanted.value AS address_key, contacts.*, EXISTS (
    SELECT 1 FROM outbox WHERE status = 'pending' AND outbox.customer_key = contacts.customer_key
) AS is_pending
FROM json_each(:keys) AS wanted JOIN addresses ON addresses.address_key = wanted.value
JOIN contacts USING (customer_key)
"""

EVERYONE = """
SELECT contacts.*, EXISTS (
    SELECT 1 FROM outbox WHERE status = 'pending' AND outbox.customer_key = contacts.customer_key
) AS is_pending
FROM contacts WHERE synced_email IS NOT NULL AND customer_key > :after ORDER BY customer_key LIMIT :limit
"""


@dataclass(frozen=True, slots=True)
class Believed:
    """A customer as we believe Brevo has them. `address` None: not there; `synced_at` is when we last heard.

    `is_pending` says that events of theirs wait or are in flight.
    """

    customer_key: str
    address: str | None
    fields: Mapping[str, Register]
    accepts_marketing: bool | None
    email_at: Stamp | None
    consent_at: Stamp | None
    deleted_at: Stamp | None
    born_at: Stamp | None
    is_redacted: bool
    synced_at: str | None
    is_pending: bool

    @property
    def is_alive(self) -> bool:
        return self.deleted_at is None or self.born_at is not None

    def is_in_flux(self, since: str) -> bool:
        """Whether what Brevo showed at `since` may be older, or newer, than what we know."""
        return self.is_pending or (self.synced_at or "") >= since


def at_addresses(connection: sqlite3.Connection, addresses: Iterable[str]) -> dict[str, list[Believed]]:
    """The customers that are believed to be at these addresses, by address."""
    found = defaultdict[str, list[Believed]](list)
    for row in _rows(connection, AT, addresses=json.dumps(list(addresses))):
        found[row["synced_email"]].append(_believed(row))
    return found


def owners(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, list[Believed]]:
    """The customers that ever had an address, by its key."""
    found = defaultdict[str, list[Believed]](list)
    for row in _rows(connection, OWNERS, keys=json.dumps(list(keys))):
        found[row["address_key"]].append(_believed(row))
    return found


def everyone(connection: sqlite3.Connection) -> Iterator[list[Believed]]:
    """Everybody who is believed to be in Brevo, some at a time, by customer key."""
    after = ""
    while chunk := [_believed(row) for row in _rows(connection, EVERYONE, after=after, limit=CHUNK)]:
        yield chunk
        after = chunk[-1].customer_key


def _rows(connection: sqlite3.Connection, sql: str, **values: Any) -> list[dict[str, Any]]:
    cursor = connection.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _believed(row: Mapping[str, Any]) -> Believed:
    try:
        return _read(row)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        hint = "restore a backup, or mend the row"
        raise DatabaseError(illegible(row["customer_key"]), hint=hint) from error


def _read(row: Mapping[str, Any]) -> Believed:
    def stamp(name: str) -> Stamp | None:
        return Stamp.parse(row[name]) if row[name] else None

    told = json.loads(row["fields"])
    return Believed(
        customer_key=row["customer_key"],
        address=row["synced_email"],
        fields={name: Register(Stamp.parse(at), digest) for name, (at, digest) in told.items()},
        accepts_marketing=None if row["accepts_marketing"] is None else bool(row["accepts_marketing"]),
        email_at=stamp("email_at"),
        consent_at=stamp("consent_at"),
        deleted_at=stamp("deleted_at"),
        born_at=stamp("born_at"),
        is_redacted=bool(row["is_redacted"]),
        synced_at=row["synced_at"],
        is_pending=bool(row["is_pending"]),
    )
