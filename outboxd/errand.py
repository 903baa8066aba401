"""An errand: one claim on its way, change by change, whoever carries the changes.

It is understood and folded here; what Brevo is to be told next stands in `change`, and whoever told it
says what came of it. So one errand can be run alone, or a hundred of them side by side. Knows no database
and makes no call.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from outboxd import sources
from outboxd.backoff import Backoff
from outboxd.errors import EventError
from outboxd.event import (
    EMPTIED,
    FINISHED_WELL,
    NO_ADDRESS,
    Attribute,
    Claim,
    Contact,
    Event,
    Found,
    Kind,
    Nothing,
    Others,
    Outcome,
    Remove,
    Result,
    Settled,
    Statement,
    Unaddressed,
    Upsert,
    Verdict,
    illegible,
)
from outboxd.fold import Folded, fold
from outboxd.fold.life import GONE
from outboxd.fold.policy import Policy
from outboxd.fold.registers import UNKNOWN
from outboxd.keys import address_key
from outboxd.mapping import needs_document, statement
from outboxd.payload import parse


@dataclass(frozen=True, slots=True)
class Plan:
    """What the configuration says of every delivery. `updates`: contacts that exist already are changed."""

    rules: Mapping[str, str]
    policy: Policy
    backoff: Backoff = field(default_factory=Backoff)
    workers: int = 8
    batch_size: int = 100
    import_size: int = 20_000
    updates: bool = True
    enabled: bool = True
    region: str | None = None
    reading: sources.Options = sources.DEFAULTS


Said = tuple[Event, Statement]
"""An event, and what it says."""

Told = Outcome | Found
"""What came of a change."""

Steps = Generator[Upsert | Remove, Told, None]

VOID = Outcome(Verdict.SUPERSEDED, detail="the customer was deleted; only a newer creation brings one back")

_STOP = Outcome(Verdict.BLOCKED)
_STOPS = frozenset({Verdict.RETRY, Verdict.BLOCKED})


class Errand:
    """One claim under delivery: the contact as it is by now, and what became of the events so far.

    `change` is what Brevo is to be told next, None when the errand is over; `calls` counts those that were
    made; `addresses` are the keys of every one that the contact has, had, or may be given. `longest` is how
    long one change can take; none is begun that the lease might not outlast. `catalogue` None: unknown, so
    that values go as they are. `others` tells who else has a contact, by a customer's key and an address.
    """

    def __init__(
        self,
        claim: Claim,
        plan: Plan,
        catalogue: Mapping[str, Attribute] | None,
        others: Callable[[str, str], Others],
        *,
        clock: Callable[[], datetime],
        longest: timedelta,
    ) -> None:
        self.claim = claim
        self.contact = claim.contact
        self.change: Upsert | Remove | None = None
        self._plan = plan
        self._others = partial(others, claim.contact.customer_key)
        self._clock = clock
        self._last_start = claim.until - longest
        self._policy = replace(plan.policy, attributes=catalogue or {})
        self._said: list[Said] = []
        self._outcomes: dict[int, Outcome] = {}
        self._settled: list[Settled] = []
        self.calls = 0
        is_legible = claim.contact.is_legible
        for event in claim.events:
            spoken = _statement(event, plan, catalogue) if is_legible else _illegible(claim.contact)
            if isinstance(spoken, Outcome):
                self._outcomes[event.id] = spoken
            else:
                self._said.append((event, spoken))
        self._said.sort(key=lambda pair: pair[1].stamp)
        named = {spoken.email for _, spoken in self._said if spoken.email is not None}
        self.addresses = own_addresses(claim.contact) | set(map(address_key, named))
        self._steps = self._settle_all()

    @property
    def is_late(self) -> bool:
        """Whether the lease might not outlast another call."""
        return self._clock() > self._last_start

    def begin(self) -> None:
        """Find the first change."""
        self.change = next(self._steps, None)

    def tell(self, told: Told) -> None:
        """What came of `change`; finds the next one."""
        if isinstance(told, Outcome):
            self.calls += told.calls
        try:
            self.change = self._steps.send(told)
        except StopIteration:
            self.change = None

    def end(self, outcome: Outcome) -> None:
        """Nothing more is to be told: what is left of the events ends as `outcome`."""
        self._steps.close()
        self.change = None
        for event in self.claim.events:
            self._outcomes.setdefault(event.id, outcome)

    def result(self) -> Result:
        """What became of it. Events without an outcome were not tried."""
        redactions = [event.id for event, spoken in self._said if spoken.kind is Kind.REDACTED]
        was_redacted = any(self._outcomes.get(id_, _STOP).verdict in FINISHED_WELL for id_ in redactions)
        return Result(
            self.claim,
            self._outcomes,
            self.contact,
            calls=self.calls,
            left_out={event.id: spoken.left_out for event, spoken in self._said if spoken.left_out},
            is_redacted=was_redacted or self.contact.is_redacted,
            settled=self._settled,
        )

    def _settle_all(self) -> Steps:
        for part in _parts(self.contact, self._said):
            yield from self._settle(part)
            if self._is_stopped(part):
                break

    def _settle(self, said: Sequence[Said]) -> Steps:
        """Deliver these events as one change; if that is refused, in halves, down to the culprit."""
        tried = {event.id for event, _ in said if event.was_tried}
        statements = [spoken for _, spoken in said]
        folded = fold(self.contact, statements, self._policy, tried=tried, others=self._others)
        told: Told
        match folded.change:
            case Nothing(verdict, detail):
                told = Outcome(verdict, detail=detail)
            case Unaddressed():
                told = Outcome(Verdict.REFUSED, error_code=NO_ADDRESS, detail=_no_address(self.contact))
            case change:
                if self.is_late:
                    return
                if isinstance(change, Upsert):
                    since = [event.created_at for event, _ in said if event.was_tried]
                    change = replace(change, tried_since=min(since)) if since else change
                told = yield change
        before, after, void = self.contact, folded.contact, folded.superseded
        self._settled.append(Settled(said, before, folded.change, after, void, told))
        if isinstance(told, Found):
            self.contact = _as_found(self.contact, folded, told)
            return
        if told.verdict is Verdict.REFUSED and told.call and len(said) > 1:
            yield from self._settle_halves(said, folded)
            return
        for event, spoken in said:
            is_void = spoken.stamp.event_id in folded.superseded and told.verdict in FINISHED_WELL
            self._outcomes[event.id] = VOID if is_void else told
        if told.verdict in FINISHED_WELL:
            self.contact = folded.contact
            if told.holds is not None:
                self.contact = _holding(self.contact, told.holds)

    def _settle_halves(self, said: Sequence[Said], folded: Folded) -> Steps:
        middle = len(said) // 2
        self.contact = replace(self.contact, email=self.contact.email or folded.contact.email)
        for half in (said[:middle], said[middle:]):
            yield from self._settle(half)
            if self._is_stopped(half):
                break

    def _is_stopped(self, said: Sequence[Said]) -> bool:
        """Whether some of these events must wait, so that what follows them must, too."""
        return any(self._outcomes.get(event.id, _STOP).verdict in _STOPS for event, _ in said)


def own_addresses(contact: Contact) -> frozenset[str]:
    """The keys of the addresses that the contact has, and should have."""
    return frozenset(address_key(each) for each in {contact.email, contact.synced_email} if each is not None)


def _statement(event: Event, plan: Plan, catalogue: Mapping[str, Attribute] | None) -> Statement | Outcome:
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


def _illegible(contact: Contact) -> Outcome:
    mend = "restore a backup or mend the row, and then: outboxd retry --dead"
    return Outcome(Verdict.REFUSED, detail=f"{illegible(contact.customer_key)}; {mend}")


def _as_found(contact: Contact, folded: Folded, found: Found) -> Contact:
    """The contact as Brevo turned out to have it."""
    if found.holds is None:
        return replace(_holding(contact, frozenset()), synced_email=None)
    # What the fold means to empty is not empty before that has been told: it stays as it was believed to be.
    fields = {
        name: each
        for name, each in folded.contact.fields.items()
        if each.digest != EMPTIED or name in found.holds
    }
    there = replace(folded.contact, fields={**contact.fields, **fields})
    if not found.has_consent:
        there = replace(there, accepts_marketing=contact.accepts_marketing, consent_at=contact.consent_at)
    return _holding(there, found.holds)


def _holding(contact: Contact, names: frozenset[str]) -> Contact:
    """The contact of which only these attributes are known to be in Brevo.

    Of the others the versions stay: older news that comes late is no news, whatever Brevo has.
    """
    unsure = {
        name: each._replace(digest=UNKNOWN)
        for name, each in contact.fields.items()
        if name not in names and each.digest != EMPTIED
    }
    return replace(contact, fields={**contact.fields, **unsure}) if unsure else contact


def _parts(contact: Contact, said: Sequence[Said]) -> list[Sequence[Said]]:
    """The events in the parts in which they are to be delivered: all at once, or address by address.

    An attempt whose end is unknown may have given the contact any address of the events that it was about.
    Where several are in play those events are delivered in the order of their addresses before newer ones
    are taken in: folded away, an address could leave a contact behind that nobody knows of. A deletion comes
    after the address that it is to find.
    """
    addresses = {spoken.email for _, spoken in said if spoken.email} | {contact.synced_email}
    if len(addresses - {None}) < 2:
        return [said] if said else []
    parts: list[list[Said]] = []
    address = None
    for event, spoken in said:
        if not event.was_tried:
            continue
        is_elsewhere = spoken.email and address and spoken.email != address
        if not parts or is_elsewhere or spoken.kind in GONE:
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
