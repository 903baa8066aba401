"""The report: every statement that only reads. A plain sqlite3 connection, so that `status` starts fast.

Nothing here counts rows that can be many: the depth is kept by triggers and by the ids themselves.
"""

import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from outboxd import pause
from outboxd.clock import from_text, to_text
from outboxd.database import decoded
from outboxd.retention import Retention
from outboxd.stats import percentile

DEPTH = """
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0) - finished, delivered, dead
FROM depth
"""

IN_FLIGHT = """
SELECT count(*) FROM outbox WHERE status = 'pending' AND attempts > 0 AND claimed_at IS NOT NULL
"""

RETRYING = """
SELECT count(*), min(next_attempt_at) FROM outbox
WHERE status = 'pending' AND attempts > 0 AND claimed_at IS NULL
"""

# The oldest pending event is the oldest of those nobody admitted yet, of the heads that are next, and of
# those that were tried before (few): a few looks into indexes, however long the backlog is.
OLDEST = """
SELECT min(created_at) FROM (
    SELECT * FROM (SELECT created_at FROM outbox
                   WHERE status = 'pending' AND customer_key IS NULL AND is_backfill = 0 ORDER BY id LIMIT 1)
    UNION ALL
    SELECT * FROM (SELECT created_at FROM outbox
                   WHERE status = 'pending' AND customer_key IS NULL AND is_backfill = 1 ORDER BY id LIMIT 1)
    UNION ALL
    SELECT * FROM (SELECT created_at FROM outbox
                   WHERE is_head = 1 AND is_backfill = 0 ORDER BY next_attempt_at LIMIT 1)
    UNION ALL
    SELECT * FROM (SELECT created_at FROM outbox
                   WHERE is_head = 1 AND is_backfill = 1 ORDER BY next_attempt_at LIMIT 1)
    UNION ALL
    SELECT * FROM (SELECT created_at FROM outbox
                   WHERE status = 'pending' AND attempts > 0 AND claimed_at IS NULL ORDER BY id LIMIT 1)
    UNION ALL
    SELECT * FROM (SELECT min(created_at) FROM outbox
                   WHERE status = 'pending' AND attempts > 0 AND claimed_at IS NOT NULL)
)
"""

STATE = "SELECT key, value FROM state"

IMPORTS = """
SELECT id, size AS rows, process_id, started_at, status FROM imports WHERE ended_at IS NULL ORDER BY id
"""

WINDOW = """
SELECT delivered, dead, attempts, failed, calls, latency_ms, latencies FROM stats WHERE minute > :since
"""

HISTORY = "SELECT minute, delivered FROM stats WHERE minute > :since"

TOTALS = "SELECT measure, label, value FROM totals"

WRITTEN = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outbox'"

COLUMNS = """
id, event, CASE WHEN dropped_at IS NULL THEN status ELSE 'dropped' END AS status, source, customer_key,
attempts, occurred_at, created_at, claimed_at, finished_at, dropped_at,
iif(status = 'pending', next_attempt_at, NULL) AS next_attempt_at, last_error
"""

NEWEST = {
    status: f"SELECT {COLUMNS} FROM outbox WHERE {condition} AND id < :before ORDER BY id DESC LIMIT :limit"
    for status, condition in {
        None: "true",
        "pending": "status = 'pending'",
        "delivered": "status = 'delivered'",
        "dead": "status = 'dead' AND dropped_at IS NULL",  # literals, so that the partial index serves
        "dropped": "status = 'dead' AND dropped_at IS NOT NULL",
    }.items()
}

DEAD = """
SELECT id, last_error, finished_at FROM outbox WHERE status = 'dead' AND dropped_at IS NULL ORDER BY id
"""

ATTEMPTS = """
SELECT number, started_at, finished_at, verdict, call, http_status, error_code, detail, request_id
FROM attempts WHERE event_id = :id ORDER BY number, started_at
"""

NOTIFICATIONS = """
SELECT id, message_id, type, status, attempts, created_at, next_attempt_at, finished_at, last_error, data
FROM notifications WHERE status = 'dead' OR NOT :dead ORDER BY id DESC LIMIT :limit
"""

UNDELIVERED = """
SELECT (SELECT count(*) FROM notifications WHERE status = 'pending'),
       (SELECT count(*) FROM notifications WHERE status = 'dead')
"""

LANES = ("running", "waiting", "blocked", "paused", "disabled")
"""The states of the lane, as `status` tells them."""

PRUNABLE = """
SELECT count(*) FROM outbox
WHERE status = 'delivered' AND finished_at > :after AND finished_at <= :before
"""

