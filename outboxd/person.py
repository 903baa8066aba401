"""A person: every reading statement about what is kept of one. It knows nothing of how that is erased."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from outboxd.errors import EX_NO_INPUT, OutboxdError
from outboxd.keys import address_key, hashed

CHUNK = 5_000
"""Events that one look goes through: no reader may stay for long."""

# No index serves these: they are rare, and hold no lock.
BY_ADDRESS = """
SELECT customer_key, source, customer_id, email, synced_email FROM contacts
WHERE lower(email) = lower(:whom) OR lower(synced_email) = lower(:whom)
   OR customer_key IN (SELECT customer_key FROM addresses WHERE address_key = :hashed)
ORDER BY customer_key
"""

BY_ID = """
SELECT customer_key, source, customer_id, email, synced_email FROM contacts
WHERE customer_id = :whom OR customer_key = :whom OR customer_key = source || ':#' || :hashed
   OR source || ':' || customer_id = :whom
ORDER BY customer_key
"""

# Events of a guest who turned out to be the customer ended under the key of their address.
EVENTS_OF = """
SELECT id, status FROM outbox
WHERE event <> :redaction AND customer_key IN (
    SELECT :key
    UNION SELECT source || ':@' || address_key FROM addresses WHERE customer_key = :key AND is_heir
)
ORDER BY id
"""

PAYLOAD = "SELECT event, payload, source FROM outbox WHERE id = :id"

STATUS = "SELECT status, customer_key, last_error FROM outbox WHERE id = :id"

# A redaction that was folded with newer news removed nothing: its call was not a DELETE. Where the contact
# stays another customer's it is none either, but then nothing is newer.
REDACTION = """
SELECT is_redacted AND (coalesce(call, 'DELETE') LIKE 'DELETE%' OR deleted_at LIKE '%#' || :id), call, detail
FROM contacts LEFT JOIN attempts ON event_id = :id
WHERE customer_key = :key ORDER BY number DESC, started_at DESC LIMIT 1
"""

LAST = "SELECT coalesce(max(id), 0) FROM outbox"

HOLDING = """
SELECT id, status, customer_key IS NULL FROM outbox
WHERE id > :after AND id <= :last AND (
    instr(lower(CAST(payload AS TEXT)), :text) OR instr(lower(CAST(payload AS TEXT)), :escaped)
    OR instr(lower(idempotency_key), :text)
)
"""

KNOWN_AS = """
SELECT customer_key FROM contacts
WHERE instr(lower(email), :text) OR instr(lower(synced_email), :text) OR instr(lower(customer_id), :text)
"""


class UnknownPersonError(OutboxdError):
    """Nobody, or more than one customer, is meant."""

    exit_code = EX_NO_INPUT


@dataclass(frozen=True, slots=True)
class Person:
    """A customer as they are known here; `addresses` are personal, the rest may be told."""

    customer_key: str
    source: str
    customer_id: str | None
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mention:
    """An event that holds a text; `is_nobodys`: no customer is known that it is about."""

    event_id: int
    status: str
    is_nobodys: bool


def find(connection: sqlite3.Connection, whom: str) -> list[Person]:
    """Whoever has, or had, the address `whom`, or else the one with that id, `source:id` if several do.

    Raises UnknownPersonError for an id that no customer has, or several do.
    """
    if "@" in whom:
        rows = connection.execute(BY_ADDRESS, {"whom": whom, "hashed": address_key(whom)}).fetchall()
        return [_person(row) for row in rows]
    bare = whom.rpartition(":")[2]
    rows = connection.execute(BY_ID, {"whom": whom, "hashed": hashed(bare)}).fetchall()
    if not rows:
        raise UnknownPersonError("no customer has this id here", hint="name the address instead")
    if len(rows) > 1:
        keys = ", ".join(f"{row[1]}:{row[2]}" if row[2] else row[0] for row in rows)
        raise UnknownPersonError("customers of several shops have this id", hint=f"name one of: {keys}")
    found = _person(rows[0])
    if found.customer_id is None and not found.addresses:  # a tombstone
        if not found.customer_key.endswith(f":#{hashed(bare)}"):
            raise UnknownPersonError(f"customer {found.customer_key} is erased already")
        found = replace(found, customer_id=bare)
    return [found]


def events(connection: sqlite3.Connection, person: Person, *, besides: str) -> dict[int, str]:
    """The status of every event of the person by its id, but for those called `besides`."""
    return dict(connection.execute(EVENTS_OF, {"key": person.customer_key, "redaction": besides}).fetchall())


def holding(connection: sqlite3.Connection, text: str) -> Iterator[Mention]:
    """The events that hold `text`, as it is or as JSON may write it, however it is capitalised in ASCII."""
    plain, escaped = small(text), small(json.dumps(text)[1:-1])
    last = connection.execute(LAST).fetchone()[0]
    for after in range(0, last, CHUNK):
        values = {"after": after, "last": after + CHUNK, "text": plain, "escaped": escaped}
        for event_id, status, is_nobodys in connection.execute(HOLDING, values).fetchall():
            yield Mention(event_id, status, bool(is_nobodys))


def known_as(connection: sqlite3.Connection, text: str) -> Sequence[str]:
    """The keys of the customers that are known by an address, or an id, in which `text` stands."""
    return [row[0] for row in connection.execute(KNOWN_AS, {"text": small(text)})]


def small(text: str) -> str:
    """In small letters as SQLite's `lower` understands it: ASCII alone."""
    return "".join(each.lower() if each.isascii() else each for each in text)


def _person(row: Sequence[str | None]) -> Person:
    key, source, customer_id, *addresses = row
    known = tuple(dict.fromkeys(each for each in addresses if each is not None))
    return Person(str(key), str(source), customer_id, known)
