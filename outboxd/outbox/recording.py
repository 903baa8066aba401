"""What the ends of claims come to, as statements: made before the transaction that records them. Pure."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime

from outboxd.clock import to_text
from outboxd.event import Outcome, Remove, Result, Upsert, Verdict
from outboxd.outbox import addresses, contacts, customers, endings, statements
from outboxd.outbox.endings import Tried
from outboxd.outbox.rows import Write, at_once

PUT_BACK = frozenset({Verdict.RETRY, Verdict.BLOCKED})
"""The verdicts after which an event is pending as before."""

UNTRIED = Outcome(Verdict.BLOCKED)
"""For an event whose turn did not come within its claim: as if it had not been claimed."""


def writes(results: Sequence[Result], now: datetime) -> list[Write]:
    """Their events as they end, the attempts, the contacts, and each customer's next head."""
    ended = [
        (event, result.outcomes.get(event.id, UNTRIED), result.claim.claimed_at)
        for result in results
        for event in result.claim.events
    ]
    tried = attempts(results)
    changed = [result.contact for result in results if result.contact is not result.claim.contact]
    return [
        *endings.put_back([entry for entry in ended if entry[1].verdict in PUT_BACK], now),
        *endings.finish([entry for entry in ended if entry[1].verdict not in PUT_BACK], now),
        *_purge(results),
        *endings.attempts(tried, now),
        *endings.count(tried, sum(result.calls for result in results), now),
        *contacts.save(changed, now),
        *contacts.overtake(sorted(_told(results))),
        *addresses.remember(changed),
        *addresses.leave(results),
        *_revive(results),
        *at_once(statements.ELECT, [_turn(result, now) for result in results]),
    ]


def attempts(results: Sequence[Result]) -> list[Tried]:
    """Their events whose turn came."""
    return [
        (event, result.outcomes[event.id], result.claim.claimed_at)
        for result in results
        for event in result.claim.events
        if event.id in result.outcomes
    ]


def _told(results: Sequence[Result]) -> set[tuple[str, str]]:
    """The customers of whom Brevo was told something, and where; also those of whom it perhaps was."""
    return {
        (result.contact.customer_key, email)
        for result in results
        for each in result.settled
        if isinstance(each.change, Upsert | Remove)
        for email in _addresses(each.change)
    }


def _addresses(change: Upsert | Remove) -> Iterator[str]:
    """Where Brevo is told something: also at the address that is left, if a contact there loses something."""
    yield change.email
    if isinstance(change, Upsert) and change.emptied and change.known_as is not None:
        yield change.known_as


def _purge(results: Sequence[Result]) -> list[Write]:
    """Nothing stays of what was said of somebody who is to be forgotten."""
    redacted = [event.id for result in results if result.is_redacted for event in result.claim.events]
    ids = {"ids": json.dumps(redacted)}
    return [(statements.PURGE, ids), (statements.PURGE_ATTEMPTS, ids)] if redacted else []


def _revive(results: Sequence[Result]) -> list[Write]:
    """Events that died for want of the address that is known now."""
    found = (r.contact.customer_key for r in results if r.contact.email and not r.claim.contact.email)
    return customers.revive_unaddressed(found)


def _turn(result: Result, now: datetime) -> dict[str, str]:
    """When the customer's next head is due: after the backoff of what is left, or at once."""
    waits = [outcome.retry_at for outcome in result.outcomes.values() if outcome.retry_at]
    return {"key": result.contact.customer_key, "at": to_text(max(waits, default=now))}
