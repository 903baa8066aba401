"""The notifications table: what the operator's webhook is to be told, written where events are recorded.

Completions are summed up: while a notification of a type is open, what happens is added to it. It holds
counts, ids and customer keys, never what an event holds.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from sqlite3 import Connection
from typing import Any

from outboxd.clock import to_text
from outboxd.event import FINISHED_WELL, Event, Outcome, Verdict
from outboxd.notices import COMPLETED, FAILED, Notification, Wanted
from outboxd.outbox import totals
from outboxd.outbox.rows import execute
from outboxd.topics import KNOWN

MOST_NAMED = 20
"""Event ids, and reasons, that a summary names."""

OPENED = "SELECT id, data FROM notifications WHERE type = :type AND is_open = 1"

ADD = "UPDATE notifications SET data = :data WHERE id = :id"

WRITE = """
INSERT INTO notifications (type, data, is_open, next_attempt_at, created_at)
VALUES (:type, :data, :is_open, :at, :now)
"""

NEXT_DUE = (
    "SELECT next_attempt_at FROM notifications WHERE status = 'pending' ORDER BY next_attempt_at LIMIT 1"
)

DUE = """
SELECT id, message_id, type, data, created_at, attempts FROM notifications
WHERE status = 'pending' AND next_attempt_at <= :now ORDER BY next_attempt_at LIMIT 1
"""

CLAIM = """
UPDATE notifications SET is_open = 0, attempts = attempts + 1, next_attempt_at = :until WHERE id = :id
"""

FINISH = """
UPDATE notifications SET status = :status, finished_at = :now, last_error = :error
WHERE id = :id AND attempts = :attempts AND status = 'pending'
"""

PUT_BACK = """
UPDATE notifications SET next_attempt_at = :at, last_error = :error
WHERE id = :id AND attempts = :attempts AND status = 'pending'
"""

SHIFT = """
UPDATE notifications SET next_attempt_at = strftime('%Y-%m-%dT%H:%M:%fZ', next_attempt_at, :by)
WHERE status = 'pending' AND next_attempt_at > :now
"""

REVIVE = """
UPDATE notifications SET status = 'pending', finished_at = NULL, attempts = 0, next_attempt_at = :now
WHERE status = 'dead'
"""

DROP = "DELETE FROM notifications WHERE status = 'dead'"


@dataclass(slots=True)
class _Sum:
    """What is told of many events."""

    events: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    event_ids: list[int] = field(default_factory=list)

    def add(self, event: Event, outcome: Outcome) -> None:
        self.events += 1
        self.verdicts[str(outcome.verdict)] += 1
        if outcome.verdict is Verdict.REFUSED:
            self.reasons[outcome.detail or "unknown"] += 1
        self.event_ids.append(event.id)

    def onto(self, data: dict[str, Any]) -> dict[str, Any]:
        """The sum with what `data` has already."""
        reasons = self.reasons + Counter(data.get("reasons", {}))
        return {
            "events": self.events + data.get("events", 0),
            "verdicts": dict(self.verdicts + Counter(data.get("verdicts", {}))),
            **({"reasons": dict(reasons.most_common(MOST_NAMED))} if reasons else {}),
            "event_ids": [*data.get("event_ids", ()), *self.event_ids][:MOST_NAMED],
        }


class Notices:
    """The notifications of one database, written and taken out. `transaction` begins one of the outbox's."""

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[Connection]],
        look: Callable[..., list[Any]],
        wanted: Wanted,
    ) -> None:
        self._transaction = transaction
        self._look = look
        self._wanted = wanted

    def write(
        self,
        connection: Connection,
        tried: Sequence[tuple[Event, Outcome, datetime]],
        keys: Mapping[int, str],
        now: datetime,
    ) -> None:
        """Note what became of events, in the transaction that records it; `keys` are their customers'."""
        for type_, verdicts in ((COMPLETED, FINISHED_WELL), (FAILED, frozenset({Verdict.REFUSED}))):
            told = [(event, outcome) for event, outcome, _ in tried if outcome.verdict in verdicts]
            if type_ not in self._wanted.types or not told:
                continue
            if self._wanted.each:
                for event, outcome in told:
                    _insert(connection, type_, _one(event, outcome, keys.get(event.id)), now, now)
            else:
                self._sum_up(connection, type_, told, now)

    def tell(self, connection: Connection, type_: str, data: Mapping[str, Any], now: datetime) -> None:
        """Note that something happened, if the operator wants to know."""
        if type_ in self._wanted.types:
            _insert(connection, type_, data, now, now)

    def next_due(self) -> str | None:
        """When the next one is to go, as text."""
        found = self._look(NEXT_DUE)
        return str(found[0][0]) if found else None

    def claim(self, now: datetime, lease: timedelta) -> Notification | None:
        """The next one that is due, leased; nothing more is added to it."""
        with self._transaction() as connection:
            row = connection.execute(DUE, {"now": to_text(now)}).fetchone()
            if row is None:
                return None
            id_, message_id, type_, data, created_at, attempts = row
            connection.execute(CLAIM, {"id": id_, "until": to_text(now + lease)})
        return Notification(id_, message_id, type_, json.loads(data), created_at, attempts + 1)

    def finish(self, told: Notification, error: str | None, now: datetime) -> None:
        """It is delivered, or (with an error) dead."""
        values = {
            "id": told.id,
            "attempts": told.attempts,
            "status": "delivered" if error is None else "dead",
            "error": error,
            "now": to_text(now),
        }
        with self._transaction() as connection:
            finished = connection.execute(FINISH, values).rowcount
            execute(connection, totals.add(notifications={told.type: finished if error is None else 0}))

    def put_back(self, told: Notification, error: str, at: datetime) -> None:
        """It is tried again at `at`."""
        values = {"id": told.id, "attempts": told.attempts, "error": error, "at": to_text(at)}
        with self._transaction() as connection:
            connection.execute(PUT_BACK, values)

    def shift(self, connection: Connection, now: datetime, by: str) -> None:
        """The clock was set back by so much, in SQLite's words."""
        connection.execute(SHIFT, {"now": to_text(now), "by": by})

    def revive(self, now: datetime) -> int:
        """Give every dead one all its attempts again; how many there were."""
        with self._transaction() as connection:
            return int(connection.execute(REVIVE, {"now": to_text(now)}).rowcount)

    def drop(self) -> int:
        """Delete every dead one; how many there were."""
        with self._transaction() as connection:
            return int(connection.execute(DROP).rowcount)

    def _sum_up(
        self, connection: Connection, type_: str, told: Iterable[tuple[Event, Outcome]], now: datetime
    ) -> None:
        total = _Sum()
        for event, outcome in told:
            total.add(event, outcome)
        row = connection.execute(OPENED, {"type": type_}).fetchone()
        if row is None:
            _insert(connection, type_, total.onto({}), now, now + self._wanted.interval, is_open=True)
        else:
            data = total.onto(json.loads(row[1]))
            connection.execute(ADD, {"id": row[0], "data": json.dumps(data)})


def _one(event: Event, outcome: Outcome, customer_key: str | None) -> dict[str, Any]:
    return {
        "event_id": event.id,
        "event": event.event if event.event in KNOWN else None,  # what is no name may be anything
        "customer_key": customer_key,
        "verdict": str(outcome.verdict),
        "attempts": event.attempts,
        "reason": outcome.detail if outcome.verdict is Verdict.REFUSED else None,
    }


def _insert(
    connection: Connection,
    type_: str,
    data: Mapping[str, Any],
    now: datetime,
    at: datetime,
    *,
    is_open: bool = False,
) -> None:
    values = {
        "type": type_,
        "data": json.dumps(data),
        "is_open": is_open,
        "at": to_text(at),
        "now": to_text(now),
    }
    connection.execute(WRITE, values)
