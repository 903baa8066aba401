"""Leases: the claims that nobody has recorded, and how they end where whoever held them is no more."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from sqlite3 import Connection
from typing import Any

from outboxd.clock import from_text, to_text
from outboxd.event import Claim
from outboxd.outbox import contacts
from outboxd.outbox.rows import EVENT, event_of, execute

# Imports have an end of their own, and an owner.
CLAIMED = """
status = 'pending' AND attempts > 0 AND claimed_at IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM import_rows WHERE import_rows.customer_key = outbox.customer_key)
"""

UNDER_WAY = f"""
SELECT {EVENT}, customer_key, claimed_at, next_attempt_at FROM outbox WHERE {CLAIMED} ORDER BY claimed_at, id
"""

TAKE_OVER = f"UPDATE outbox SET next_attempt_at = :at WHERE {CLAIMED} AND next_attempt_at > :at"


class Leases:
    """The leases of one database. `transaction` begins one of the outbox's."""

    def __init__(
        self, transaction: Callable[[], AbstractContextManager[Connection]], *, default_source: str
    ) -> None:
        self._transaction = transaction
        self._default_source = default_source

    def under_way(self) -> list[Claim]:
        """The claims that nobody has recorded, but for those in imports; their leases may have lapsed."""
        found: dict[tuple[str, str], list[Sequence[Any]]] = {}
        with self._transaction() as connection:
            for *row, key, claimed_at, until in connection.execute(UNDER_WAY):
                found.setdefault((key, claimed_at), []).append((until, row))
            known = contacts.rows(connection, {key for key, _ in found})
        return [
            Claim(
                contacts.contact(known[key]),
                tuple(event_of(row, self._default_source, is_claimed=True) for _, row in rows),
                from_text(claimed_at),
                from_text(max(until for until, _ in rows)),
            )
            for (key, claimed_at), rows in found.items()
        ]

    def take_over(self, at: datetime, met: Iterable[tuple[str, str]] = ()) -> None:
        """Let every lease lapse at `at`: for whoever is alone here, so that nobody is left who holds one.

        `met` are the customers, by their keys, and the addresses at which Brevo may have been told of them.
        """
        with self._transaction() as connection:
            connection.execute(TAKE_OVER, {"at": to_text(at)})
            execute(connection, contacts.overtake(met))
