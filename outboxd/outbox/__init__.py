"""The outbox: whatever writes to it, and what must be read to write it; the SQL stands in `statements`.

Each method opens exactly one transaction, begun IMMEDIATE, and touches a few hundred rows at most.
A customer's oldest pending event is its head; the head's `next_attempt_at` is the customer's one clock:
in the future while it backs off and while it is leased, so that a crash needs nobody to clean up.
"""

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import Any

from outboxd import database
from outboxd.anchor import Anchor
from outboxd.clock import from_text, to_text
from outboxd.errors import AdriftError
from outboxd.event import Claim, Event, Others, Result
from outboxd.locks import turn
from outboxd.notices import Wanted
from outboxd.outbox import contacts, customers, dead, doubts, endings, erasing, imports, recording, statements
from outboxd.outbox.customers import Admission
from outboxd.outbox.leases import Leases
from outboxd.outbox.notifications import Notices
from outboxd.outbox.rows import at_once, event_of, execute, many

__all__ = ["CHUNK", "FOLDED", "Admission", "Outbox"]

CHUNK = 25
"""Rows in one transaction: other writers wait for it to end, and are to wait five milliseconds at most."""

IMPORTED = 200
"""And rows of an import: what it leaves goes in batches, which are to be full."""

FOLDED = 200
"""Events of one customer in a claim at most: they are one call, and calls are what is scarce."""

NOTHING = Wanted()

EVER = datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)

AHEAD = timedelta(minutes=1)
"""The clocks of programs on one host do not differ by as much."""

REST = 0.001
"""Seconds between two of our transactions at least, …"""

LONGER = 1.5
"""… and so many times as long as the last one took: whoever waits to write looks again only after 1, 2, 5
milliseconds (SQLite's busy handler), and would find the next one.
"""

IN_MEMORY = "PRAGMA temp_store = MEMORY"
"""A statement's journal becomes a file once it is 64 kB, which is made and written while everybody waits for
the lock. Statements write few rows here, and sorters and temporary tables are small.
"""

CACHE = "PRAGMA cache_size = -1024"
"""Kilobytes of pages that are kept of what is written: more than one transaction changes, …"""

GLANCE = "PRAGMA cache_size = -256"
"""… and of what is only looked at, such as contacts, each of them once."""

SPARE = 0.005
"""Seconds of rest that are saved up while there is nothing to do: one event's transactions go at once."""


