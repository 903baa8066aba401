"""`explain`: what would be sent for an event, and why, without sending it."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from outboxd import app, clock, config, database, report
from outboxd.cli.options import config_option, json_option
from outboxd.cli.table import printable
from outboxd.config import Config
from outboxd.errors import NoOutboxError
from outboxd.explain import Explainer, Facts
from outboxd.intake.lines import read_text, take

MOST = 100
"""Events of one file."""

LONGEST = 18
"""Digits of an event's id, as far as SQLite counts."""


@click.command()
@config_option
@json_option
@click.option("--reveal", is_flag=True, help="Show personal data. Without it the output is fit for a ticket.")
@click.option("--offline", is_flag=True, help="Do not ask Brevo which attributes it has.")
@click.option("--event", metavar="NAME", help="Of a file: which event it is, unless it says so itself.")
@click.option("--source", metavar="NAME", help="Of a file: whose events they are. Default: as configured.")
@click.argument("target", metavar="ID|FILE")
def explain(
    config_path: Path,
    as_json: bool,
    reveal: bool,
    offline: bool,
    event: str | None,
    source: str | None,
    target: str,
) -> int:
    """Tell what would be sent to Brevo for an event, and why. Nothing is sent, nothing is written.

    ID is an event of the outbox, whatever became of it: finished ones are explained as if they were tried
    again now. FILE (`-` is standard input) holds events as `outboxd-intake` takes them. Shown are the
    customer it is admitted as, what each field is mapped to or why it is left out, the events it is folded
    with, and the exact requests. Of values only the first letter is shown, unless --reveal is given.

    \b
    Examples:
      outboxd explain 17
      outboxd explain --event customer_updated customer.json

    Exit codes: 0 explained; 1 it would be a dead letter; 65 the file holds no event; 66 there is no such
    event or file.
    """
    settings = config.read(config_path)
    explainer = _explainer(settings, is_revealed=reveal, is_offline=offline)
    now = clock.wall()
    if target.isdecimal():
        if event or source:
            raise click.UsageError("--event and --source are of a file; an event of the outbox has its own")
        if len(target) > LONGEST:
            raise NoOutboxError(f"there is no event {target}", hint="see: outboxd events")
        with database.reading(settings.database) as connection:
            database.check_revision(settings.database, database.revision(connection))
            stored = report.event(connection, int(target)) or {}
        told = [_stored(stored) | explainer.event(int(target), now)]
    else:
        rows, _ = take(read_text(target, sys.stdin), {"event": event, "source": source})
        if len(rows) > MOST:
            raise click.UsageError(
                f"explain takes up to {MOST} events at a time; the file holds {len(rows):,}"
            )
        told = explainer.written(rows, now)
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo("\n\n".join("\n".join(map(printable, _tree(facts))) for facts in told))
    return 1 if any(facts["verdict"] == "refused" for facts in told) else 0


def _explainer(settings: Config, *, is_revealed: bool, is_offline: bool) -> Explainer:
    catalogue, why_not = (None, "--offline") if is_offline else app.catalogue(settings, os.environ)
    if why_not:
        click.echo(f"not checked: the types of Brevo's attributes ({why_not})", err=True)
    return Explainer(
        settings.database,
        settings.source,
        app.plan(settings),
        catalogue,
        settings.brevo.base_url,
        is_revealed=is_revealed,
    )


def _stored(row: dict[str, Any]) -> Facts:
    names = ("status", "attempts", "next_attempt_at", "finished_at", "last_error")
    return {name: row.get(name) for name in names}


def _tree(facts: Facts) -> Iterator[str]:
    """The facts of one event for people, indented by what belongs to what."""
    named = f": {facts['name']}, source {facts['source']}" if facts["name"] else ""
    is_stored = "status" in facts
    yield f"{'event ' if is_stored else ''}{facts['event']}{named}"
    if is_stored:
        yield from _line(2, "stands", f"{facts['status']}, attempts {facts['attempts']}")
        yield from _line(2, "next try", facts["next_attempt_at"] if facts["status"] == "pending" else None)
        label = "warning" if facts["status"] == "delivered" else "last error"
        yield from _line(2, label, facts["last_error"])
    yield from _line(2, "admitted as", facts["customer"])
    yield from _line(2, "would be", facts["verdict"])
    yield from _line(2, "why", facts["why"])
    if "mapping" in facts:
        yield from _line(2, "says", f"{facts['kind']}, as of {facts['version_at']}")
        yield from _line(2, "address", facts["email"])
        for rule in facts["mapping"]:
            told = f"left out: {rule['left_out']}" if "left_out" in rule else _json(rule["value"])
            yield f"    {rule['attribute']} <- {rule['field']}: {told}"
        yield from _line(4, "absent", ", ".join(facts["absent"]))
        yield from _line(4, "no rule for", ", ".join(facts["no_rule"]))
        yield from _line(2, "differs", ", ".join(facts["differs"]))
        yield from _line(2, "unchanged", ", ".join(facts["unchanged"]))
        yield from _line(2, "outdated", ", ".join(facts["outdated"]))
        yield from _line(2, "folded with", ", ".join(map(str, facts["folded_with"])))
    for part in facts["parts"]:
        yield f"  {part['change']}: {part['why']}"
        if len(facts["parts"]) > 1:
            yield from _line(4, "of events", ", ".join(map(str, part["events"])))
        yield from _line(4, "consent", part["consent"])
        for request in part["requests"]:
            yield f"    {request['method']} {request['url']}"
            if request["body"] is not None:
                yield f"    {_json(request['body'])}"


def _line(indent: int, name: str, told: str | None) -> Iterator[str]:
    if told:
        yield f"{' ' * indent}{name:<{16 - indent}}{told}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
