"""Pace: which events may go now, and whether alone or together.

`sync_mode` decides for live events: realtime sends each customer's at once, batch lets them wait for a
window, hybrid is realtime until too many wait. Backfilled events go together always, and after live ones.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from outboxd.clock import from_text, to_text
from outboxd.event import Event, Result
from outboxd.logs import line, logger
from outboxd.notices import BATCH
from outboxd.outbox import Outbox
from outboxd.window import Rules, Window, from_state


@dataclass(frozen=True, slots=True)
class Pace:
    """Customers may go whose event is due, and was written by `before` (None: whenever)."""

    is_together: bool
    is_backfill: bool = False
    before: datetime | None = None


ALONE = Pace(is_together=False)
TOGETHER = Pace(is_together=True)
BACKFILL = Pace(is_together=True, is_backfill=True)


class Mode:
    """How live events are paced. On its own: every event at once, which is realtime."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def paces(self, now: datetime) -> list[Pace]:
        """Who may go now, the most urgent first."""
        return [TOGETHER if self._is_crowded(now) else ALONE, BACKFILL]

    @property
    def triggers(self) -> Sequence[Any]:
        """When that may change by itself, for an APScheduler …"""
        return ()

    def next_at(self) -> datetime | None:
        """… and the next time of all."""
        return None

    def told(self, results: Iterable[Result]) -> None:
        """What became of some of them."""

    def admitted(self, events: Iterable[Event]) -> None:
        """These have come in."""

    def rested(self, now: datetime) -> None:
        """Nobody who may go is left."""

    def demand(self, now: datetime) -> None:
        """Somebody wants whatever is there to go now."""

    def _is_crowded(self, now: datetime) -> bool:
        """Whether too many wait for each to go alone."""
        del now
        return False


class Hybrid(Mode):
    """Realtime, until working off what waits would take longer than `threshold` at `rate` calls a second."""

    def __init__(self, outbox: Outbox, *, threshold: timedelta, rate: float) -> None:
        super().__init__(outbox)
        self._most = max(2, round(threshold.total_seconds() * rate))
        self._was_crowded = False

    def _is_crowded(self, now: datetime) -> bool:
        enough = self._most // 2 if self._was_crowded else self._most
        is_crowded = self._outbox.waiting(now, most=enough + 1) > enough
        if is_crowded != self._was_crowded:
            logger.info(line("pace", together="yes" if is_crowded else "no"))
            self._was_crowded = is_crowded
        return is_crowded


class Batch(Mode):
    """Events wait for a window. What has had its window, and failed, is tried again whenever it is due."""

    def __init__(self, outbox: Outbox, rules: Rules, clock: Callable[[], datetime]) -> None:
        super().__init__(outbox)
        self._rules = rules
        self._window = Window(clock())
        self._waiting = 0
        self._is_resumed = False

    def paces(self, now: datetime) -> list[Pace]:
        self._resume(now)
        if (window := self._window.reckoned(now)) != self._window:
            self._save(window, now)
        flushed_at = self._outbox.state("flush")
        reason = self._window.due(
            self._rules,
            now,
            oldest=self._outbox.next_due(),
            waiting=self._waiting,
            flushed_at=from_text(flushed_at) if flushed_at else None,
        )
        if reason is not None:
            self._open(now, reason)
        horizon = self._window.opened_at
        return [Pace(is_together=True, before=horizon), BACKFILL] if horizon else [BACKFILL]

    @property
    def triggers(self) -> Sequence[Any]:
        return self._rules.schedule.triggers

    def next_at(self) -> datetime | None:
        openings = [self._window.next_at(self._rules)]
        oldest = self._outbox.next_due()
        if self._rules.max_wait is not None and oldest is not None and not self._window.is_open:
            openings.append(oldest + self._rules.max_wait)
        return min((at for at in openings if at is not None), default=None)

    def told(self, results: Iterable[Result]) -> None:
        self._window = self._window.told(results)

    def admitted(self, events: Iterable[Event]) -> None:
        horizon = self._window.opened_at
        self._waiting += sum(
            not event.is_backfill and (horizon is None or event.created_at > horizon) for event in events
        )

    def rested(self, now: datetime) -> None:
        if self._window.is_open:
            window = self._window.closed(now)
            told = {name: getattr(window, name) for name in ("delivered", "dead", "calls")}
            times = {"opened_at": window.opened_at, "closed_at": now}
            data = {"reason": window.reason, **{n: to_text(at) for n, at in times.items() if at}, **told}
            self._save(window, now, notice=(BATCH, data))
            logger.info(line("window", state="closed", **told))

    def demand(self, now: datetime) -> None:
        self._resume(now)
        self._open(now, "drain")

    def _resume(self, now: datetime) -> None:
        """Go on from where the last process was, at the first round: until then it may still be at work."""
        if self._is_resumed:
            return
        self._is_resumed = True
        self._window = from_state(json.loads(self._outbox.state("window") or "null"), now)
        if self._rules.max_events is not None:
            self._waiting = self._outbox.live_waiting(self._window.opened_at)
        self._save(self._window, now)

    def _open(self, now: datetime, reason: str) -> None:
        self._waiting = 0
        if not self._window.is_open:
            logger.info(line("window", state="open", reason=reason))
        self._save(self._window.opened(now, reason), now)

    def _save(
        self, window: Window, now: datetime, notice: tuple[str, Mapping[str, Any]] | None = None
    ) -> None:
        self._window = window
        state = {"window": json.dumps(window.as_state(self._rules))}
        self._outbox.save_state(state, now, notice=notice)
