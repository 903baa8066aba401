"""Prune: what is over and past its time leaves, a small step at a time.

The daemon takes a step whenever it has nothing better to do, and now and then when it has; by hand all
steps are taken one after the other. It knows the order of the steps and when the next one is due, no SQL.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from outboxd.errors import OutboxdError
from outboxd.logs import line, logger
from outboxd.outbox.pruning import Pruning
from outboxd.retention import Retention
from outboxd.trouble import Trouble

SWEEP = timedelta(minutes=1)
"""After so long it is looked again whether anything has come of age."""

BUSY = timedelta(milliseconds=20)
"""Between two steps while there are events to deliver: enough to keep up with any shop, and no more."""


class Step(NamedTuple):
    """What one step removed (`number`; of attempts: at how many events), by the name it has in the report."""

    what: str
    number: int


class Pruner:
    """The pruning of the database at `path`, as far as `retention` allows, for whoever calls `step`."""

    def __init__(self, path: Path, retention: Retention) -> None:
        self._pruning = Pruning(path)
        self._retention = retention
        self._next_at: datetime | None = None
        self._pruned = 0
        self._trouble = Trouble(at="prune")

    def close(self) -> None:
        self._pruning.close()

    def step(self, now: datetime, *, is_idle: bool) -> float:
        """Take one step if it is time to; seconds until the next one. What fails is told, and waits."""
        if self._next_at is None or not now < self._next_at <= now + SWEEP:
            self._next_at = now + self._step(now, is_idle=is_idle)
        return (self._next_at - now).total_seconds()

    def _step(self, now: datetime, *, is_idle: bool) -> timedelta:
        try:
            taken = step(self._pruning, self._retention, now)
        except OutboxdError as error:
            self._trouble.tell(error)
            return SWEEP
        self._trouble.over()
        if taken is not None:
            self._pruned += taken.number if taken.what == "events" else 0
            return timedelta(0) if is_idle else BUSY
        if self._pruned:
            logger.info(line("pruned", events=self._pruned))
        self._pruned = 0
        return SWEEP


def step(pruning: Pruning, retention: Retention, now: datetime) -> Step | None:
    """One step of a sweep; None when the sweep is over.

    Pages go before more of them are freed: for each that the file gives back SQLite searches the list of all
    that are free.
    """
    if count := pruning.shrink():
        return Step("pages", count)
    for what, remove in (
        ("events", pruning.events),
        ("dropped", pruning.dropped),
        ("attempts", pruning.attempts),
        ("notifications", pruning.notifications),
        ("imports", pruning.imports),
        ("counters", pruning.counters),
    ):
        if count := remove(retention, now):
            return Step(what, count)
    pruning.cut_log()
    return None


def sweep(pruning: Pruning, retention: Retention, now: datetime) -> Iterator[Step]:
    """Every step there is to take at `now`, one after the other."""
    while taken := step(pruning, retention, now):
        yield taken
