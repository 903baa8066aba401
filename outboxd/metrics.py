"""The metrics: what a monitoring system is told of one outbox, as a page in Prometheus' text format.

Only reads. Counters come from totals that outlive restarts and prunings; gauges are as of now, or, where only
the daemon knows them, as of its last heartbeat.
"""

import itertools
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from outboxd import __version__, database, report
from outboxd.clock import from_text
from outboxd.event import Verdict
from outboxd.exposition import Family, counter, counters, gauge, gauges, histogram, text
from outboxd.notices import TYPES
from outboxd.stats import at_most

DOUBLINGS = range(4, 28)
"""The bounds of the latency histogram, 16 ms to 37 h: 2 to the power of these, in milliseconds."""

WAITING = ("due", "in_flight", "retrying", "dead")

IMPORTS_END = ("completed", "failed")

UNTOLD = ("pending", "dead")


def page(path: Path, now: datetime, *, enabled: bool) -> str:
    """All metrics of the outbox at `path`. Raises what `database.reading` does, and SchemaError."""
    with database.reading(path) as connection:
        database.check_revision(path, database.revision(connection))
        facts = report.status(connection, now, enabled=enabled)
        totals = report.totals(connection)
    families = (
        _events(facts, totals),
        _calls(facts, totals),
        _told(facts, totals),
        _process(facts),
        _files(path),
    )
    return text(itertools.chain.from_iterable(families))


def _events(facts: Mapping[str, Any], totals: Mapping[str, Mapping[str, int]]) -> list[Family]:
    tried = totals.get("attempts", {})
    buckets = {int(number): count for number, count in totals.get("latencies", {}).items()}
    return [
        gauges(
            "outboxd_events",
            "Events that are not delivered: due, in flight, waiting for another attempt, or dead.",
            "state",
            {state: facts[state] for state in WAITING},
        ),
        gauge(
            "outboxd_oldest_pending_age_seconds",
            "How long ago the oldest pending event was written; 0 if none is pending.",
            facts["oldest_pending_seconds"] or 0.0,
        ),
        counter("outboxd_events_written_total", "Events ever written.", _one(totals, "written")),
        counter("outboxd_events_delivered_total", "Events ever delivered.", facts["delivered"]),
        counters(
            "outboxd_attempts_total",
            "Attempts at events, by what became of them.",
            "verdict",
            {str(verdict): tried.get(verdict, 0) for verdict in Verdict},
        ),
        histogram(
            "outboxd_delivery_latency_seconds",
            "Time from the writing of an event to its delivery, of events that took a call.",
            {2**doublings / 1000: at_most(buckets, doublings) for doublings in DOUBLINGS},
            sum(buckets.values()),
            _one(totals, "latency_ms") / 1000,
        ),
    ]


def _calls(facts: Mapping[str, Any], totals: Mapping[str, Mapping[str, int]]) -> list[Family]:
    limits = {f"{limit['period_seconds']:g}": limit for limit in facts["limits"]}
    ended = {**dict.fromkeys(IMPORTS_END, 0), **totals.get("imports", {})}
    return [
        counter("outboxd_calls_total", "Calls to Brevo for events, imports included.", _one(totals, "calls")),
        gauges(
            "outboxd_rate_limit_calls",
            "Calls that may leave within a period of so many seconds.",
            "period",
            {period: limit["calls"] for period, limit in limits.items()},
        ),
        gauges(
            "outboxd_rate_limit_remaining_calls",
            "How many of them were left at the last heartbeat; 0 also while Brevo asks to wait.",
            "period",
            {period: limit["left"] for period, limit in limits.items()},
        ),
        gauge("outboxd_imports_under_way", "Imports under way in Brevo.", len(facts["imports"])),
        gauge("outboxd_import_rows_under_way", "Rows of the imports under way.", _rows(facts["imports"])),
        counters("outboxd_imports_total", "Imports that ended, by how.", "status", ended),
    ]


def _told(facts: Mapping[str, Any], totals: Mapping[str, Mapping[str, int]]) -> list[Family]:
    told = {**dict.fromkeys(TYPES, 0), **totals.get("notifications", {})}
    return [
        gauges(
            "outboxd_notifications",
            "Notifications that your webhook has not taken: on their way, or given up.",
            "state",
            {state: facts["notifications"][state] for state in UNTOLD},
        ),
        counters(
            "outboxd_notifications_delivered_total",
            "Notifications that your webhook has taken, by type.",
            "type",
            told,
        ),
    ]


def _process(facts: Mapping[str, Any]) -> list[Family]:
    lane = facts["lane"]["state"]
    beat = facts["heartbeat_at"]
    return [
        gauges(
            "outboxd_lane",
            "1 for the state that the lane is in, 0 for the others.",
            "state",
            {state: int(state == lane) for state in dict.fromkeys((*report.LANES, lane))},
        ),
        gauge(
            "outboxd_heartbeat_timestamp_seconds",
            "When a daemon last said that it lives; there is no sample if none ever did.",
            from_text(beat).timestamp() if beat else None,
        ),
        gauges("outboxd_build_info", "The version of outboxd that tells this.", "version", {__version__: 1}),
    ]


def _files(path: Path) -> list[Family]:
    file, log = database.sizes(path)
    return [
        gauge("outboxd_database_size_bytes", "Size of the database file.", file),
        gauge("outboxd_wal_size_bytes", "Size of its write-ahead log.", log),
    ]


def _one(totals: Mapping[str, Mapping[str, int]], measure: str) -> int:
    return totals.get(measure, {}).get("", 0)


def _rows(imports: list[dict[str, Any]]) -> int:
    return sum(each["rows"] for each in imports)