PRUNABLE_BESIDE = """
SELECT (SELECT count(*) FROM outbox WHERE dropped_at IS NOT NULL AND dropped_at <= :before) AS dropped,
       (SELECT count(*) FROM notifications WHERE status = 'delivered' AND finished_at <= :before)
           AS notifications,
       (SELECT count(*) FROM imports WHERE ended_at IS NOT NULL AND ended_at <= :before) AS imports
"""

OLD_COUNTERS = "SELECT count(*) FROM stats WHERE minute <= :minute"

WINDOWS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def status(
    connection: sqlite3.Connection, now: datetime, *, enabled: bool, sync_mode: str = "realtime"
) -> dict[str, Any]:
    """What the operator wants to know, with the keys of `outboxd status --json`.

    `due` is what is ready and was not tried yet: pending = due + in_flight + retrying. `next_attempt_at` is
    None where nothing waits for a time: what is due goes at once unless the window or the lane is closed.
    """
    pending, delivered, dead = connection.execute(DEPTH).fetchone()
    in_flight = connection.execute(IN_FLIGHT).fetchone()[0]
    retrying, retry_at = connection.execute(RETRYING).fetchone()
    oldest = connection.execute(OLDEST).fetchone()[0]
    state = dict(connection.execute(STATE).fetchall())
    due = max(0, pending - in_flight - retrying)
    lane = _lane(state, now, enabled=enabled)
    window = _batch_window(state) if sync_mode == "batch" else None
    return {
        "pending": pending,
        "due": due,
        "in_flight": in_flight,
        "retrying": retrying,
        "dead": dead,
        "delivered": delivered,
        "oldest_pending_seconds": max(0.0, (now - from_text(oldest)).total_seconds()) if oldest else None,
        "next_attempt_at": _next_attempt(retry_at, due, lane, window),
        "heartbeat_at": state.get("heartbeat"),
        "warnings": _warnings(state),
        "lane": lane,
        "pause": json.loads(state.get(pause.KEY, "null")),
        "limits": _limits(state),
        "window": window,
        "imports": _dicts(connection.execute(IMPORTS)),
        "notifications": dict(
            zip(("pending", "dead"), connection.execute(UNDELIVERED).fetchone(), strict=True)
        ),
        "windows": {name: _window(connection, now - length) for name, length in WINDOWS.items()},
    }


def _warnings(state: Mapping[str, str]) -> list[dict[str, Any]]:
    """What was healed or left out lately, the most frequent first."""
    told = json.loads(state.get("warnings", "{}"))
    found = [{"warning": text, "count": count, "last_at": at} for text, (count, at) in told.items()]
    return sorted(found, key=lambda warning: -warning["count"])


def _limits(state: Mapping[str, str]) -> list[dict[str, Any]]:
    """Brevo's rate limits as they were at the last heartbeat."""
    names = ("period_seconds", "calls", "left")
    return [dict(zip(names, limit, strict=True)) for limit in json.loads(state.get("limits", "[]"))]


def _batch_window(state: Mapping[str, str]) -> dict[str, Any]:
    """The latest window and its result, and when the next one opens; before the first one mostly null."""
    known: dict[str, Any] = json.loads(state.get("window", "{}"))
    is_open = known.get("opened_at") is not None and known.get("closed_at") is None
    shown = ("opened_at", "closed_at", "reason", "next_at", "delivered", "dead", "calls")
    return {"is_open": is_open, **{name: known.get(name) for name in shown}}


def _lane(state: Mapping[str, str], now: datetime, *, enabled: bool) -> dict[str, Any]:
    if not enabled:
        return {"state": "disabled", "reason": "enabled: false in the configuration", "until": None}
    if paused := pause.standing(state.get(pause.KEY)):
        return {"state": "paused", "reason": paused.reason, "until": None}
    lane: dict[str, Any] = json.loads(state.get("lane", "{}"))
    if lane.get("state") in (None, "disabled"):
        return {"state": "running", "reason": None, "until": None}
    if lane["state"] == "waiting" and lane["until"] is not None and from_text(lane["until"]) <= now:
        return {"state": "running", "reason": None, "until": None}
    return {name: lane.get(name) for name in ("state", "reason", "until")}


def _next_attempt(
    retry_at: str | None, due: int, lane: Mapping[str, Any], window: Mapping[str, Any] | None
) -> str | None:
    if lane["state"] in ("paused", "disabled"):
        return None
    waits = [retry_at, window["next_at"] if due and window and not window["is_open"] else None]
    at: str | None = min(filter(None, waits), default=None)
    until: str | None = lane["until"]
    return max(at or "", until) if until and (at or due) else at


