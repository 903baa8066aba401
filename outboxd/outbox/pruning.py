"""Pruning: what is over and old leaves the file, in steps so small that no writer notices.

Delivered events and dropped letters go with their attempts, notifications once they are delivered, imports
once they have ended. What is pending, and what is dead, is never touched here, whatever its age. What is to
go is looked for without a lock; what a step removes, and how long it holds the lock, is bounded; how often
steps are taken is the caller's business. It works on a connection of its own.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from outboxd import database
from outboxd.clock import to_text
from outboxd.locks import turn
from outboxd.pool import Pooled
from outboxd.retention import Retention

ROWS = 200
"""Rows that one transaction removes at most."""

BUDGET = 0.002
"""Seconds after which a transaction takes on no more; then it commits, which takes as long again."""

REST = 0.001
"""Seconds after each transaction in which others may write, and as long as it took."""

SPARE = 1024
"""Free pages that are always kept for what comes next; of a large file, one in twenty."""

OLD = """
SELECT id FROM outbox
WHERE status = 'delivered' AND finished_at <= :before ORDER BY finished_at LIMIT :limit
"""

OLD_DROPPED = """
SELECT id FROM outbox
WHERE dropped_at IS NOT NULL AND dropped_at <= :before ORDER BY dropped_at LIMIT :limit
"""

# Where attempts go before their events: on from those that lost theirs already.
OLD_TRIED = """
SELECT id, finished_at FROM outbox
WHERE status = 'delivered' AND finished_at <= :before AND (finished_at, id) > (:at, :id)
ORDER BY finished_at, id LIMIT :limit
"""

OLD_NOTIFICATIONS = """
SELECT id FROM notifications
WHERE status = 'delivered' AND finished_at <= :before ORDER BY finished_at LIMIT :limit
"""

OLD_IMPORTS = """
SELECT id FROM imports
WHERE ended_at IS NOT NULL AND ended_at <= :before ORDER BY ended_at LIMIT :limit
"""

OLD_COUNTERS = "SELECT minute FROM stats WHERE minute <= :before ORDER BY minute LIMIT :limit"

FORGET_EVENT = "DELETE FROM outbox WHERE id = :id AND (status = 'delivered' OR dropped_at IS NOT NULL)"

FORGET_ATTEMPTS = "DELETE FROM attempts WHERE event_id = :id"

FORGET_NOTIFICATION = "DELETE FROM notifications WHERE id = :id AND status = 'delivered'"

FORGET_IMPORT = "DELETE FROM imports WHERE id = :id AND ended_at IS NOT NULL"

FORGET_COUNTER = "DELETE FROM stats WHERE minute = :id"

CURSOR = "SELECT value FROM state WHERE key = 'attempts_pruned'"

MOVE_CURSOR = """
INSERT INTO state (key, value, updated_at) VALUES ('attempts_pruned', :value, :now)
ON CONFLICT (key) DO UPDATE SET value = :value, updated_at = :now
"""

EVENT = (FORGET_ATTEMPTS, FORGET_EVENT)


class Pruning:
    """The pruning of one database. Each method but `close` is one transaction at most."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pooled = Pooled(os.path.realpath(path), path)
        self._connection = self._pooled.connection

    def close(self) -> None:
        self._pooled.close()

    def events(self, retention: Retention, now: datetime) -> int:
        """Remove the oldest delivered events that are past their time, and their attempts; how many."""
        return self._forget(EVENT, OLD, retention.before(retention.delivered, now))

    def dropped(self, retention: Retention, now: datetime) -> int:
        """Remove the letters that an operator dropped so long ago, and their attempts; how many."""
        return self._forget(EVENT, OLD_DROPPED, retention.before(retention.delivered, now))

    def attempts(self, retention: Retention, now: datetime) -> int:
        """Remove the attempts at delivered events that stay themselves; at how many events."""
        if not retention.parts_attempts:
            return 0
        [cursor] = self._look(CURSOR) or [("",)]
        at, _, event_id = cursor[0].partition("#")
        before = retention.before(retention.attempts, now)
        rows = self._look(OLD_TRIED, before=before, at=at, id=int(event_id or 0), limit=ROWS)

        def forget(row: tuple[int, str]) -> None:
            self._connection.execute(FORGET_ATTEMPTS, {"id": row[0]})
            moved = {"value": f"{row[1]}#{row[0]}", "now": to_text(now)}
            self._connection.execute(MOVE_CURSOR, moved)

        return self._each(rows, forget)

    def notifications(self, retention: Retention, now: datetime) -> int:
        """Remove the oldest notifications that were delivered; how many."""
        before = retention.before(retention.delivered, now)
        return self._forget((FORGET_NOTIFICATION,), OLD_NOTIFICATIONS, before)

    def imports(self, retention: Retention, now: datetime) -> int:
        """Remove what is known of the imports that ended so long ago; how many."""
        return self._forget((FORGET_IMPORT,), OLD_IMPORTS, retention.before(retention.delivered, now))

    def counters(self, retention: Retention, now: datetime) -> int:
        """Remove the oldest counters; how many minutes."""
        return self._forget((FORGET_COUNTER,), OLD_COUNTERS, retention.before(retention.counters, now)[:16])

    def shrink(self, *, spare: int | None = None) -> int:
        """Give free pages back to the file system, but for some to spare; how many."""
        [(pages,)] = self._look("PRAGMA page_count")
        [(free,)] = self._look("PRAGMA freelist_count")
        [(can_shrink,)] = self._look("PRAGMA auto_vacuum")
        if not can_shrink:
            return 0
        surplus = free - (max(SPARE, pages // 20) if spare is None else spare)
        if surplus <= 0:
            return 0

        def give_back(_: int) -> None:
            self._connection.execute("PRAGMA incremental_vacuum(1)")  # Python takes but one step of more

        return self._each(range(surplus), give_back)

    def cut_log(self, *, limit: int = database.LOG_LIMIT) -> bool:
        """Write the log into the file and cut it if it has more than `limit` bytes; whether it is short now.

        Writers wait only for the cut itself, which is tried once: whoever still reads an old state of the
        file puts it off.
        """
        if database.sizes(self._path)[1] <= limit:
            return True
        with database.explained(self._path):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                is_busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {round(database.BUSY_TIMEOUT * 1000)}")
        return not is_busy

    def rewrite(self) -> None:
        """Write the whole file anew, so that no trace of what was deleted is left in it. Writers wait."""
        with database.explained(self._path):
            self._connection.execute("VACUUM")

    def _forget(self, statements: Sequence[str], old: str, before: str) -> int:
        """Execute `statements` for each row that `old` finds; for how many."""

        def forget(row: tuple[Any]) -> None:
            for statement in statements:
                self._connection.execute(statement, {"id": row[0]})

        return self._each(self._look(old, before=before, limit=ROWS), forget)

    def _look(self, sql: str, **values: Any) -> list[Any]:
        with database.explained(self._path):
            return self._connection.execute(sql, values).fetchall()

    def _each(self, found: Sequence[Any], forget: Callable[[Any], None]) -> int:
        """Forget one after the other in one transaction, until its time is up; how many."""
        if not found:
            return 0
        done = 0
        with self._transaction():
            give_up = monotonic() + BUDGET
            for each in found:
                forget(each)
                done += 1
                if monotonic() > give_up:
                    break
        return done

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with database.explained(self._path), turn(self._path):
            try:
                self._pooled.begin()
                began = monotonic()
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        sleep(max(REST, monotonic() - began))
