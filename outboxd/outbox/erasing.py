"""Erasing one person: the statements that take a customer out of turn, and leave nothing of one behind.

The tombstone stays: a customer's key, and the hashes of the addresses, so that late events stay out.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from sqlite3 import Connection

from outboxd.clock import to_text
from outboxd.event import Claim
from outboxd.keys import address_key
from outboxd.outbox import contacts, statements
from outboxd.outbox.rows import EVENT, event_of, many

# Whenever it is due: somebody waits. Not while it is in flight.
HEAD_OF = """
SELECT id FROM outbox
WHERE is_head = 1 AND customer_key = :key AND (claimed_at IS NULL OR next_attempt_at <= :now)
"""

NEWEST_OF = """
SELECT id FROM outbox WHERE status = 'pending' AND customer_key = :key ORDER BY id DESC LIMIT :limit
"""

# An import under way may bring the contact back, or be deprived of it.
IN_IMPORT = """
SELECT 1 FROM import_rows
WHERE address_key IN (SELECT value FROM json_each(:addresses)) AND customer_key <> :key LIMIT 1
"""

# What comes of the claim is not recorded; it is due again once its delivery cannot be under way any more.
LOSE = """
UPDATE outbox SET claimed_at = :now, next_attempt_at = min(next_attempt_at, :until)
WHERE status = 'pending' AND customer_key = :key AND claimed_at = :claimed_at
"""

CLAIMED = f"SELECT {EVENT} FROM outbox WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY id"

FORGET_EVENTS = "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(:ids)) AND status <> 'pending'"

FORGET_ATTEMPTS = "DELETE FROM attempts WHERE event_id IN (SELECT value FROM json_each(:ids))"

# An id that may name a person lives on in the key, hashed, by which late events find the tombstone.
TOMBSTONE = """
UPDATE contacts SET email = NULL, email_at = NULL, synced_email = NULL, fields = '{}', labels = '{}',
       customer_id = iif(customer_key LIKE '%:#%', NULL, customer_id)
WHERE customer_key = :key AND is_redacted = 1
"""


class Erasing:
    """What is written to erase a person; each method is one transaction, or several of `chunk` rows."""

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

    def claim(self, customer_key: str, now: datetime, *, lease: timedelta) -> Claim | None:
        """Lease the customer with the newest pending events, due or not; None if that is in flight, or if
        another customer is in an import with the address.
        """
        with self._transaction() as connection:
            contact = contacts.load(connection, [customer_key])[customer_key]
            known = [address_key(each) for each in (contact.email, contact.synced_email) if each]
            values = {"key": customer_key, "now": to_text(now), "limit": self._chunk - 1}
            head = connection.execute(HEAD_OF, values).fetchone()
            others = {"key": customer_key, "addresses": json.dumps(known)}
            if head is None or connection.execute(IN_IMPORT, others).fetchone() is not None:
                return None
            newest = connection.execute(NEWEST_OF, values).fetchall()
            ids = json.dumps(sorted({row[0] for row in [head, *newest]}))
            leased = {"ids": ids, "now": to_text(now), "until": to_text(now + lease)}
            connection.execute(statements.LEASE, leased)
            rows = connection.execute(CLAIMED, {"ids": ids}).fetchall()
            events = [event_of(row, self._default_source, is_claimed=True) for row in rows]
            events.sort(key=lambda event: event.id != head[0])
            return Claim(contact, tuple(events), now, now + lease)

    def lose(self, claims: Sequence[Claim], now: datetime, *, lease: timedelta) -> None:
        """Let nothing that comes of these claims count; they are made again, within `lease` at the latest."""
        until = to_text(now + lease)
        made = [{"key": each.contact.customer_key, "claimed_at": to_text(each.claimed_at)} for each in claims]
        with self._transaction() as connection:
            many(connection, LOSE, [{**each, "now": to_text(now), "until": until} for each in made])

    def forget(self, event_ids: Sequence[int]) -> None:
        """Delete these events and the attempts at them; what is pending stays."""
        for start in range(0, len(event_ids), self._chunk):
            ids = [{"ids": json.dumps(list(event_ids[start : start + self._chunk]))}]
            with self._transaction() as connection:
                many(connection, FORGET_ATTEMPTS, ids)
                many(connection, FORGET_EVENTS, ids)

    def bury(self, customer_key: str) -> None:
        """Leave of a redacted customer the tombstone alone."""
        with self._transaction() as connection:
            connection.execute(TOMBSTONE, {"key": customer_key})
