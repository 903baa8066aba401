"""Explain: what would be sent for an event if it were delivered now, and why. Nothing is sent or written.

The event is admitted, claimed and folded by the code that delivers, on a draft; the client then writes its
requests down instead of making them. What comes of it are facts for people and programs, masked unless they
are to be revealed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import compress
from pathlib import Path
from typing import Any

from outboxd import draft
from outboxd.admit import admission
from outboxd.brevo.rehearsal import Request, rehearse
from outboxd.clock import to_text
from outboxd.errand import Errand, Plan
from outboxd.event import (
    Attribute,
    Claim,
    Event,
    Nothing,
    Outcome,
    Remove,
    Result,
    Settled,
    Statement,
    Upsert,
    Verdict,
)
from outboxd.masks import is_name, masked, masked_path
from outboxd.outbox import Admission, Outbox
from outboxd.topics import KNOWN, is_source
from outboxd.trace import absent, change_of, decision, mapped

Facts = dict[str, Any]

LEASE = timedelta(hours=1)

CUSTOMERS = 1000
"""As many as one look at a file can be about."""

PERSONAL = frozenset({"email", "attributes"})
"""What of a request is about a person, and not about us."""

UNNAMED: Facts = {"name": None, "source": None, "customer": None, "parts": []}
"""An event that is not looked into."""

FORGOTTEN = Outcome(Verdict.SUPERSEDED, detail="the customer was erased, and what the event said with them")
"""For an event of a customer whose payload is empty: none was admitted like that."""

UNTRIED = Outcome(Verdict.BLOCKED, detail="older events of the customer go first")


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains events of the outbox at `path` by the configuration.

    `source` is whose events those without one are; `catalogue` is what the account has (None: unknown, so
    that values are shown as they are); `base_url` is Brevo's. `is_revealed` shows personal data.
    """

    path: Path
    source: str
    plan: Plan
    catalogue: Mapping[str, Attribute] | None
    base_url: str
    is_revealed: bool = False

    def event(self, event_id: int, now: datetime) -> Facts:
        """What would come of an event of the outbox, finished ones as if they were tried again.

        Raises NoOutboxError if there is none of that id.
        """
        reading = self.plan.reading
        with draft.of_event(self.path, event_id, reading, source=self.source, now=now) as outbox:
            return self._explained(outbox, [event_id], now)[0]

    def written(self, rows: Sequence[tuple[Any, ...]], now: datetime) -> list[Facts]:
        """What would come of new events (rows of the intake) if all of them were written now.

        Those whose idempotency key was written before come to nothing. None has an id: they are `item 1`, ….
        """
        keys = [row[-1] for row in rows]
        before = draft.repeated(self.path, keys)
        is_new = [
            first is None and (key is None or key not in keys[:place])
            for place, (key, first) in enumerate(zip(keys, before, strict=True))
        ]
        news = list(compress(rows, is_new))
        reading = self.plan.reading
        with draft.of_new(self.path, news, reading, source=self.source, now=now) as (outbox, ids):
            told = iter(self._explained(outbox, ids, now))
        items = [f"item {number}" for number in range(1, len(rows) + 1)]
        names = dict(zip(ids, compress(items, is_new), strict=True))
        return [
            _renamed(next(told), names) if new else _repeated(item, first)
            for item, new, first in zip(items, is_new, before, strict=True)
        ]

    def _explained(self, outbox: Outbox, event_ids: Sequence[int], now: datetime) -> list[Facts]:
        """Admit whatever is new in the draft, claim all there is, and run the errands of these events."""
        told = {event_id: _untried(event_id) for event_id in event_ids}
        while fresh := outbox.fresh():
            admissions = [admission(event, self.plan.reading) for event in fresh]
            outbox.admit(admissions, now)
            told |= {each.event.id: self._ended(each, each.outcome) for each in admissions if each.outcome}
        for is_backfill in (False, True):
            for claim in outbox.claim(now, limit=CUSTOMERS, lease=LEASE, is_backfill=is_backfill):
                told |= self._carried(claim, outbox, now)
        return [told[event_id] for event_id in event_ids]

    def _carried(self, claim: Claim, outbox: Outbox, now: datetime) -> dict[int, Facts]:
        """Run an errand to its end, as if Brevo had what is believed; the facts of each of its events."""
        errand = Errand(
            claim, self.plan, self.catalogue, outbox.others, clock=lambda: now, longest=timedelta(0)
        )
        requests = []
        errand.begin()
        while errand.change is not None:
            outcome, made = rehearse(errand.change, updates=self.plan.updates)
            requests.append(made)
            errand.tell(outcome)
        result = errand.result()
        left = iter(requests)
        parts = [
            self._part(settled, next(left) if isinstance(settled.change, Upsert | Remove) else [])
            for settled in result.settled
        ]
        return {event.id: {**self._facts(event, result), "parts": parts} for event in claim.events}

    def _facts(self, event: Event, result: Result) -> Facts:
        outcome = FORGOTTEN if event.payload == "{}" else result.outcomes.get(event.id, UNTRIED)
        facts: Facts = {
            **self._named(event),
            "customer": result.contact.customer_key,
            "verdict": str(outcome.verdict),
            "why": outcome.detail,
        }
        for settled in result.settled:
            for each, spoken in settled.said:
                if each.id == event.id:
                    facts |= self._said(settled, spoken)
        return facts

    def _said(self, settled: Settled, spoken: Statement) -> Facts:
        decided = decision(settled, spoken)
        rules = [
            {"field": each.field, "attribute": each.attribute}
            | ({"left_out": each.reason} if each.reason else {"value": self._shown(each.value)})
            for each in mapped(spoken, self.plan.rules)
        ]
        return {
            "kind": str(spoken.kind),
            "version_at": to_text(spoken.stamp.at),
            "email": self._shown(spoken.email),
            "accepts_marketing": spoken.accepts_marketing,
            "mapping": rules,
            "absent": absent(spoken, self.plan.rules),
            "no_rule": [name if is_name(name) else self._shown(name) for name in spoken.unmapped],
            "differs": decided.differs,
            "unchanged": decided.unchanged,
            "outdated": decided.outdated,
            "folded_with": [event.id for event, each in settled.said if each is not spoken],
        }

    def _part(self, settled: Settled, requests: Sequence[Request]) -> Facts:
        return {
            "events": [event.id for event, _ in settled.said],
            "change": change_of(settled),
            "why": _why(settled),
            "consent": _consent(settled),
            "requests": [self._request(each) for each in requests],
        }

    def _request(self, request: Request) -> Facts:
        path = request.path if self.is_revealed else masked_path(request.path)
        body = request.body and {
            name: self._shown(value) if name in PERSONAL else value for name, value in request.body.items()
        }
        return {"method": request.method, "url": f"{self.base_url}{path}", "body": body}

    def _ended(self, admission: Admission, outcome: Outcome) -> Facts:
        """An event that does not get beyond its admission."""
        why = outcome.detail or "; ".join(outcome.warnings)
        named = self._named(admission.event)
        return {**named, "customer": None, "verdict": str(outcome.verdict), "why": why, "parts": []}

    def _named(self, event: Event) -> Facts:
        """Its names; what a shop wrote in their place may be anything."""
        name, source = event.event, event.source
        return {
            "event": event.id,
            "name": name if name in KNOWN else self._shown(name),
            "source": source if is_source(source) else self._shown(source),
        }

    def _shown(self, value: Any) -> Any:
        return value if self.is_revealed else masked(value)


