"""`status`: the queue's depth, and whether all is well."""

import time
from pathlib import Path
from typing import Any

import click

from outboxd import clock, config, database, report
from outboxd.cli.options import config_option, json_option

EVERY = 2.0
"""Seconds between two looks of `--watch`."""


@click.command()
@config_option
@json_option
@click.option("--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
def status(config_path: Path, as_json: bool, watch: bool) -> int:
    """Show the depth of the queue, its lane, and the last hour and day.

    \b
    pending   written and not finished: due + in flight + retrying
    due       ready, not tried yet
    dead      given up, with a reason: see `outboxd events --dead`
    window    in sync_mode batch: when the next one opens, and what the last one did
    imports   what Brevo is importing; its customers wait until that has ended

    \b
    Examples:
      outboxd status
      outboxd status --json | jq .pending

    Exit codes: 0 shown; 66 there is no outbox.
    """
    settings = config.read(config_path)
    while True:
        now = clock.wall()
        with database.reading(settings.database) as connection:
            database.check_revision(settings.database, database.revision(connection))
            facts = report.status(connection, now, enabled=settings.enabled, sync_mode=settings.sync_mode)
        if as_json:
            import json

            text = json.dumps(facts, indent=None if watch else 2)
        else:
            text = table(facts, now)
        if watch and not as_json:
            click.clear()
        click.echo(text)
        if not watch:
            return 0
        time.sleep(EVERY)


def table(facts: dict[str, Any], now: Any) -> str:
    """The facts for people."""
    rows = [
        ("pending", f"{facts['pending']:,}"),
        ("  due", f"{facts['due']:,}"),
        ("  in flight", f"{facts['in_flight']:,}"),
        ("  retrying", f"{facts['retrying']:,}"),
        ("dead", f"{facts['dead']:,}"),
        ("delivered", f"{facts['delivered']:,}"),
        ("oldest pending", ago(facts["oldest_pending_seconds"])),
        ("next attempt", _when(facts["next_attempt_at"], now)),
        ("lane", _lane(facts["lane"], facts["pause"], now)),
        ("last heartbeat", _when(facts["heartbeat_at"], now) if facts["heartbeat_at"] else "never"),
    ]
    if facts["window"] is not None:
        rows += _batch_window(facts["window"], now)
    if facts["imports"]:
        rows.append(("imports", _imports(facts["imports"], now)))
    if facts["notifications"]["dead"]:
        told = f"{facts['notifications']['dead']:,} given up: see outboxd notifications --dead"
        rows.append(("notifications", told))
    lines = [f"{name:<16}{value}" for name, value in rows]
    lines += ["", f"{'':<16}{'last hour':>12}{'last day':>12}"]
    hour, day = facts["windows"]["hour"], facts["windows"]["day"]
    for warning in facts["warnings"]:
        lines.insert(len(rows), f"{'warning':<16}{warning['warning']} ({warning['count']:,} times)")
    for (name, last_hour), (_, last_day) in zip(_window(hour), _window(day), strict=True):
        lines.append(f"{name:<16}{last_hour:>12}{last_day:>12}")
    return "\n".join(lines)


def _batch_window(window: dict[str, Any], now: Any) -> list[tuple[str, str]]:
    if window["is_open"]:
        return [("window", f"open since {_when(window['opened_at'], now)}: {window['reason']}")]
    rows = [("window", f"closed, next {_when(window['next_at'], now)}")]
    if window["closed_at"]:
        result = f"{window['delivered']:,} delivered, {window['dead']:,} dead, {window['calls']:,} calls"
        rows.append(("last window", f"{_when(window['closed_at'], now)} ({window['reason']}): {result}"))
    return rows


def _imports(imports: list[dict[str, Any]], now: Any) -> str:
    rows = sum(each["rows"] for each in imports)
    return f"{len(imports)} under way, {rows:,} rows, the first begun {_when(imports[0]['started_at'], now)}"


def _window(window: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("delivered", f"{window['delivered']:,}"),
        ("failed", f"{window['failed']:,}"),
        ("success rate", _percent(window["success_rate"])),
        ("error rate", _percent(window["error_rate"])),
        *((f"latency {name}", _latency(value)) for name, value in window["latency_ms"].items()),
    ]


def ago(seconds: float | None) -> str:
    """A duration in the two largest units that say something."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    for size, unit, smaller, size_below in (
        (86_400, "d", "h", 3_600),
        (3_600, "h", "min", 60),
        (60, "min", "s", 1),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // size_below} {smaller}"
    return f"{whole} s"


def _when(text: str | None, now: Any) -> str:
    if text is None:
        return "-"
    seconds = (clock.from_text(text) - now).total_seconds()
    return f"in {ago(seconds)}" if seconds > 0 else f"{ago(-seconds)} ago"


def _lane(lane: dict[str, Any], pause: dict[str, Any] | None, now: Any) -> str:
    told = str(lane["state"])
    if lane["reason"]:
        told += f": {lane['reason']}"
    if pause and lane["state"] == "paused":
        told += f" ({_when(pause['since'], now)}, by {pause['by']}; outboxd resume)"
    if lane["until"]:
        told += f" (next try {_when(lane['until'], now)})"
    return told


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"


def _latency(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds:,} ms" if milliseconds < 10_000 else ago(milliseconds / 1000)