class Outbox:
    """The writing side of one database. `default_source` is whose events those without a source are; `wanted`
    is what the operator wants to be told of. `quiet` is entered for the time of each transaction.
    """

    def __init__(self, path: Path, *, default_source: str, wanted: Wanted = NOTHING) -> None:
        self.path = path
        self.default_source = default_source
        self.anchor = Anchor(path)
        self._writer = database.connect(path)
        for setting in (IN_MEMORY, CACHE):
            self._writer.execute(setting)
        self._watch = database.connect(path, read_only=True)
        self._watch.execute(GLANCE)
        with database.explained(path):  # the log, too: later others may lie at these places
            with turn(path):
                database.keep_log(path, self._writer)  # a copy that was put here has none yet
            self._watch.execute("PRAGMA data_version").fetchone()
        self.anchor.hold_log()
        self._is_log_settled = self.is_log_lost = False
        self._looking, self._writing = Lock(), Lock()
        self._rested_at = 0.0
        self.quiet: Callable[[], AbstractContextManager[object]] = nullcontext
        self.asked_at = monotonic()
        self.imports = imports.Ledger(self._transaction, chunk=IMPORTED, default_source=default_source)
        self.leases = Leases(self._transaction, default_source=default_source)
        self.notices = Notices(self._transaction, self._look, wanted)
        self.erasing = erasing.Erasing(self._transaction, chunk=CHUNK, default_source=default_source)

    def close(self) -> None:
        """Close every connection; the last one folds the log into the file, if others have no other one."""
        with self._looking:  # who asks from another thread would ask what is no more
            if not self.anchor.is_log_of_others:
                self._watch.close()  # it only reads: as the last one it would leave the log as it is
            self._writer.close()
            self._watch.close()

    def _stay(self) -> None:
        """Raise AdriftError rather than go on with a file that nobody else sees."""
        self.asked_at = monotonic()
        if self.anchor.holds:
            return
        if self.anchor.holds_file:
            raise AdriftError(
                f"the log of {self.path} was removed while it was in use",
                hint="leave what ends in -wal and -shm alone: SQLite makes it, and removes it",
            )
        if self.path.exists():
            raise AdriftError(f"another file has taken the place of {self.path}")
        raise AdriftError(
            f"{self.path} was removed while it was in use", hint="outboxd restore BACKUP, or: outboxd migrate"
        )

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """What is open here, to be read, wherever its file is; a log that others do not see is empty, and
        gone as the file is, unless it `is_log_lost`: what others wrote to another one stands without it.

        It lies where that of the next file is looked for, and would be taken for it; later it may be that.
        """
        if not self._is_log_settled:
            with turn(self.path):
                is_outdated = self.anchor.holds_file and self.anchor.is_log_outdated
                self.is_log_lost = is_outdated or self.anchor.is_file_linked
                if not (self.is_log_lost or self.anchor.is_log_at_its_place):  # else others write by now
                    self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._is_log_settled = True
            if not (self.anchor.holds_file or self.is_log_lost):  # else it is nowhere but there
                self.anchor.discard_log()
        yield self._watch

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._stay()
        sleep(max(0.0, self._rested_at - monotonic()))
        began, took = monotonic(), 0.0
        try:
            with self.quiet(), self._writing, turn(self.path), database.immediate(self._writer):
                self._stay()
                began = monotonic()
                yield self._writer
            took = monotonic() - began
        except sqlite3.Error as error:
            raise database.unusable(self.path, error) from error
        finally:
            self._rested_at = max(self._rested_at, began - SPARE) + took + max(REST, LONGER * took)

    def _look(self, sql: str, **values: Any) -> list[Any]:
        with self._looking, database.explained(self.path):
            return self._watch.execute(sql, values).fetchall()

    # What a relay asks before it begins a transaction.

    def data_version(self) -> int:
        """A number that changes with every commit to the file, by any process."""
        self._stay()
        return int(self._look("PRAGMA data_version")[0][0])

    def fresh(self, limit: int = CHUNK) -> list[Event]:
        """The oldest events that nobody has admitted yet."""
        return list(self._events(self._look(statements.FRESH, limit=limit)))

    def next_due(
        self, *, is_backfill: bool = False, before: datetime | None = None, now: datetime | None = None
    ) -> datetime | None:
        """When the first head, written by `before`, is due, or its lease lapses; None if there is none.

        One that was written in the future of `now`, by a clock that was set back since, was written before.
        """
        values = {"before": to_text(before or EVER), "future": _future(now)}
        found = self._look(statements.NEXT_DUE, is_backfill=is_backfill, **values)
        return from_text(found[0][0]) if found else None

    def waiting(self, now: datetime, *, most: int) -> int:
        """How many customers have live events that are due; counted no further than `most`."""
        return int(self._look(statements.WAITING, now=to_text(now), most=most)[0][0])

    def live_waiting(self, after: datetime | None) -> int:
        """How many admitted live events, written after then, are pending and were not tried yet."""
        return int(self._look(statements.LIVE_WAITING, after=to_text(after) if after else "")[0][0])

    def others(self, customer_key: str, email: str) -> Others:
        """Who but this customer has the contact at this address. Safe for many threads."""
        return contacts.others(lambda sql, values: self._look(sql, **values), customer_key, email)

    def state(self, key: str) -> str | None:
        """What was kept under `key`."""
        return str(found[0][0]) if (found := self._look(statements.STATE, key=key)) else None

    # The life of an event.

    def admit(self, admissions: Sequence[Admission], now: datetime) -> int:
        """Give each event its customer, and each customer without one a head; end what ends here. Of an event
        that is about several customers each gets a copy.

        Returns how many came to customers who waited already.
        """
        with self._transaction() as connection:
            waiting = _still_fresh(connection, admissions)
            going_on = [admission for admission in waiting if admission.outcome is None]
            whose = customers.spread(connection, going_on)
            clocks = _clocks(connection, {key for _, key in whose})
            rows = []
            for event, key in whose:
                is_head = key not in clocks
                clocks.setdefault(key, to_text(min(event.created_at, now)))
                rows.append({"id": event.id, "key": key, "is_head": is_head, "at": clocks[key]})
            execute(connection, at_once(statements.ADMIT, rows))
            live = {key for event, key in whose if not event.is_backfill}
            connection.execute(statements.HURRY, {"keys": json.dumps(sorted(live))})
            ended = [(each.event, each.outcome, now) for each in waiting if each.outcome is not None]
            execute(connection, endings.finish(ended, now))
            execute(connection, endings.attempts(ended, now))
            execute(connection, endings.count(ended, 0, now))
            self.notices.write(connection, ended, {}, now)
        return sum(not row["is_head"] for row in rows)

    def claim(
        self,
        now: datetime,
        *,
        limit: int,
        lease: timedelta,
        is_backfill: bool = False,
        before: datetime | None = None,
    ) -> list[Claim]:
        """Lease up to `limit` customers whose head is due, with their pending events; attempts count now."""
        until = now + lease
        values = {
            "now": to_text(now),
            "before": to_text(before or EVER),
            "future": _future(now),
            "is_backfill": is_backfill,
            "limit": limit,
        }
        found: dict[str, list[Sequence[Any]]] = {}
        room = CHUNK
        with self._transaction() as connection:
            for *head, key, has_more in connection.execute(statements.DUE_HEADS, values).fetchall():
                rows: list[Sequence[Any]] = [head]
                if has_more:
                    of_customer = {"key": key, "limit": FOLDED}
                    pending = connection.execute(statements.PENDING_OF, of_customer)
                    rows.extend(row for row in pending if row[0] != head[0])
                room -= len(rows)
                if room < 0 and found:
                    break  # a part of them would be a call of its own
                found[key] = rows
            known = contacts.rows(connection, found)
            ids = json.dumps([row[0] for rows in found.values() for row in rows])
            connection.execute(statements.LEASE, {"ids": ids, "now": to_text(now), "until": to_text(until)})
        return [
            Claim(contacts.contact(known[key]), self._events(rows, 1), now, until)
            for key, rows in found.items()
        ]

    def record(self, results: Sequence[Result], now: datetime) -> list[Result]:
        """Write down what became of claims, all in one transaction; the next event becomes head.

        A claim whose lease was lost is left out: somebody else answers for it now. Returns the others.
        """
        writes = recording.writes(results, now)
        whose = {event.id: each.contact.customer_key for each in results for event in each.claim.events}
        with self._transaction() as connection:
            held = _held(connection, results)
            kept = [result for result in results if _is_held(result.claim, held)]
            if len(kept) < len(results):
                writes = recording.writes(kept, now)
            execute(connection, writes)
            tried = recording.attempts(kept)
            endings.warn(connection, tried, now)
            self.notices.write(connection, tried, whose, now)
            imports.release(connection, [result.claim for result in results])
        return kept

    def revive(self, ids: Collection[int], now: datetime) -> list[int]:
        """Make dead events pending again, with all their attempts before them; the ids that were dead."""
        revived: list[int] = []
        for chunk in _chunks(ids):
            with self._transaction() as connection:
                rows = dead.revive(connection, chunk, now)
                keys = {key for _, key in rows if key is not None}
                turns = [{"key": key, "at": to_text(now)} for key in sorted(keys)]
                execute(connection, at_once(statements.ELECT, turns))
            revived.extend(row[0] for row in rows)
        return revived

    def settle(self, found: Iterable[doubts.Doubt], now: datetime) -> frozenset[str]:
        """Believe what Brevo has, and tell again what should change it; the customers who had no news."""
        settled: set[str] = set()
        for chunk in doubts.chunks(found, CHUNK):
            with self._transaction() as connection:
                settled.update(each.customer_key for each in chunk if doubts.settle(connection, each, now))
        return frozenset(settled)

    def drop(self, ids: Collection[int], by: str, now: datetime) -> list[int]:
        """End dead events for good, by the word of the operator `by`; the ids that were dead."""
        dropped: list[int] = []
        for chunk in _chunks(ids):
            with self._transaction() as connection:
                dropped.extend(dead.drop(connection, chunk, by, now))
        return dropped

    def purge(self, customer_key: str) -> None:
        """Empty the payloads of a customer's finished events, and the details of the attempts at them."""
        ids = [row[0] for row in self._look(statements.KEPT_OF, key=customer_key)]
        for start in range(0, len(ids), CHUNK):
            chunk = {"ids": json.dumps(ids[start : start + CHUNK])}
            with self._transaction() as connection:
                connection.execute(statements.PURGE, chunk)
                connection.execute(statements.PURGE_ATTEMPTS, chunk)

    def save_state(
        self, values: Mapping[str, str], now: datetime, *, notice: tuple[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Write what `status` is to know of this process: its heartbeat, its lane; and a `notice` of it."""
        rows = [{"key": key, "value": value, "now": to_text(now)} for key, value in values.items()]
        with self._transaction() as connection:
            many(connection, endings.SAVE_STATE, rows)
            if notice is not None:
                self.notices.tell(connection, *notice, now)

    def shift(self, now: datetime, by: timedelta, under_way: Collection[str]) -> None:
        """The clock was set by so much: put right what waits; forward, only leases of those `under_way`."""
        told = f"{by.total_seconds():+.3f} seconds"
        with self._transaction() as connection:  # all or nothing, and of several drainers by one of them
            if by > timedelta(0):
                values = {"keys": json.dumps(sorted(under_way))}
                rows = connection.execute(statements.LEASED_TO, values)
            elif connection.execute(statements.SET_BACK, {"now": to_text(now)}).rowcount:
                rows = connection.execute(statements.AHEAD, {"now": to_text(now)})
                self.notices.shift(connection, now, told)
            else:
                return
            for ids in _chunks([row[0] for row in rows]):  # the journal of each statement is in memory
                connection.execute(statements.SHIFT, {"ids": json.dumps(ids), "by": told})

    def recount(self) -> None:
        """Correct the depth by counting. Only a foreign hand in the file can have made it wrong."""
        [(pending, dead)] = self._look(statements.OFF)  # what others finish meanwhile leaves both as far off
        if pending or dead:
            with self._transaction() as connection:
                connection.execute(statements.CORRECT, {"pending": pending, "dead": dead})

    def _events(self, rows: Iterable[Sequence[Any]], claims: int = 0) -> tuple[Event, ...]:
        return tuple(event_of(row, self.default_source, claims=claims) for row in rows)


def _future(now: datetime | None) -> str:
    """Whatever was written after this was not written by this clock as it is now."""
    return to_text(now + AHEAD if now else EVER)


def _chunks(ids: Collection[int]) -> Iterator[list[int]]:
    """`ids` in parts that fit into a transaction each."""
    wanted = list(ids)
    return (wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK))


def _still_fresh(connection: sqlite3.Connection, admissions: Sequence[Admission]) -> list[Admission]:
    """The events that no other drainer admitted meanwhile."""
    ids = json.dumps([admission.event.id for admission in admissions])
    fresh = {row[0] for row in connection.execute(statements.STILL_FRESH, {"ids": ids})}
    return [admission for admission in admissions if admission.event.id in fresh]


def _clocks(connection: sqlite3.Connection, keys: Collection[str]) -> dict[str, str]:
    """When the customers that have a head are due."""
    rows = connection.execute(statements.HEADS_OF, {"keys": json.dumps(sorted(keys))})
    return {row[0]: row[1] for row in rows}


def _held(connection: sqlite3.Connection, results: Sequence[Result]) -> dict[int, tuple[int, str]]:
    """The attempt number and the time of the claim that each pending event of `results` is under now."""
    ids = json.dumps([event.id for result in results for event in result.claim.events])
    rows = connection.execute(statements.HELD, {"ids": ids})
    return {row[0]: (row[1], row[2]) for row in rows}


def _is_held(claim: Claim, held: Mapping[int, tuple[int, str]]) -> bool:
    """Whether the lease is still this claim's: a later one has another attempt number, or another time."""
    claimed_at = to_text(claim.claimed_at)
    return all(held.get(event.id) == (event.attempts, claimed_at) for event in claim.events)
