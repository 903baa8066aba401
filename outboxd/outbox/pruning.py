"""Pruning: what is over and old leaves the file, in steps so small that no writer notices.

Delivered events go with their attempts; pending events and dead letters are never touched here, whatever
their age. What a step removes, and how long it holds the lock, is bounded; how often steps are taken is
the caller's business. It works on a connection of its own.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep

from outboxd import database
from outboxd.clock import to_text
from outboxd.retention import Retention

ROWS = 200
"""Rows that one transaction removes at most, so many at a time:"""

SLICE = 10

BUDGET = 0.004
"""Seconds after which a transaction takes on no more; then it commits, which takes as long again."""

REST = 0.001
"""Seconds after each transaction in which others may write."""

SPARE = 256
"""Free pages that are always kept for what comes next; of a large file, one in twenty."""

OLD = """
SELECT id FROM outbox
WHERE status = 'delivered' AND finished_at <= :before ORDER BY finished_at LIMIT :limit
"""

# Where attempts go before their events: on from those that lost theirs already.
OLD_TRIED = """
SELECT id, finished_at FROM outbox
WHERE status = 'delivered' AND finished_at <= :before AND (finished_at, id) > (:at, :id)
ORDER BY finished_at, id LIMIT :limit
"""

FORGET_EVENTS = "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(:ids)) AND status = 'delivered'"

FORGET_ATTEMPTS = "DELETE FROM attempts WHERE event_id IN (SELECT value FROM json_each(:ids))"

FORGET_COUNTERS = """
DELETE FROM stats WHERE minute IN (
    SELECT minute FROM stats WHERE minute <= :before ORDER BY minute LIMIT :limit
)
"""

FORGET_IMPORTS = """
DELETE FROM imports WHERE id IN (
    SELECT id FROM imports WHERE ended_at <= :before ORDER BY id LIMIT :limit
)
"""

CURSOR = "SELECT value FROM state WHERE key = 'attempts_pruned'"

MOVE_CURSOR = """
INSERT INTO state (key, value, updated_at) VALUES ('attempts_pruned', :value, :now)
ON CONFLICT (key) DO UPDATE SET value = :value, updated_at = :now
"""


class Pruning:
    """The pruning of one database. Each method but `close` is one transaction at most."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = database.connect(path)

    def close(self) -> None:
        self._connection.close()

    def events(self, retention: Retention, now: datetime) -> int:
        """Remove the oldest delivered events that are past their time, and their attempts; how many."""
        if retention.delivered is None:
            return 0
        before = to_text(now - retention.delivered)

        def remove() -> int:
            ids = [row[0] for row in self._connection.execute(OLD, {"before": before, "limit": SLICE})]
            self._forget(FORGET_ATTEMPTS, ids)
            self._forget(FORGET_EVENTS, ids)
            return len(ids)

        return self._slices(remove)

    def attempts(self, retention: Retention, now: datetime) -> int:
        """Remove the attempts at delivered events that stay themselves; at how many events."""
        if retention.attempts is None or not retention.parts_attempts:
            return 0
        before = to_text(now - retention.attempts)

        def remove() -> int:
            found = self._connection.execute(CURSOR).fetchone()
            at, _, event_id = found[0].partition("#") if found else ("", "", "0")
            values = {"before": before, "at": at, "id": int(event_id), "limit": SLICE}
            rows = self._connection.execute(OLD_TRIED, values).fetchall()
            if rows:
                self._forget(FORGET_ATTEMPTS, [row[0] for row in rows])
                cursor = {"value": f"{rows[-1][1]}#{rows[-1][0]}", "now": to_text(now)}
                self._connection.execute(MOVE_CURSOR, cursor)
            return len(rows)

        return self._slices(remove)

    def counters(self, retention: Retention, now: datetime) -> int:
        """Remove the oldest counters, and the imports that ended then; how many rows."""
        if retention.counters is None:
            return 0
        before = to_text(now - retention.counters)
        minutes = {"before": before[:16], "limit": ROWS}
        imports = {"before": before, "limit": ROWS}
        with self._transaction():
            removed = self._connection.execute(FORGET_COUNTERS, minutes).rowcount
            return removed + self._connection.execute(FORGET_IMPORTS, imports).rowcount

    def shrink(self, *, spare: int | None = None) -> int:
        """Give free pages back to the file system, but for some to spare; how many."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        surplus = free - (max(SPARE, pages // 20) if spare is None else spare)
        if surplus <= 0:
            return 0

        def give_back() -> int:
            self._connection.execute("PRAGMA incremental_vacuum(1)")  # Python takes but one step of more
            return 1

        return self._slices(give_back, most=surplus)

    def cut_log(self, *, limit: int = database.LOG_LIMIT) -> bool:
        """Write the log into the file and cut it if it has more than `limit` bytes; whether it is short now.

        Writers wait only for the cut itself, which is tried once: whoever still reads an old state of the
        file puts it off.
        """
        log = self._path.with_name(self._path.name + "-wal")
        if not log.exists() or log.stat().st_size <= limit:
            return True
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            is_busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.OperationalError:
            return False
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {round(database.BUSY_TIMEOUT * 1000)}")
        return not is_busy

    def rewrite(self) -> None:
        """Write the whole file anew, so that no trace of what was deleted is left in it. Writers wait."""
        try:
            self._connection.execute("VACUUM")
        except sqlite3.Error as error:
            raise database.unusable(self._path, error) from error

    def _forget(self, statement: str, ids: list[int]) -> None:
        if ids:
            self._connection.execute(statement, {"ids": json.dumps(ids)})

    def _slices(self, remove: Callable[[], int], *, most: int = ROWS) -> int:
        """Remove slice after slice in one transaction, until there is no more or its time is up."""
        removed = 0
        started = monotonic()
        with self._transaction():
            while removed < most and (count := remove()):
                removed += count
                if monotonic() - started > BUDGET:
                    break
        return removed

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise database.unusable(self._path, error) from error
        sleep(REST)
