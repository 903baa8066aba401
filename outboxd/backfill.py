"""Backfill: rows of exports become events in the outbox, each of them once, and behind all live ones.

What can be seen to be unusable is refused here. An event's key is made of what it says, so that the same file
again, after a crash or by mistake, writes only what is missing. This room knows neither formats nor Brevo.
"""

import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from time import monotonic, sleep
from types import MappingProxyType
from typing import Protocol, Self

from outboxd import database, intake, mapping, sources
from outboxd.clock import to_text
from outboxd.errand import reason
from outboxd.errors import EventError
from outboxd.event import Kind, Reading
from outboxd.exports import Export, Refusal, Row
from outboxd.locks import turn
from outboxd.outbox import CHUNK, REST
from outboxd.pool import Pooled

EVENT = "customer_updated"
"""News of somebody who is there: it makes a contact, and never brings back who was deleted."""

INSERT = f"""
INSERT INTO outbox (event, is_backfill,
    payload, source, occurred_at, idempotency_key, created_at, next_attempt_at)
VALUES ('{EVENT}', 1, ?, ?, ?, ?, ?, ?)
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True)
class Entry:
    """A row that is fit to be written. `occurred_at`, as text, is None where the row says its own time."""

    number: int
    payload: str
    reading: Reading
    occurred_at: str | None
    key: str


class Sink(Protocol):
    """Where entries go. `kinds` names what can become of one, and `counts` says how often it did.

    `details` tell more, each as a count by reasons or the like.
    """

    kinds: tuple[str, ...]
    counts: Counter[str]

    @property
    def details(self) -> Mapping[str, Counter[str]]: ...

    def put(self, entries: Sequence[Entry]) -> Sequence[Refusal]:
        """Take up to a chunk of entries; those that are taken and turn out to be unusable after all."""


def pour(
    export: Export,
    sink: Sink,
    *,
    source: str,
    options: sources.Options,
    refuse: Callable[[Refusal], None],
    step: Callable[[int, int], None],
) -> None:
    """Every row of `export` into `sink`, chunk by chunk; `step` is told how many rows and bytes each was."""
    position = 0
    found = entries(export, source=source, options=options)
    while chunk := list(itertools.islice(found, CHUNK)):
        for refusal in (each for each in chunk if isinstance(each, Refusal)):
            refuse(refusal)
        for refusal in sink.put([each for each in chunk if isinstance(each, Entry)]):
            refuse(refusal)
        step(len(chunk), export.tape.position - position)
        position = export.tape.position


def entries(export: Export, *, source: str, options: sources.Options) -> Iterator[Entry | Refusal]:
    """The rows of `export`, read as those of `source`."""
    as_of = to_text(export.as_of)
    for row in export.rows(source.partition(":")[0]):
        if isinstance(row, Refusal):
            yield row
            continue
        try:
            yield entry(row, source=source, options=options, as_of=as_of)
        except EventError as error:
            yield Refusal(row.number, reason(error))


def entry(row: Row, *, source: str, options: sources.Options, as_of: str) -> Entry:
    """The event that `row` is. Raises EventError, whose text holds nothing of the row."""
    payload = intake.checked(EVENT, row.data)[1]
    reading = sources.read(source, EVENT, row.data, options)
    if reading.kind is not Kind.NOTHING and not _is_plain_address(reading.email):
        mapping.address(reading)
    occurred_at = as_of if reading.version_at is None else None
    said = f"{source}\n{occurred_at or ''}\n{payload}"
    key = f"backfill:{hashlib.sha256(said.encode()).hexdigest()[:32]}"
    return Entry(row.number, payload, reading, occurred_at, key)


_PLAIN = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")


def _is_plain_address(email: str | None) -> bool:
    """Whether it need not be looked at closely: a million customers share few domains."""
    if email is None or len(email) > 100:
        return False
    local, _, domain = email.partition("@")
    return len(local) <= 64 and _PLAIN.fullmatch(local) is not None and _is_domain(domain.lower())


@lru_cache(maxsize=4096)
def _is_domain(domain: str) -> bool:
    try:
        return mapping.address(Reading(Kind.UPDATED, None, f"a@{domain}")) is not None
    except EventError:
        return False


class Writer:
    """Writes entries to the outbox at `path`, a chunk a transaction, in turn with other producers.

    `counts`: written, and repeated (written before, by this run or an earlier one). What they count is
    committed, wherever a run is broken off.
    """

    kinds: tuple[str, ...] = ("written", "repeated")
    details: Mapping[str, Counter[str]] = MappingProxyType({})

    def __init__(self, path: Path, pooled: Pooled, *, source: str, now: Callable[[], datetime]) -> None:
        self.counts: Counter[str] = Counter()
        self._path = path
        self._pooled = pooled
        self._connection = pooled.connection
        self._source = source
        self._now = now
        self._rested_at = 0.0

    @classmethod
    @contextmanager
    def of(cls, path: Path, *, source: str, now: Callable[[], datetime]) -> Iterator[Self]:
        """A writer to the outbox at `path`, which must be of this version's schema."""
        with closing(Pooled(os.path.realpath(path), path)) as pooled:
            connection = pooled.connection
            with database.explained(path):
                database.check_revision(path, database.revision(connection))
                # Keys are hashes, so that each chunk touches pages all over their index: carried into the
                # file as often as others do, they would be written again and again.
                connection.execute(f"PRAGMA wal_autocheckpoint = {database.LOG_LIMIT // database.PAGE_SIZE}")
            yield cls(path, pooled, source=source, now=now)

    def put(self, entries: Sequence[Entry]) -> Sequence[Refusal]:
        """Write what was not written before. Raises DatabaseError and its like."""
        if not entries:
            return ()
        sleep(max(0.0, self._rested_at - monotonic()))
        with database.explained(self._path), turn(self._path):
            self._write(entries)
        self._rested_at = monotonic() + REST
        return ()

    def _write(self, entries: Sequence[Entry]) -> None:
        moment = to_text(self._now())
        written: int | None = None
        try:
            self._pooled.begin()
            written = self._connection.executemany(
                INSERT, (self._row(entry, moment) for entry in entries)
            ).rowcount
            self._connection.execute("COMMIT")
        finally:  # Ctrl-C may come at any point, also between the commit and what follows it
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            elif written is not None:
                self.counts.update(written=written, repeated=len(entries) - written)

    def _row(self, entry: Entry, moment: str) -> tuple[str | None, ...]:
        return entry.payload, self._source, entry.occurred_at, entry.key, moment, moment
