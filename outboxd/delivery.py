"""A delivery: one claim is understood, folded and carried to Brevo. It knows no database.

Runs in a thread of the relay's pool, and always ends in a Result, whatever happens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from outboxd import sources
from outboxd.backoff import Backoff
from outboxd.errors import EventError
from outboxd.event import (
    FINISHED_WELL,
    Change,
    Claim,
    Contact,
    Event,
    Impossible,
    Kind,
    Nothing,
    Outcome,
    Reading,
    Remove,
    Result,
    Statement,
    Upsert,
    Verdict,
)
from outboxd.fold import Policy, fold
from outboxd.logs import line, logger
from outboxd.mapping import statement
from outboxd.payload import parse


class Courier(Protocol):
    """Whoever carries a change to Brevo."""

    def deliver(self, change: Upsert | Remove) -> Outcome:
        """Carry it out; never raises for what Brevo or the network does."""

    def room(self) -> int:
        """How many calls may leave now."""

    def wait(self) -> float:
        """Seconds until a call may leave."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the configuration says of every delivery."""

    rules: Mapping[str, str]
    policy: Policy
    backoff: Backoff = field(default_factory=Backoff)
    workers: int = 8
    timeout: timedelta = timedelta(seconds=10)
    enabled: bool = True

    @property
    def lease(self) -> timedelta:
        """Longer than any delivery: its calls, their wait for the limiter, and the healing of each."""
        return timedelta(seconds=30) + 8 * self.timeout


class Delivery:
    """Carries claims through one courier. Safe for many threads."""

    def __init__(self, courier: Courier, plan: Plan, *, clock: Callable[[], datetime]) -> None:
        self._courier = courier
        self._plan = plan
        self._clock = clock

    def carry(self, claim: Claim) -> Result:
        """Fold and deliver `claim`; a bug of ours is a failed attempt, not the end of the daemon."""
        outcomes: dict[int, Outcome] = {}
        contact = claim.contact
        try:
            said: list[tuple[Event, Statement]] = []
            for event in claim.events:
                spoken = self._statement(event)
                if isinstance(spoken, Outcome):
                    outcomes[event.id] = spoken
                else:
                    said.append((event, spoken))
            said.sort(key=lambda pair: pair[1].stamp)
            if said:
                contact = self._settle(claim, contact, said, outcomes)
        except Exception as error:
            logger.error(line("bug", event=claim.events[0].id, error=type(error).__name__, at=_place(error)))
            failed = Outcome(Verdict.RETRY, detail=f"internal error: {type(error).__name__}")
            for event in claim.events:
                outcomes.setdefault(event.id, failed)
        return Result(claim, outcomes, contact)

    def _statement(self, event: Event) -> Statement | Outcome:
        if event.attempts > self._plan.backoff.max_attempts:
            return Outcome(
                Verdict.REFUSED, detail=f"gave up: {event.attempts - 1} attempts began and none of them ended"
            )
        try:
            reading = understand(event)
        except EventError as error:
            return Outcome(Verdict.REFUSED, detail=reason(error))
        if reading.kind is Kind.NOTHING:
            return Outcome(Verdict.UNCHANGED, detail=reading.note)
        return statement(event, reading, self._plan.rules)

    def _settle(
        self,
        claim: Claim,
        contact: Contact,
        said: Sequence[tuple[Event, Statement]],
        outcomes: dict[int, Outcome],
    ) -> Contact:
        """Deliver these events as one change; if that is refused, in halves, down to the culprit."""
        folded = fold(contact, [spoken for _, spoken in said], self._plan.policy)
        outcome = self._deliver(claim, folded.change)
        if outcome is None:
            return contact
        if outcome.verdict is Verdict.REFUSED and outcome.call and len(said) > 1:
            middle = len(said) // 2
            contact = replace(contact, email=contact.email or folded.contact.email)
            for half in (said[:middle], said[middle:]):
                contact = self._settle(claim, contact, half, outcomes)
                if any(outcomes.get(event.id, _STOP).verdict in _STOPS for event, _ in half):
                    break
            return contact
        for event, spoken in said:
            is_void = spoken.stamp.event_id in folded.superseded and outcome.verdict in FINISHED_WELL
            void = Outcome(Verdict.SUPERSEDED, detail="the customer was deleted after this")
            outcomes[event.id] = void if is_void else outcome
        return folded.contact if outcome.verdict in FINISHED_WELL else contact

    def _deliver(self, claim: Claim, change: Change) -> Outcome | None:
        """The outcome of a change; None if the lease leaves no time for a call."""
        match change:
            case Nothing(verdict, detail):
                return Outcome(verdict, detail=detail)
            case Impossible(detail):
                return Outcome(Verdict.REFUSED, detail=detail)
            case Upsert() | Remove():
                if self._clock() > claim.until - self._plan.lease / 2:
                    return None
                if isinstance(change, Upsert) and claim.events[0].attempts > 1:
                    change = replace(change, tried_since=claim.events[0].created_at)
                return self._courier.deliver(change)


_STOP = Outcome(Verdict.BLOCKED)
_STOPS = frozenset({Verdict.RETRY, Verdict.BLOCKED})


def understand(event: Event) -> Reading:
    """What the event's preset understands of it. Raises EventError."""
    return sources.read(event.source, event.event, parse(event.payload))


def reason(error: EventError) -> str:
    """Why an event cannot be read, and what would help."""
    return f"{error}; {error.hint}" if error.hint else str(error)


def _place(error: BaseException) -> str:
    """File and line of a bug: enough to find it, and nothing of the data it was at."""
    trace: Any = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
