"""`status --watch`: the figures as they change. In place on a terminal, else one report after the other."""

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from outboxd import clock, database, report
from outboxd.cli import host
from outboxd.cli.figures import BLOCKS, PLAIN, latency, percent, spark
from outboxd.config import Config

SPAN = timedelta(seconds=10)
"""Over so long rates are taken."""

STYLES = {"running": "green", "waiting": "yellow", "blocked": "bold red", "disabled": "yellow"}

PERCENTILES = ("p50", "p95", "p99")

NAMES = 16
"""The width of the first column."""

Rows = Callable[[dict[str, Any], datetime], list[tuple[str, str]]]
"""The figures of one look as lines: what they are called, and what they are."""


class Look(NamedTuple):
    """What one look at the outbox found."""

    at: datetime
    facts: dict[str, Any]
    counted: dict[str, int]
    history: list[int]


def is_possible() -> bool:
    """Whether stdout is a terminal on which something can change in place."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return is_terminal and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def live(settings: Config, rows: Rows, every: float) -> None:
    """Show `rows` and how they change, in place, until interrupted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # give the screen back first
    console = Console(highlight=False, markup=False, emoji=False)
    looks: deque[Look] = deque()
    with Live(console=console, screen=True, auto_refresh=False) as view:
        while True:
            looks.append(_look(settings))
            while looks[-1].at - looks[0].at > SPAN:
                looks.popleft()
            view.update(frame(looks[0], looks[-1], rows, console), refresh=True)
            time.sleep(every)


def _look(settings: Config) -> Look:
    now = clock.wall()
    with database.reading(settings.database) as connection:
        database.check_revision(settings.database, database.revision(connection))
        facts = report.status(connection, now, enabled=settings.enabled, sync_mode=settings.sync_mode)
        totals = report.totals(connection)
        history = report.history(connection, now)
    counted = {
        "written": totals["written"][""],
        "delivered": facts["delivered"],
        "calls": totals.get("calls", {}).get("", 0),
    }
    return Look(now, {**facts, **host.facts(settings.database)}, counted, history)


def frame(first: Look, last: Look, rows: Rows, console: Console) -> RenderableType:
    """One picture: the rates are those between the two looks. No line is wider than the console."""
    names = min(NAMES, console.width // 2)
    shown = Table.grid(padding=(0, 1, 0, 0))
    shown.add_column(width=names, overflow="fold")
    shown.add_column(overflow="fold")
    shown.add_row(Text(f"{clock.to_text(last.at)[11:19]} UTC", "bold"), Text("Ctrl-C ends it", "dim"))
    told = rows(last.facts, last.at)
    for name, value in [row for row in told if row[0] != "warning"]:
        shown.add_row(name, Text(value, _style(name, last.facts)))
    hour = last.facts["windows"]["hour"]
    shown.add_row("rate", rate(first, last))
    shown.add_row("errors", f"{percent(hour['error_rate'])} of attempts, last hour")
    shown.add_row("latency", ", ".join(f"{name} {latency(hour['latency_ms'][name])}" for name in PERCENTILES))
    bars = last.history[-max(1, console.width - names - 2) :]
    levels = PLAIN if console.options.ascii_only else BLOCKS
    shown.add_row("last hour", Text(spark(bars, levels=levels), "cyan"))
    shown.add_row("", Text(f"delivered a minute, at most {max(bars):,}", "dim"))
    for name, value in [row for row in told if row[0] == "warning"]:  # many, and the least urgent
        shown.add_row(name, value)
    return shown


def rate(first: Look, last: Look) -> str:
    """What went in, out and over the wire each second between two looks; unknown at the first one."""
    seconds = (last.at - first.at).total_seconds()
    if seconds <= 0:
        return "-"
    each = [f"{(last.counted[name] - first.counted[name]) / seconds:,.1f} {name}" for name in last.counted]
    return f"{', '.join(each)} a second"


def _style(name: str, facts: dict[str, Any]) -> str:
    if name == "lane":
        return STYLES.get(facts["lane"]["state"], "")
    return "bold red" if name == "dead" and facts["dead"] else ""
