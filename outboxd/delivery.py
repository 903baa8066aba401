"""A delivery: one claim is understood, folded and carried to Brevo. It knows no database.

Runs in a thread of the relay's pool, and always ends in a Result, whatever happens.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, Protocol

from outboxd import sources
from outboxd.backoff import Backoff
from outboxd.errors import EventError
from outboxd.event import (
    FINISHED_WELL,
    NO_ADDRESS,
    Attribute,
    Change,
    Claim,
    Contact,
    Event,
    Kind,
    Nothing,
    Outcome,
    Remove,
    Result,
    Statement,
    Unaddressed,
    Upsert,
    Verdict,
)
from outboxd.fold import Policy, fold
from outboxd.logs import line, logger
from outboxd.mapping import needs_document, statement
from outboxd.payload import parse


class Courier(Protocol):
    """Whoever carries a change to Brevo."""

    @property
    def longest(self) -> timedelta:
        """How long one change can take at the most."""

    def attributes(self, wanted: Collection[str]) -> Mapping[str, Attribute] | Outcome:
        """What the account can hold, by name, as fresh as `wanted` needs it, or why that is unknown."""

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
    enabled: bool = True
    region: str | None = None
    reading: sources.Options = sources.DEFAULTS


ASIDE = timedelta(milliseconds=100)
"""How long a claim steps aside whose address is in another one's hands."""

Said = tuple[Event, Statement]
"""An event, and what it says."""


class Delivery:
    """Carries claims through one courier. Safe for many threads."""

    def __init__(self, courier: Courier, plan: Plan, *, clock: Callable[[], datetime]) -> None:
        self._courier = courier
        self._plan = plan
        self._clock = clock
        self._addresses = _Addresses()
        self._wanted = frozenset(attribute for name, attribute in plan.rules.items() if name != "email")

    def carry(self, claim: Claim) -> Result:
        """Fold and deliver `claim`; a bug of ours is a failed attempt, not the end of the daemon."""
        load = _Load(claim, claim.contact, self._plan.policy)
        try:
            self._deliver_all(load)
        except Exception as error:
            logger.error(line("bug", event=claim.events[0].id, error=type(error).__name__, at=place(error)))
            failed = Outcome(Verdict.RETRY, detail=f"internal error: {type(error).__name__}")
            for event in claim.events:
                load.outcomes.setdefault(event.id, failed)
        return load.result()

    def end(self, claim: Claim) -> None:
        """The result of `claim` is recorded: others may have its addresses."""
        self._addresses.leave(claim)

    def _deliver_all(self, load: "_Load") -> None:
        catalogue = self._courier.attributes(self._wanted) if self._wanted else {}
        if isinstance(catalogue, Outcome):
            load.outcomes = dict.fromkeys((event.id for event in load.claim.events), catalogue)
            return
        fixed = frozenset(each.name for each in catalogue.values() if not each.can_be_emptied)
        load.policy = replace(load.policy, fixed=fixed)
        for event in load.claim.events:
            spoken = self._statement(event, catalogue)
            if isinstance(spoken, Outcome):
                load.outcomes[event.id] = spoken
            else:
                load.said.append((event, spoken))
        load.said.sort(key=lambda pair: pair[1].stamp)
        if not self._addresses.take(load.claim, load.addresses()):
            waits = Outcome(Verdict.BLOCKED, retry_at=self._clock() + ASIDE)
            load.outcomes = dict.fromkeys((event.id for event, _ in load.said), waits) | load.outcomes
            return
        for part in _parts(load.contact, load.said):
            self._settle(load, part)
            if load.is_stopped(part):
                break

    def _statement(self, event: Event, catalogue: Mapping[str, Attribute]) -> Statement | Outcome:
        plan = self._plan
        if event.attempts > plan.backoff.max_attempts:
            detail = f"gave up: {event.attempts - 1} attempts began and none of them ended"
            return Outcome(Verdict.REFUSED, detail=detail)
        try:
            payload = parse(event.payload)
            reading = sources.read(event.source, event.event, payload, plan.reading)
            if reading.kind is Kind.NOTHING:
                return Outcome(Verdict.UNCHANGED, detail=reading.note)
            document = sources.document(payload) if needs_document(plan.rules) else None
            return statement(
                event, reading, plan.rules, document=document, catalogue=catalogue, region=plan.region
            )
        except EventError as error:
            return Outcome(Verdict.REFUSED, detail=reason(error))

    def _settle(self, load: "_Load", said: Sequence[Said]) -> None:
        """Deliver these events as one change; if that is refused, in halves, down to the culprit."""
        folded = fold(load.contact, [spoken for _, spoken in said], load.policy)
        tried = [event.created_at for event, _ in said if event.was_tried]
        outcome = self._deliver(load, folded.change, min(tried, default=None))
        if outcome is None:
            return
        load.calls += outcome.calls
        if outcome.verdict is Verdict.REFUSED and outcome.call and len(said) > 1:
            middle = len(said) // 2
            load.contact = replace(load.contact, email=load.contact.email or folded.contact.email)
            for half in (said[:middle], said[middle:]):
                self._settle(load, half)
                if load.is_stopped(half):
                    break
            return
        for event, spoken in said:
            is_void = spoken.stamp.event_id in folded.superseded and outcome.verdict in FINISHED_WELL
            load.outcomes[event.id] = VOID if is_void else outcome
        if outcome.verdict in FINISHED_WELL:
            load.contact = folded.contact
            if outcome.holds is not None:
                held = {n: each for n, each in load.contact.fields.items() if n in outcome.holds}
                load.contact = replace(load.contact, fields=held)

    def _deliver(self, load: "_Load", change: Change, tried_since: datetime | None) -> Outcome | None:
        """The outcome of a change; None if the lease leaves no time for a call."""
        match change:
            case Nothing(verdict, detail):
                return Outcome(verdict, detail=detail)
            case Unaddressed():
                return Outcome(Verdict.REFUSED, error_code=NO_ADDRESS, detail=_no_address(load.contact))
            case Upsert() | Remove():
                if self._clock() > load.claim.until - self._courier.longest:
                    return None
                if isinstance(change, Upsert):
                    change = replace(change, tried_since=tried_since)
                return self._courier.deliver(change)


