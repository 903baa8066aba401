"""`events` and `show`: look at single events."""

import json
from pathlib import Path
from typing import Any

import click

from outboxd import config, database, report
from outboxd.cli.options import EVENT_ID, config_option, json_option
from outboxd.cli.table import print_record, print_table
from outboxd.errors import NoOutboxError


@click.command()
@config_option
@json_option
@click.option("--pending", is_flag=True, help="Only those not finished.")
@click.option("--delivered", is_flag=True, help="Only those delivered.")
@click.option("--dead", is_flag=True, help="Only dead letters, with their reasons.")
@click.option("--dropped", is_flag=True, help="Only dead letters that an operator dropped.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many.")
@click.option("--before", type=EVENT_ID, help="Only events with a smaller id: the next page.")
def events(config_path: Path, as_json: bool, limit: int, before: int | None, **only: bool) -> int:
    """List events, newest first.

    \b
    Examples:
      outboxd events --dead
      outboxd events --pending --limit 100 --json

    Exit codes: 0 listed; 66 there is no outbox.
    """
    wanted = [status for status, is_wanted in only.items() if is_wanted]
    if len(wanted) > 1:
        raise click.UsageError(f"say either --{' or --'.join(wanted)}")
    settings = config.read(config_path)
    with database.reading(settings.database) as connection:
        found = report.events(connection, status=next(iter(wanted), None), limit=limit, before=before)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return 0
    columns = ("id", "event", "status", "customer_key", "attempts", "created_at", "next", "note")
    print_table(columns, [{**row, "next": _next(row), "note": row["last_error"]} for row in found])
    return 0


@click.command()
@config_option
@json_option
@click.option("--payload", is_flag=True, help="Show the payload too. It holds personal data.")
@click.argument("event_id", metavar="ID", type=EVENT_ID)
def show(config_path: Path, as_json: bool, payload: bool, event_id: int) -> int:
    """Show one event and every attempt at it.

    \b
    Example:
      outboxd show 17

    Exit codes: 0 shown; 66 there is no such event.
    """
    settings = config.read(config_path)
    with database.reading(settings.database) as connection:
        found = report.event(connection, event_id, with_payload=payload)
    if found is None:
        raise NoOutboxError(f"there is no event {event_id}", hint="see: outboxd events")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return 0
    attempts = found.pop("attempts_made")
    print_record((_label(name, found), value) for name, value in found.items())
    if attempts:
        click.echo()
        print_table(
            ("number", "started_at", "verdict", "call", "http_status", "error_code", "detail"), attempts
        )
    return 0


def _label(name: str, row: dict[str, Any]) -> str:
    """What was healed or left out of a delivered event stands where its error would."""
    return "warning" if name == "last_error" and row["status"] == "delivered" else name


def _next(row: dict[str, Any]) -> str | None:
    return row["next_attempt_at"] if row["status"] == "pending" and row["attempts"] else None
