"""A convoy: many errands side by side, sharing Brevo's bulk calls. It knows no database.

Known contacts go together in batches, and what Brevo turns out not to have comes back to be folded anew.
Contacts that it does not know become rows for an import, which runs on its own (see `importing`). All else,
removals and changes of address among it, goes alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any, Protocol

from outboxd.brevo.bulk import Process, Reached, has, row, takes
from outboxd.crew import Crew
from outboxd.delivery import Delivery, told_bug
from outboxd.errand import Errand, Plan
from outboxd.event import PHONES, Claim, Found, ImportRow, Outcome, Remove, Result, Upsert, Verdict
from outboxd.keys import address_key
from outboxd.outbox.imports import Barred
from outboxd.values import is_certain_phone

TRIES = 3
"""An event that was tried more often than this goes alone: an import does not say what is wrong with it."""

IMPORT_CALL = "POST /contacts/import"


class BulkCourier(Protocol):
    """Whoever carries many changes at once to Brevo."""

    def update(
        self, changes: Sequence[Upsert], is_late: Callable[[], bool]
    ) -> tuple[list[Outcome | Found | None], int]:
        """Change contacts that Brevo has: what came of each, and how many calls that took for all of them.

        Once a call comes to nothing, or `is_late` says so, no call is begun any more; what came of the rest
        is None.
        """

    def start_import(
        self, rows: Sequence[bytes], list_ids: Sequence[int], *, is_opted_out: bool
    ) -> int | Outcome:
        """Hand rows over for an import: the id of its process, or why there is none."""

    def process(self, process_id: int) -> Process | Outcome:
        """How an import is getting on, or why that cannot be told."""

    def reached(self, since: datetime) -> Reached | Outcome:
        """All contacts made or changed since then."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What became of a convoy: the errands that are over, and the rows that are to be imported."""

    results: Sequence[Result]
    rows: Sequence[ImportRow]