VOID = Outcome(Verdict.SUPERSEDED, detail="the customer was deleted; only a newer creation brings one back")


class _Addresses:
    """Which addresses are in play. Brevo knows contacts by address, so no two customers' deliveries may meet
    at one: a swap, or a new account at the address of one that is just deleted, would mix them up.
    """

    def __init__(self) -> None:
        self._taken: dict[str, Claim] = {}
        self._lock = Lock()

    def take(self, claim: Claim, addresses: set[str]) -> bool:
        """Take all of them, or none and False."""
        with self._lock:
            if any(address in self._taken for address in addresses):
                return False
            self._taken.update(dict.fromkeys(addresses, claim))
            return True

    def leave(self, claim: Claim) -> None:
        """Let go of what `claim` took."""
        with self._lock:
            self._taken = {address: by for address, by in self._taken.items() if by is not claim}


@dataclass(slots=True)
class _Load:
    """One claim under delivery: the contact as it is by now, and what became of the events so far."""

    claim: Claim
    contact: Contact
    policy: Policy
    said: list[Said] = field(default_factory=list)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    calls: int = 0

    def addresses(self) -> set[str]:
        """Every address that the contact has, had, or may be given."""
        named = {spoken.email for _, spoken in self.said} | {self.contact.email, self.contact.synced_email}
        return {address for address in named if address is not None}

    def is_stopped(self, said: Sequence[Said]) -> bool:
        """Whether some of these events must wait, so that what follows them must, too."""
        return any(self.outcomes.get(event.id, _STOP).verdict in _STOPS for event, _ in said)

    def result(self) -> Result:
        """The end of it."""
        redactions = [event.id for event, spoken in self.said if spoken.kind is Kind.REDACTED]
        was_redacted = any(self.outcomes.get(id_, _STOP).verdict in FINISHED_WELL for id_ in redactions)
        return Result(
            self.claim,
            self.outcomes,
            self.contact,
            calls=self.calls,
            left_out={event.id: spoken.left_out for event, spoken in self.said if spoken.left_out},
            is_redacted=was_redacted or self.contact.is_redacted,
        )


_STOP = Outcome(Verdict.BLOCKED)
_STOPS = frozenset({Verdict.RETRY, Verdict.BLOCKED})


def _parts(contact: Contact, said: Sequence[Said]) -> list[Sequence[Said]]:
    """The events in the parts in which they are to be delivered: all at once, or address by address.

    An attempt whose end is unknown may have given the contact any address of the events that it was about.
    Where several are in play those events are delivered in the order of their addresses before newer ones
    are taken in: folded away, an address could leave a contact behind that nobody knows of.
    """
    addresses = {spoken.email for _, spoken in said if spoken.email} | {contact.synced_email}
    if len(addresses - {None}) < 2:
        return [said] if said else []
    parts: list[list[Said]] = []
    address = None
    for event, spoken in said:
        if not event.was_tried:
            continue
        if not parts or (spoken.email and address and spoken.email != address):
            parts.append([])
        address = spoken.email or address
        parts[-1].append((event, spoken))
    fresh = [pair for pair in said if not pair[0].was_tried]
    return [*parts, fresh] if fresh else [*parts]


def _no_address(contact: Contact) -> str:
    return (
        f"no address is known for customer {contact.customer_key}: no event has named one; "
        "as soon as one does, this event is tried again"
    )


def reason(error: EventError) -> str:
    """Why an event cannot be read, and what would help."""
    return f"{error}; {error.hint}" if error.hint else str(error)


def place(error: BaseException) -> str:
    """File and line of a bug: enough to find it, and nothing of the data it was at."""
    trace: Any = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
