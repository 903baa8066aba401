"""Announce: one log line for each outcome. Ids and keys, never what an event holds."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from outboxd import logs
from outboxd.clock import milliseconds
from outboxd.event import FINISHED_WELL, Outcome, Result, Verdict
from outboxd.logs import line, logger
from outboxd.outbox import Admission


def refused(admissions: Iterable[Admission]) -> None:
    """Events that ended where they came in."""
    for each in admissions:
        if each.outcome is not None:
            told = each.outcome.detail or "; ".join(each.outcome.warnings)
            logger.warning(line(str(each.outcome.verdict), event=each.event.id, reason=told))


def recorded(result: Result, now: datetime, *, is_lost: bool) -> None:
    """Events of one claim; those folded into one call share a line."""
    told: dict[Outcome, list[int]] = {}
    for event_id, outcome in result.outcomes.items():
        alike = replace(outcome, retry_at=None) if outcome.retry_at else outcome
        told.setdefault(alike, []).append(event_id)
    for outcome, ids in told.items():
        is_fine = outcome.verdict in FINISHED_WELL and not outcome.warnings
        is_aside = outcome.verdict is Verdict.BLOCKED and outcome.call is None
        logger.log(
            logs.LEVELS["verbose" if is_aside else "info" if is_fine else "warning"],
            line(
                str(outcome.verdict),
                event=",".join(map(str, ids)),
                customer=result.claim.contact.customer_key,
                call=outcome.call,
                status=outcome.http_status,
                code=outcome.error_code,
                calls=result.calls or None,
                ms=milliseconds(now - result.claim.claimed_at),
                attempt=max(e.attempts for e in result.claim.events if e.id in ids),
                reason=outcome.detail,
                warning="; ".join(outcome.warnings) or None,
                request=outcome.request_id,
                lost="lease" if is_lost else None,
            ),
        )