class Convoy:
    """Runs convoys of errands. Safe for many threads; always ends in results, whatever happens."""

    def __init__(self, delivery: Delivery, courier: BulkCourier, plan: Plan, crew: Crew) -> None:
        self._delivery = delivery
        self._courier = courier
        self._in_turn = crew.in_turn
        # An import must name a list, and cannot tell apart who was there before.
        self._imports = bool(plan.policy.list_ids) and plan.updates
        self._batch_size = plan.batch_size
        self._followed: set[str] = set()  # customers of whom an import left something to a batch

    def carry(self, claims: Sequence[Claim], told: Callable[[list[Result]], None] | None = None) -> Carried:
        """Run these claims as far as that goes at once.

        What became of a batch is `told` as soon as it is known, for it to be recorded before the next one: a
        crash then repeats no more than the call it interrupts. The rest, or without `told` all, is returned.
        """
        try:
            return self._carry(claims, told)
        except Exception as error:
            return Carried(self._ended(claims, told_bug(claims[0], error)), ())

    def alone(self, claims: Sequence[Claim]) -> list[Result]:
        """Run these claims one by one."""
        return [self._delivery.carry(claim) for claim in claims]

    def taken(self, barred: Sequence[Barred], *, reached: Reached | None) -> list[Result]:
        """An import has taken the rows of these claims.

        Where it left some out, only those count whose contact is among `reached` and has what was sent, for
        others may have touched it meanwhile; the rest go alone.
        """
        claims = [claim for claim, _ in barred]
        try:
            return self._taken(claims, [digest for _, digest in barred], reached)
        except Exception as error:
            return self._ended(claims, told_bug(claims[0], error))

    def failed(self, barred: Sequence[Barred], *, outcome: Outcome) -> list[Result]:
        """An import of these claims came to nothing, with `outcome`."""
        return self._ended([claim for claim, _ in barred], outcome)

    def refused(self, barred: Sequence[Barred]) -> list[Result]:
        """An import of these claims was refused: each goes alone."""
        return self.alone([claim for claim, _ in barred])

    def _carry(self, claims: Sequence[Claim], told: Callable[[list[Result]], None] | None) -> Carried:
        results, errands = self._begun(claims)
        rows = []
        updates: list[Errand] = []
        others: list[Errand] = []
        for errand in self._in_turn(errands):
            if (made := self._row(errand)) is not None:
                rows.append(made)
            else:
                (updates if _is_plain_update(errand.change) else others).append(errand)
        record = told or results.extend
        for company in self._companies(updates):
            record(self._update(company))
        for errand in others:
            record([self._delivery.finish(errand)])
        return Carried(results, rows)

    def _taken(
        self, claims: Sequence[Claim], digests: Sequence[str], reached: Reached | None
    ) -> list[Result]:
        results, errands = self._begun(claims)
        sent = {claim.contact.customer_key: digest for claim, digest in zip(claims, digests, strict=True)}
        for errand in self._in_turn(errands):
            made, change = self._row(errand), errand.change
            if made is not None and isinstance(change, Upsert) and _is_taken(made, change, reached):
                told = _imported(change, is_same=made.digest == sent[made.customer_key])
                self._delivery.tell(errand, told)
                if isinstance(told, Found):
                    self._followed.add(made.customer_key)
            results.append(self._delivery.finish(errand))
        return results

    def _ended(self, claims: Sequence[Claim], outcome: Outcome) -> list[Result]:
        results, errands = self._begun(claims)
        for errand in errands:
            errand.end(outcome)
        return results + [errand.result() for errand in errands]

    def _begun(self, claims: Iterable[Claim]) -> tuple[list[Result], list[Errand]]:
        begun = [self._delivery.begin(claim) for claim in self._in_turn(claims)]
        results = [each for each in begun if isinstance(each, Result)]
        return results, [each for each in begun if isinstance(each, Errand)]

    def _companies(self, errands: Sequence[Errand]) -> Iterator[Sequence[Errand]]:
        """The errands that share a batch: with each failed attempt half as many, for one of them may be at
        fault where Brevo names nobody.
        """

        def size(errand: Errand) -> int:
            failed = max(event.attempts for event in errand.claim.events) - 1
            return max(1, self._batch_size >> failed)

        for most, group in groupby(sorted(errands, key=size, reverse=True), size):
            alike = list(group)
            yield from (alike[start : start + most] for start in range(0, len(alike), most))

    def _update(self, errands: Sequence[Errand]) -> list[Result]:
        """One batch; whoever spoils it is told alone."""
        changes = [errand.change for errand in errands if isinstance(errand.change, Upsert)]
        told, calls = self._courier.update(changes, lambda: any(errand.is_late for errand in errands))
        results = []
        for errand, each in self._in_turn(zip(errands, told, strict=True)):
            if each is None:
                results.append(errand.result())
                continue
            customer_key = errand.claim.contact.customer_key
            # an import that claimed to have made the contact has not: another one would only claim it again
            goes_alone = each == Found() and customer_key in self._followed
            if not goes_alone:
                self._delivery.tell(errand, each)
            self._followed.discard(customer_key)
            results.append(self._delivery.finish(errand))
        return [replace(results[0], calls=results[0].calls + calls), *results[1:]]

    def _row(self, errand: Errand) -> ImportRow | None:
        """The errand's change as a row of an import, if it can be one."""
        change = errand.change
        if not self._imports or not isinstance(change, Upsert) or change.known_as is not None:
            return None
        if any(event.attempts > TRIES for event in errand.claim.events):
            return None
        return ImportRow(
            errand.claim.contact.customer_key,
            errand.claim.claimed_at,
            address_key(change.email),
            row(change.email, _carried(change)),
            is_opted_out=change.email_blacklisted is True or change.is_opted_out,
        )


def _is_plain_update(change: Upsert | Remove | None) -> bool:
    return isinstance(change, Upsert) and change.known_as == change.email and not change.emptied


def _carried(change: Upsert) -> dict[str, Any]:
    """The attributes that an import carries. A bad phone it might drop without a word: such go afterwards."""
    return {
        name: value
        for name, value in sorted(change.complete.items())
        if takes(value) and (name not in PHONES or is_certain_phone(value))
    }


def _is_taken(made: ImportRow, change: Upsert, reached: Reached | None) -> bool:
    if reached is None:
        return True
    there = reached.contacts.get(made.address_key)
    return there is not None and has(there, _carried(change))


def _imported(change: Upsert, *, is_same: bool) -> Outcome | Found:
    """What an import that took the row has done: all there was to do, or a part. `is_same` says that what was
    sent then is what would be sent now; if not, only the contact is certain.
    """
    if not is_same:
        return Found(frozenset())
    carried = frozenset(_carried(change))
    has_consent = change.email_blacklisted is not False
    if has_consent and len(carried) == len(change.complete):
        return Outcome(Verdict.DELIVERED, call=IMPORT_CALL, http_status=202, holds=carried)
    return Found(carried, has_consent=has_consent)
