"""`status`: the queue's depth, and whether all is well."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outboxd import clock, config, database, report
from outboxd.cli import host
from outboxd.cli.checking import Check, thresholds
from outboxd.cli.figures import ago, counted, latency, percent, when
from outboxd.cli.options import NumberRange, config_option, json_option
from outboxd.cli.table import printable
from outboxd.config import Config

if TYPE_CHECKING:  # of thresholds few looks have any
    from outboxd.cli.alarm import Alarm
    from outboxd.threshold import Threshold


@click.command(cls=Check)
@config_option
@json_option
@click.option("--watch", is_flag=True, help="Look again and again until Ctrl-C; on a terminal in place.")
@click.option(
    "--every",
    default=2.0,
    show_default=True,
    type=NumberRange(0.1, 3600),
    help="Seconds between two looks of --watch.",
)
@click.option(
    "--fail-if",
    callback=thresholds,
    multiple=True,
    metavar="THRESHOLD",
    help="What is critical, such as 'dead>0'.",
)
@click.option(
    "--warn-if", callback=thresholds, multiple=True, metavar="THRESHOLD", help="What is worth a warning."
)
def status(
    config_path: Path,
    as_json: bool,
    watch: bool,
    every: float,
    fail_if: "list[Threshold]",
    warn_if: "list[Threshold]",
) -> int:
    """Show the depth of the queue, its lane, and the last hour and day.

    \b
    pending   written and not finished: due + in flight + retrying
    due       ready, not tried yet
    dead      given up, with a reason: see `outboxd events --dead`
    window    in sync_mode batch: when the next one opens, and what the last one did
    trouble   what keeps the daemon from draining, and since when
    imports   what Brevo is importing; its customers wait until that has ended

    With --fail-if and --warn-if, each as often as you like, it is a check for cron, Nagios and their kind. A
    threshold is a name, one of > >= < <= = != and a value:

    \b
    pending, due, in_flight, retrying, dead   a number: pending>1000
    oldest       age of the oldest pending event: oldest>15m (ms, s, m, h, d)
    heartbeat    since the daemon's last sign of life: heartbeat>2m
    latency      95th percentile of the last hour: latency>30s
    error_rate   failed attempts of the last hour: error_rate>5%
    lane         running, waiting, blocked, paused, disabled: lane!=running

    \b
    Examples:
      outboxd status
      outboxd status --watch
      outboxd status --json | jq .pending
      outboxd status --fail-if 'dead>0' --fail-if 'heartbeat>2m' --warn-if 'oldest>15m'

    Exit codes: 0 shown; 66 there is no outbox. With thresholds those of Nagios instead: 0 OK, none is met;
    1 WARNING, a --warn-if is met; 2 CRITICAL, a --fail-if is met; 3 UNKNOWN, whatever keeps it from an
    answer: no outbox, a wrong configuration, a wrong option.
    """
    if watch and (fail_if or warn_if):
        raise click.UsageError("--watch goes on until Ctrl-C; a check with thresholds is one look")
    settings = config.read(config_path)
    if watch:
        _watch(settings, every, as_json=as_json)
        return 0
    now = clock.wall()
    facts = _facts(settings, now)
    alarm = _alarm(fail_if, warn_if, facts, now)
    click.echo(_text(facts, now, alarm, as_json=as_json))
    return int(alarm.level) if alarm else 0


def _watch(settings: Config, every: float, *, as_json: bool) -> None:
    from outboxd.cli.watch import is_possible, live

    try:
        if is_possible() and not as_json:
            live(settings, rows, every)
        while True:
            now = clock.wall()
            facts = _facts(settings, now)
            click.echo(json.dumps(facts) if as_json else table(facts, now))
            time.sleep(every)
    except KeyboardInterrupt:  # that is how one leaves it
        return


def _facts(settings: Config, now: datetime) -> dict[str, Any]:
    with database.reading(settings.database) as connection:
        database.check_revision(settings.database, database.revision(connection))
        facts = report.status(connection, now, enabled=settings.enabled, sync_mode=settings.sync_mode)
    return {**facts, **host.facts(settings.database)}


def _alarm(
    fail_if: "list[Threshold]", warn_if: "list[Threshold]", facts: dict[str, Any], now: datetime
) -> "Alarm | None":
    if not fail_if and not warn_if:
        return None
    from outboxd.cli.alarm import judge

    return judge(fail_if, warn_if, facts, now)


def _text(facts: dict[str, Any], now: datetime, alarm: "Alarm | None", *, as_json: bool) -> str:
    if as_json:
        return json.dumps({**facts, "check": alarm.as_json} if alarm else facts, indent=2)
    return f"{alarm.line}\n\n{table(facts, now)}" if alarm else table(facts, now)


def rows(facts: dict[str, Any], now: datetime) -> list[tuple[str, str]]:
    """How things are now, for people: what it is called, and what it is."""
    told = [
        ("pending", f"{facts['pending']:,}"),
        ("  due", f"{facts['due']:,}"),
        ("  in flight", f"{facts['in_flight']:,}"),
        ("  retrying", f"{facts['retrying']:,}"),
        ("dead", f"{facts['dead']:,}"),
        ("delivered", f"{facts['delivered']:,}"),
        ("oldest pending", ago(facts["oldest_pending_seconds"])),
        ("next attempt", _next(facts["next_attempt_at"], now)),
        ("lane", _lane(facts["lane"], facts["pause"], now)),
        ("last heartbeat", when(facts["heartbeat_at"], now) if facts["heartbeat_at"] else "never"),
    ]
    if (trouble := facts["trouble"]) is not None:
        hint = f"; {trouble['hint']}" if trouble["hint"] else ""
        told.append(("trouble", f"{trouble['reason']} (since {when(trouble['since'], now)}){hint}"))
    told += [("disk", f"{each['fault']}; {each['mend']}") for each in facts["disk"]]
    if facts["window"] is not None:
        told += _batch_window(facts["window"], now)
    if facts["imports"]:
        told.append(("imports", _imports(facts["imports"], now)))
    if facts["notifications"]["dead"]:
        given_up = f"{facts['notifications']['dead']:,} given up: see outboxd notifications --dead"
        told.append(("notifications", given_up))
    for warning in facts["warnings"]:
        told.append(("warning", f"{warning['warning']} ({counted(warning['count'], 'time')})"))
    return [(name, printable(value)) for name, value in told]


def _next(at: str | None, now: datetime) -> str:
    is_due = at is not None and clock.from_text(at) <= now
    return f"{'due ' if is_due else ''}{when(at, now)}"


def table(facts: dict[str, Any], now: datetime) -> str:
    """The facts for people."""
    lines = [f"{name:<16}{value}" for name, value in rows(facts, now)]
    lines += ["", f"{'':<16}{'last hour':>12}{'last day':>12}"]
    hour, day = facts["windows"]["hour"], facts["windows"]["day"]
    for (name, last_hour), (_, last_day) in zip(_window(hour), _window(day), strict=True):
        lines.append(f"{name:<16}{last_hour:>12}{last_day:>12}")
    return "\n".join(lines)


def _batch_window(window: dict[str, Any], now: datetime) -> list[tuple[str, str]]:
    if window["is_open"]:
        return [("window", f"open since {when(window['opened_at'], now)}: {window['reason']}")]
    rows = [("window", f"closed, next {when(window['next_at'], now)}")]
    if window["closed_at"]:
        calls = counted(window["calls"], "call")
        result = f"{window['delivered']:,} delivered, {window['dead']:,} dead, {calls}"
        rows.append(("last window", f"{when(window['closed_at'], now)} ({window['reason']}): {result}"))
    return rows


def _imports(imports: list[dict[str, Any]], now: datetime) -> str:
    rows = counted(sum(each["rows"] for each in imports), "row")
    return f"{len(imports)} under way, {rows}, the first begun {when(imports[0]['started_at'], now)}"


def _window(window: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("delivered", f"{window['delivered']:,}"),
        ("failed", f"{window['failed']:,}"),
        ("success rate", percent(window["success_rate"])),
        ("error rate", percent(window["error_rate"])),
        *((f"latency {name}", latency(value)) for name, value in window["latency_ms"].items()),
    ]


def _lane(lane: dict[str, Any], pause: dict[str, Any] | None, now: datetime) -> str:
    told = str(lane["state"])
    if lane["reason"]:
        told += f": {lane['reason']}"
    if pause and lane["state"] == "paused":
        told += f" ({when(pause['since'], now)}, by {pause['by']}; outboxd resume)"
    if lane["until"]:
        told += f" (next try {when(lane['until'], now)})"
    return told
