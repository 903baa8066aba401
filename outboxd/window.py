"""Windows: when events that wait may go, and what became of those that went. Pure.

A window opens by its schedule, on demand, or early, because somebody has waited for too long or too many
wait. It takes in what was due when it opened, and closes when that is done. Its state is a mapping that
outlives the process, so that a window is neither missed nor forgotten half-way.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from outboxd.clock import from_text, to_text
from outboxd.event import FINISHED_WELL, Result, Verdict
from outboxd.schedule import Schedule

NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Rules:
    """When windows open: by `schedule`, and early."""

    schedule: Schedule
    max_wait: timedelta | None = None
    max_events: int | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """The latest window. Before the first one there is only `since`: when windows began to be counted.

    `opened_at` is its horizon, too: what was due by then goes in it.
    """

    since: datetime
    opened_at: datetime | None = None
    closed_at: datetime | None = None
    reason: str | None = None
    delivered: int = 0
    dead: int = 0
    calls: int = 0

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None and self.closed_at is None

    def next_at(self, rules: Rules) -> datetime | None:
        """When the schedule opens the next one; in the past if it was missed."""
        return rules.schedule.next_after(self.opened_at or self.since)

    def reckoned(self, now: datetime) -> "Window":
        """By a clock that may have been set back since: nothing has happened in the future."""
        opened_at, closed_at = self.opened_at, self.closed_at
        return replace(
            self,
            since=min(self.since, now),
            opened_at=opened_at and min(opened_at, now),
            closed_at=closed_at and min(closed_at, now),
        )

    def due(
        self,
        rules: Rules,
        now: datetime,
        *,
        oldest: datetime | None,
        waiting: int,
        flushed_at: datetime | None,
    ) -> str | None:
        """Why a window is to open now, if it is. `oldest` is since when the first of `waiting` events waits;
        `flushed_at` when somebody last asked for one.
        """
        scheduled = self.next_at(rules)
        if scheduled is not None and scheduled <= now:
            return "schedule"
        if flushed_at is not None and flushed_at <= now and flushed_at > (self.opened_at or NEVER):
            return "flush"
        if self.is_open:
            return None
        if rules.max_events is not None and waiting >= rules.max_events:
            return "max_events"
        if rules.max_wait is not None and oldest is not None and now >= oldest + rules.max_wait:
            return "max_wait"
        return None

    def opened(self, now: datetime, reason: str) -> "Window":
        """A new window; one that is open already takes in what has come since."""
        if self.is_open:
            return replace(self, opened_at=now)
        return Window(self.since, now, reason=reason)

    def told(self, results: Iterable[Result]) -> "Window":
        """With what became of some of its events."""
        if not self.is_open:
            return self
        delivered, dead, calls = self.delivered, self.dead, self.calls
        for result in results:
            verdicts = [outcome.verdict for outcome in result.outcomes.values()]
            delivered += sum(verdict in FINISHED_WELL for verdict in verdicts)
            dead += sum(verdict is Verdict.REFUSED for verdict in verdicts)
            calls += result.calls
        return replace(self, delivered=delivered, dead=dead, calls=calls)

    def closed(self, now: datetime) -> "Window":
        """With its end."""
        return replace(self, closed_at=now)

    def as_state(self, rules: Rules) -> dict[str, Any]:
        """What is kept of it, and when the next one opens: JSON values."""
        kept = {name: _plain(value) for name, value in asdict(self).items()}
        return {**kept, "next_at": _plain(self.next_at(rules))}


def from_state(state: Mapping[str, Any] | None, now: datetime) -> Window:
    """The inverse of `as_state`; without any, windows count from now."""
    if not state:
        return Window(now)
    times = {name: state.get(name) for name in ("opened_at", "closed_at")}
    return Window(
        since=from_text(state["since"]),
        **{name: from_text(text) if text else None for name, text in times.items()},
        reason=state.get("reason"),
        delivered=int(state.get("delivered", 0)),
        dead=int(state.get("dead", 0)),
        calls=int(state.get("calls", 0)),
    )


def _plain(value: Any) -> Any:
    return to_text(value) if isinstance(value, datetime) else value
