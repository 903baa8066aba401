"""How attempts end: the event's new state, the attempt's row, the minute's counters and the totals."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from sqlite3 import Connection

from outboxd.clock import milliseconds, to_text
from outboxd.event import FINISHED_WELL, Event, Outcome, Verdict
from outboxd.outbox import totals
from outboxd.outbox.rows import Write, at_once, table
from outboxd.stats import bucket

DETAIL = 512
"""Characters of an attempt's detail."""

FINISH = f"""
UPDATE outbox SET status = told.status, finished_at = :now, last_error = told.error,
       is_head = 0, claimed_at = NULL
FROM {table("id", "status", "error")} WHERE outbox.id = told.id
"""

PUT_BACK = f"""
UPDATE outbox SET attempts = told.attempts, next_attempt_at = told.at,
       last_error = coalesce(told.error, last_error), is_head = 0, claimed_at = NULL
FROM {table("id", "attempts", "at", "error")} WHERE outbox.id = told.id
"""

MADE = (
    "event_id", "number", "started_at", "verdict",
    "call", "http_status", "error_code", "detail", "request_id",
)  # fmt: skip

MADE_COLUMNS = ", ".join(MADE)

ATTEMPT = f"""
INSERT OR REPLACE INTO attempts ({MADE_COLUMNS}, finished_at)
SELECT {MADE_COLUMNS}, :now FROM {table(*MADE)}
"""

# The latencies are {bucket: how many}.
COUNT = """
INSERT INTO stats (minute, delivered, dead, attempts, failed, calls, latency_ms, latencies)
VALUES (:minute, :delivered, :dead, :attempts, :failed, :calls, :latency_ms, :latencies)
ON CONFLICT (minute) DO UPDATE SET
    delivered = delivered + excluded.delivered, dead = dead + excluded.dead,
    attempts = attempts + excluded.attempts, failed = failed + excluded.failed,
    calls = calls + excluded.calls, latency_ms = latency_ms + excluded.latency_ms,
    latencies = (
        SELECT json_group_object(key, number) FROM (
            SELECT key, sum(value) AS number FROM (
                SELECT key, value FROM json_each(stats.latencies)
                UNION ALL SELECT key, value FROM json_each(excluded.latencies)
            ) GROUP BY key
        )
    )
"""

SAVE_STATE = """
INSERT INTO state (key, value, updated_at) VALUES (:key, :value, :now)
ON CONFLICT (key) DO UPDATE SET value = :value, updated_at = :now
"""

WARNINGS = 20
"""How many different warnings are kept."""

Tried = tuple[Event, Outcome, datetime]
"""An event, what became of it, and when its claim began."""


def finish(tried: Sequence[Tried], now: datetime) -> list[Write]:
    """Events that are over: delivered or dead, with the reason or the warning."""
    rows = []
    for event, outcome, _ in tried:
        is_well = outcome.verdict in FINISHED_WELL
        error = None if is_well and not outcome.warnings else _detail(outcome)
        status = "delivered" if is_well else "dead"
        rows.append({"id": event.id, "status": status, "error": error})
    return at_once(FINISH, rows, now=to_text(now))


def put_back(tried: Sequence[Tried], now: datetime) -> list[Write]:
    """Events that stay pending; a blocked one gets its attempt back."""
    rows = []
    for event, outcome, _ in tried:
        is_spent = outcome.verdict is not Verdict.BLOCKED
        rows.append(
            {
                "id": event.id,
                "attempts": event.attempts if is_spent else event.attempts - 1,
                "at": to_text(outcome.retry_at or now),
                "error": _detail(outcome),
            }
        )
    return at_once(PUT_BACK, rows)


def attempts(tried: Sequence[Tried], now: datetime) -> list[Write]:
    """The attempts' own rows. What stops the lane is no event's attempt: one row a call tells of it."""
    return at_once(
        ATTEMPT,
        [
            {
                "event_id": event.id,
                "number": event.attempts,
                "started_at": to_text(started_at),
                "verdict": str(outcome.verdict),
                "call": outcome.call,
                "http_status": outcome.http_status,
                "error_code": outcome.error_code,
                "detail": _detail(outcome),
                "request_id": outcome.request_id,
            }
            for event, outcome, started_at in _without_echoes(tried)
        ],
        now=to_text(now),
    )


def _without_echoes(tried: Sequence[Tried]) -> list[Tried]:
    """Each attempt; of a call that was blocked only the first event it was about."""
    told: set[tuple[str | None, datetime]] = set()
    found = []
    for event, outcome, started_at in tried:
        if outcome.verdict is Verdict.BLOCKED:
            call = (outcome.call, started_at)
            if outcome.call is None or call in told:
                continue
            told.add(call)
        found.append((event, outcome, started_at))
    return found


def warn(connection: Connection, tried: Sequence[Tried], now: datetime) -> None:
    """Keep what was healed or left out, and how often: {text: [count, last time]}, the latest ones."""
    told = [text for _, outcome, _ in tried for text in outcome.warnings]
    if not told:
        return
    row = connection.execute("SELECT value FROM state WHERE key = 'warnings'").fetchone()
    warnings: dict[str, tuple[int, str]] = json.loads(row[0]) if row else {}
    for text in told:
        count_before = warnings.pop(text, (0, ""))[0]
        warnings[text] = (count_before + 1, to_text(now))
    latest = dict(list(warnings.items())[-WARNINGS:])
    values = {"key": "warnings", "value": json.dumps(latest), "now": to_text(now)}
    connection.execute(SAVE_STATE, values)


def _detail(outcome: Outcome) -> str | None:
    text = "; ".join(part for part in (outcome.detail, *outcome.warnings) if part)
    return text[:DETAIL] or None


def count(tried: Sequence[Tried], calls: int, now: datetime) -> list[Write]:
    """Add to the counters of this minute, so that status never scans history, and to the totals."""
    if not tried:
        return []
    outcomes = [(event, outcome) for event, outcome, _ in tried]
    delivered = [(e, o) for e, o in outcomes if o.verdict in FINISHED_WELL]
    called = [max(milliseconds(now - e.created_at), 0) for e, o in delivered if o.call]
    new = Counter(str(bucket(latency)) for latency in called)
    values = {
        "minute": to_text(now)[:16],
        "delivered": len(delivered),
        "dead": sum(o.verdict is Verdict.REFUSED for _, o in outcomes),
        "attempts": sum(o.verdict is not Verdict.BLOCKED for _, o in outcomes),
        "failed": sum(o.verdict in (Verdict.RETRY, Verdict.REFUSED) for _, o in outcomes),
        "calls": calls,
        "latency_ms": sum(called),
        "latencies": json.dumps(new),
    }
    added = totals.add(
        attempts=Counter(str(o.verdict) for _, o, _ in _without_echoes(tried)),
        calls={"": calls},
        latency_ms={"": sum(called)},
        latencies=new,
    )
    return [(COUNT, values), *added]
