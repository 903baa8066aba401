"""Retry: whether an attempt that failed is followed by another one, and when. Pure."""

from dataclasses import replace
from datetime import datetime

from outboxd.backoff import Backoff
from outboxd.event import Event, Outcome, Verdict


def scheduled(event: Event, outcome: Outcome, backoff: Backoff, now: datetime, chance: float) -> Outcome:
    """`outcome` with the time of the next attempt, if there is one; refused if it was the last one.

    `chance` is from 0 to 1, for the jitter.
    """
    if outcome.verdict is not Verdict.RETRY:
        return outcome
    if event.attempts >= backoff.max_attempts:
        detail = f"gave up after {event.attempts} attempts; the last one: {outcome.detail}"
        return replace(outcome, verdict=Verdict.REFUSED, detail=detail)
    return replace(outcome, retry_at=now + backoff.delay(event.attempts, chance))
