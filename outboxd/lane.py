"""The lane: whether deliveries may go on, and the breaker that stops them. Pure.

Some failures are not an event's fault: a revoked key, an address Brevo does not accept, a used-up rate
limit, a network that is down. Then the whole lane stops and no attempt is spent, until one call that is
let through as a probe finds Brevo well again.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from outboxd.backoff import Backoff
from outboxd.event import Outcome, Verdict

RUN = 5
"""So many failures to reach Brevo, one after the other, are not any event's fault."""

LONGEST_WAIT = timedelta(hours=1)
"""The longest that Brevo is believed when it says how long to wait: its budgets are by the hour."""

PROBES = Backoff(first=timedelta(seconds=5), cap=timedelta(minutes=2), jitter=0.0)
"""When a stopped lane is probed."""


@dataclass(frozen=True, slots=True)
class Lane:
    """`state` running, waiting (Brevo said for how long) or blocked; `until` is when the next call may go,
    and `since` when the lane stopped.
    """

    state: str = "running"
    reason: str | None = None
    until: datetime | None = None
    failures: int = 0
    stops: int = 0
    since: datetime | None = None

    @classmethod
    def left(cls, state: str | None, now: datetime) -> "Lane":
        """The lane as another process left it, by what it kept: of a blocked one a probe must tell whether
        Brevo is well again.
        """
        told = json.loads(state or "{}")
        return cls("blocked", told.get("reason"), now) if told.get("state") == "blocked" else cls()

    def room(self, now: datetime) -> int | None:
        """How many deliveries may begin: None for any number, one as a probe, none while stopped."""
        if self.state == "running":
            return None
        return 0 if self.until is not None and now < self.until else 1

    def stopped_for(self, now: datetime) -> float:
        """Seconds until it lets anything go."""
        until = None if self.state == "running" else self.until
        return (until - now).total_seconds() if until is not None else 0.0

    def outlasts(self, patience: timedelta, now: datetime) -> bool:
        """Whether nothing goes now, and, unless the lane is blocked, not for longer than `patience` since it
        stopped: several waits in turn are one.
        """
        if self.stopped_for(now) <= 0:
            return False
        if self.state != "waiting" or self.until is None or self.since is None:
            return True
        return self.until - self.since > patience

    def shifted(self, by: timedelta) -> "Lane":
        """As it is after the clock was set by so much."""
        until, since = (None if moment is None else moment + by for moment in (self.until, self.since))
        return replace(self, until=until, since=since)

    def judge(self, outcome: Outcome, now: datetime) -> tuple["Lane", Outcome]:
        """The lane after `outcome`, and the outcome: a failure in a run of them is nobody's attempt."""
        if outcome.call is None:
            return self, outcome
        failures = self.failures + 1 if outcome.is_network else 0
        was_under_way = self.state == "waiting" and self.until is not None and now < self.until
        is_probe = self.state != "running" and not was_under_way
        if outcome.is_network and (failures >= RUN or is_probe):
            outcome = replace(outcome, verdict=Verdict.BLOCKED)
        if outcome.verdict is not Verdict.BLOCKED:
            if was_under_way:  # before Brevo said to wait
                return self, outcome
            return (replace(self, failures=failures) if failures else Lane()), outcome
        since = self.since or now
        if outcome.wait is not None:
            wait = min(outcome.wait, LONGEST_WAIT)
            until = now + wait
            if self.until is not None and self.state == "waiting":
                until = max(until, self.until)
            return Lane("waiting", outcome.detail, until, since=since), outcome
        is_news = self.state != "blocked" or self.until is None or now >= self.until
        stops = self.stops + 1 if is_news else self.stops
        probe_at = now + PROBES.delay(stops) if is_news else self.until
        if outcome.is_network:  # perhaps it is this one alone that cannot be told: the next probe is another
            outcome = replace(outcome, retry_at=probe_at)
        return Lane("blocked", outcome.detail, probe_at, failures, stops, since), outcome