def _window(connection: sqlite3.Connection, since: datetime) -> dict[str, Any]:
    delivered = dead = attempts = failed = calls = latency = 0
    buckets: dict[int, int] = {}
    for row in connection.execute(WINDOW, {"since": to_text(since)[:16]}):
        delivered, dead, attempts = delivered + row[0], dead + row[1], attempts + row[2]
        failed, calls, latency = failed + row[3], calls + row[4], latency + row[5]
        for name, count in json.loads(row[6]).items():
            buckets[int(name)] = buckets.get(int(name), 0) + count
    timed = sum(buckets.values())
    return {
        "delivered": delivered,
        "failed": failed,
        "dead": dead,
        "calls": calls,
        "success_rate": _rate(delivered, delivered + dead),
        "error_rate": _rate(failed, attempts),
        "latency_ms": {
            "average": round(latency / timed) if timed else None,
            **{name: percentile(buckets, share) for name, share in PERCENTILES.items()},
        },
    }


def history(connection: sqlite3.Connection, now: datetime, *, minutes: int = 60) -> list[int]:
    """How many events were delivered in each of the last minutes, oldest first; the last one is not over."""
    told = [to_text(now - timedelta(minutes=back))[:16] for back in range(minutes, -1, -1)]
    delivered = dict(connection.execute(HISTORY, {"since": told[0]}))
    return [delivered.get(minute, 0) for minute in told[1:]]


def totals(connection: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """What was ever counted, by measure and label (see outbox.totals), and the events ever written."""
    found: dict[str, dict[str, int]] = {"written": {"": connection.execute(WRITTEN).fetchone()[0]}}
    for measure, label, value in connection.execute(TOTALS):
        found.setdefault(measure, {})[label] = value
    return found


def _rate(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def events(
    connection: sqlite3.Connection, *, status: str | None = None, limit: int = 20, before: int | None = None
) -> list[dict[str, Any]]:
    """The newest events, newest first, of one status or of all."""
    last = 2**63 - 1 if before is None else before
    return _dicts(connection.execute(NEWEST[status], {"before": last, "limit": limit}))


def event(
    connection: sqlite3.Connection, event_id: int, *, with_payload: bool = False
) -> dict[str, Any] | None:
    """One event with its attempts, None if there is none of that id. The payload holds personal data."""
    columns = f"{COLUMNS}, payload" if with_payload else COLUMNS
    found = _dicts(connection.execute(f"SELECT {columns} FROM outbox WHERE id = :id", {"id": event_id}))
    if not found:
        return None
    return {**found[0], "attempts_made": _dicts(connection.execute(ATTEMPTS, {"id": event_id}))}


def notifications(connection: sqlite3.Connection, *, dead: bool, limit: int) -> list[dict[str, Any]]:
    """The newest notifications to the operator, newest first; `data` as it is sent."""
    found = _dicts(connection.execute(NOTIFICATIONS, {"dead": dead, "limit": limit}))
    return [{**row, "data": json.loads(row["data"])} for row in found]


def dead_letters(connection: sqlite3.Connection) -> list[tuple[int, str | None, str]]:
    """Every dead event, oldest first: its id, its reason, when it died."""
    return connection.execute(DEAD).fetchall()


def past_retention(connection: sqlite3.Connection, retention: Retention, now: datetime) -> dict[str, int]:
    """How much a sweep at `now` would remove, by what it is; `attempts` of how many events that stay."""

    def delivered(after: str, before: str) -> int:
        return int(connection.execute(PRUNABLE, {"after": after, "before": before}).fetchone()[0])

    before = retention.before(retention.delivered, now)
    attempts, counters = (retention.before(age, now) for age in (retention.attempts, retention.counters))
    done = dict(connection.execute(STATE).fetchall()).get("attempts_pruned", "").partition("#")[0]
    return {
        "events": delivered("", before),
        "attempts": delivered(max(before, done), attempts) if retention.parts_attempts else 0,
        "counters": int(connection.execute(OLD_COUNTERS, {"minute": counters[:16]}).fetchone()[0]),
        **_dicts(connection.execute(PRUNABLE_BESIDE, {"before": before}))[0],
    }


def _dicts(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, map(_plain, row), strict=True)) for row in cursor]


def _plain(value: Any) -> Any:
    """A value as JSON can say it; a client may have written bytes."""
    return decoded(value) if isinstance(value, bytes) else value