def _untried(event_id: int) -> Facts:
    """An event that is not among the first hundreds of its customer, which go first."""
    return {**UNNAMED, "event": event_id, "verdict": str(UNTRIED.verdict), "why": UNTRIED.detail}


def _renamed(facts: Facts, names: Mapping[int, str]) -> Facts:
    """The facts of an event of the draft, with the names of those that only the draft knows by an id."""

    def named(ids: Sequence[int]) -> list[int | str]:
        return [names.get(each, each) for each in ids]

    parts = [{**part, "events": named(part["events"])} for part in facts["parts"]]
    folded = {"folded_with": named(facts["folded_with"])} if "folded_with" in facts else {}
    return {**facts, **folded, "event": names[facts["event"]], "parts": parts}


def _repeated(item: str, first: int | None) -> Facts:
    """An event that is not written: event `first`, or (None) one before it in the file, has its key."""
    by = f"event {first}" if first is not None else "an event before it in the file"
    why = f"{by} has its idempotency_key already: nothing is written"
    return {**UNNAMED, "event": item, "verdict": "repeated", "why": why}


def _why(settled: Settled) -> str:
    match settled.change:
        case Upsert(known_as=None):
            return "as far as is known here, Brevo does not have the contact"
        case Upsert(email=email, known_as=known_as) if email != known_as:
            return "the contact has another address now"
        case Upsert(is_first=True):
            return "the customer is back after a deletion"
        case Upsert():
            return "Brevo has the contact, otherwise than the shop says"
        case Remove(is_soft=True):
            return "the customer was deleted: with delete_behavior soft the contact is blocklisted"
        case Remove():
            return "the customer was deleted"
        case Nothing(detail=detail):
            return detail
    return "no event has named an address, so there is nobody to tell Brevo of"


def _consent(settled: Settled) -> str | None:
    """What becomes of the consent, where these events say something of it."""
    change = settled.change
    if not isinstance(change, Upsert) or all(each.accepts_marketing is None for _, each in settled.said):
        return None
    if change.email_blacklisted is not None:
        return "the opt-out is sent" if change.email_blacklisted else "the opt-in is sent: it ends an opt-out"
    if settled.after.accepts_marketing:
        return "nothing is sent: an opt-in only counts after an opt-out that the shop had stated"
    return "nothing is sent: the opt-out was told before"
