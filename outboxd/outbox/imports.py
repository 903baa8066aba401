"""The imports: which are under way in Brevo, and whom they bar from any other delivery.

A barred customer's head has a lease without end: only the end of the import lets anybody claim it again.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from sqlite3 import Connection
from typing import Any

from outboxd.clock import from_text, to_text
from outboxd.event import Claim, Import, ImportRow
from outboxd.outbox import contacts, totals
from outboxd.outbox.rows import EVENT, event_of, execute, insert, many

NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""When the lease of a barred customer lapses; durations can still be added to it."""

OPEN = "INSERT INTO imports (size, started_at) VALUES (:size, :now)"

# A row whose lease was lost meanwhile is somebody else's. One of an import that was divided moves over, and
# that of a former claim, which another hand has ended.
BAR = """
INSERT INTO import_rows (customer_key, import_id, claimed_at, address_key, digest)
SELECT :key, :import_id, :claimed_at, :address_key, :digest
WHERE EXISTS (SELECT 1 FROM outbox WHERE is_head = 1 AND customer_key = :key AND claimed_at = :claimed_at)
ON CONFLICT (customer_key) DO UPDATE SET import_id = :import_id, claimed_at = :claimed_at,
    address_key = :address_key, digest = :digest
"""

HOLD = """
UPDATE outbox SET next_attempt_at = :never
WHERE is_head = 1 AND customer_key = :key AND claimed_at = :claimed_at
"""

BARRED_BY = "SELECT customer_key FROM import_rows WHERE import_id = :import_id"

ANYBODY = "SELECT EXISTS (SELECT 1 FROM import_rows)"

BARRED = """
SELECT address_key, customer_key, claimed_at FROM import_rows
WHERE import_id IN (SELECT value FROM json_each(:ids))
"""

ROWS_OF = """
SELECT customer_key, claimed_at, digest FROM import_rows
WHERE import_id = :import_id AND customer_key > :after ORDER BY customer_key LIMIT :limit
"""

RELEASE = "DELETE FROM import_rows WHERE customer_key = :key AND claimed_at = :claimed_at"

STARTED = "UPDATE imports SET process_id = :process_id, status = 'running' WHERE id = :import_id"

ENDED = """
UPDATE imports SET ended_at = :now, status = :status, left_out = :left_out
WHERE id = :import_id AND ended_at IS NULL
"""

UNDER_WAY = """
SELECT id, size, started_at, process_id FROM imports WHERE ended_at IS NULL ORDER BY id
"""


EVENTS_OF = f"""
SELECT {EVENT}, next_attempt_at FROM outbox
WHERE status = 'pending' AND customer_key = :key AND claimed_at = :claimed_at ORDER BY id
"""

Barred = tuple[Claim, str]
"""A claim under an import, and the digest of the row that was sent."""


class Ledger:
    """The imports of one database. `transaction` begins one of the outbox's."""

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[Connection]],
        *,
        chunk: int,
        default_source: str,
    ) -> None:
        self._transaction = transaction
        self._chunk = chunk
        self._default_source = default_source

    def under_way(self) -> list[Import]:
        """The imports whose end is not recorded, oldest first."""
        with self._transaction() as connection:
            return [_import(row) for row in connection.execute(UNDER_WAY)]

    def barred(self, import_ids: Iterable[int]) -> list[tuple[str, str, datetime]]:
        """Of everyone in one of these imports: address key, customer key, and when they were claimed."""
        with self._transaction() as connection:
            rows = connection.execute(BARRED, {"ids": json.dumps(list(import_ids))})
            return [(address, key, from_text(claimed_at)) for address, key, claimed_at in rows]

    def open(self, rows: Sequence[ImportRow], now: datetime) -> tuple[Import, list[ImportRow]]:
        """A new import; it bars the customers of `rows`. Returns those whose claims still hold, too."""
        with self._transaction() as connection:
            values = {"size": len(rows), "now": to_text(now)}
            made = Import(insert(connection, OPEN, values), len(rows), now)
        for start in range(0, len(rows), self._chunk):
            with self._transaction() as connection:
                _bar(connection, made.id, rows[start : start + self._chunk])
        with self._transaction() as connection:
            held = {row[0] for row in connection.execute(BARRED_BY, {"import_id": made.id})}
        return made, [row for row in rows if row.customer_key in held]

    def started(self, import_id: int, process_id: int) -> None:
        """Brevo has taken the import over."""
        with self._transaction() as connection:
            connection.execute(STARTED, {"import_id": import_id, "process_id": process_id})

    def claims(self, import_id: int, *, after: str = "") -> list[Barred]:
        """The next claims that the import bars, by customer key; none left: none.

        One without events was ended by another hand, and is barred no more.
        """
        values = {"import_id": import_id, "after": after, "limit": self._chunk}
        with self._transaction() as connection:
            rows = connection.execute(ROWS_OF, values).fetchall()
            found = [(self._claim(connection, key, claimed_at), digest) for key, claimed_at, digest in rows]
            release(connection, [claim for claim, _ in found if not claim.events])
        return found

    def reclaimed(self, rows: Sequence[ImportRow]) -> list[Claim]:
        """The claims that `rows` were made for, their leases as they were; a lost one has no events."""
        with self._transaction() as connection:
            return [self._claim(connection, row.customer_key, to_text(row.claimed_at)) for row in rows]

    def ended(self, import_id: int, status: str, left_out: int | None, now: datetime) -> None:
        """The import is over, and what became of its rows is recorded."""
        with self._transaction() as connection:
            values = {"import_id": import_id, "status": status, "left_out": left_out, "now": to_text(now)}
            ended = connection.execute(ENDED, values).rowcount
            execute(connection, totals.add(imports={status: ended}))

    def _claim(self, connection: Connection, key: str, claimed_at: str) -> Claim:
        rows = connection.execute(EVENTS_OF, {"key": key, "claimed_at": claimed_at}).fetchall()
        events = tuple(event_of(row[:-1], self._default_source, is_claimed=True) for row in rows)
        until = max((from_text(row[-1]) for row in rows), default=NEVER)
        return Claim(contacts.load(connection, [key])[key], events, from_text(claimed_at), until)


def release(connection: Connection, claims: Iterable[Claim]) -> None:
    """What became of these claims is recorded, and of their rows with them."""
    if not connection.execute(ANYBODY).fetchone()[0]:
        return
    values = [{"key": each.contact.customer_key, "claimed_at": to_text(each.claimed_at)} for each in claims]
    many(connection, RELEASE, values)


def _bar(connection: Connection, import_id: int, rows: Sequence[ImportRow]) -> None:
    values = [
        {
            "key": row.customer_key,
            "import_id": import_id,
            "claimed_at": to_text(row.claimed_at),
            "address_key": row.address_key,
            "digest": row.digest,
        }
        for row in rows
    ]
    many(connection, BAR, values)
    held = [
        {"key": each["key"], "claimed_at": each["claimed_at"], "never": to_text(NEVER)} for each in values
    ]
    many(connection, HOLD, held)


def _import(row: Sequence[Any]) -> Import:
    id_, size, started_at, process_id = row
    return Import(id_, size, from_text(started_at), process_id)
