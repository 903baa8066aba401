"""Dead letters: brought back to life, or dropped for good, by the word of an operator."""

import json
from collections.abc import Sequence
from datetime import datetime
from sqlite3 import Connection

from outboxd.clock import to_text

REVIVE = """
UPDATE outbox SET status = 'pending', finished_at = NULL, attempts = 0, next_attempt_at = :now
WHERE id IN (SELECT value FROM json_each(:ids)) AND status = 'dead' AND dropped_at IS NULL
RETURNING id, customer_key
"""

DROP = """
UPDATE outbox SET dropped_at = :now,
       last_error = 'dropped by operator ' || :by || ': ' || coalesce(last_error, 'no reason was kept')
WHERE id IN (SELECT value FROM json_each(:ids)) AND status = 'dead' AND dropped_at IS NULL
RETURNING id
"""


def revive(connection: Connection, ids: Sequence[int], now: datetime) -> list[tuple[int, str | None]]:
    """Make those of `ids` that are dead pending again, with all their attempts: (id, customer key)."""
    values = {"ids": json.dumps(ids), "now": to_text(now)}
    return [(row[0], row[1]) for row in connection.execute(REVIVE, values).fetchall()]


def drop(connection: Connection, ids: Sequence[int], by: str, now: datetime) -> list[int]:
    """End those of `ids` that are dead for good; nothing revives them. Their reason and payload are kept."""
    values = {"ids": json.dumps(ids), "by": by, "now": to_text(now)}
    return [row[0] for row in connection.execute(DROP, values).fetchall()]
