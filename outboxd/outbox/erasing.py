"""Erasing one person: the statements that take a customer out of turn, and leave nothing of one behind.

The tombstone stays: a customer's key, and the hashes of the addresses, so that late events stay out.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from sqlalchemy import Connection

from outboxd.clock import to_text
from outboxd.event import Claim
from outboxd.outbox import contacts
from outboxd.outbox.rows import EVENT, event_of, many

# Whenever it is due: somebody waits. Not while it is in flight.
HEAD_OF = """
SELECT id FROM outbox
WHERE is_head = 1 AND customer_key = :key AND (claimed_at IS NULL OR next_attempt_at <= :now)
"""

NEWEST_OF = """
SELECT id FROM outbox WHERE status = 'pending' AND customer_key = :key ORDER BY id DESC LIMIT :limit
"""

LEASE = """
UPDATE outbox SET attempts = attempts + 1, claimed_at = :now, next_attempt_at = :until
WHERE id IN (SELECT value FROM json_each(:ids))
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
        """Lease the customer with the newest pending events, due or not; None if that is in flight."""
        with self._transaction() as connection:
            values = {"key": customer_key, "now": to_text(now), "limit": self._chunk - 1}
            head = connection.exec_driver_sql(HEAD_OF, values).first()
            if head is None:
                return None
            newest = connection.exec_driver_sql(NEWEST_OF, values).all()
            ids = json.dumps(sorted({row[0] for row in [head, *newest]}))
            leased = {"ids": ids, "now": to_text(now), "until": to_text(now + lease)}
            connection.exec_driver_sql(LEASE, leased)
            rows = connection.exec_driver_sql(CLAIMED, {"ids": ids}).all()
            events = [event_of(row, self._default_source, is_claimed=True) for row in rows]
            events.sort(key=lambda event: event.id != head[0])
            return Claim(
                contacts.load(connection, [customer_key])[customer_key], tuple(events), now, now + lease
            )

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
            connection.exec_driver_sql(TOMBSTONE, {"key": customer_key})
