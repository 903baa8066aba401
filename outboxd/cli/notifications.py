"""`notifications`: what the operator's webhook is told, and what it would not take."""

import json
from contextlib import closing
from pathlib import Path

import click

from outboxd import app, clock, config, database, report
from outboxd.cli.figures import counted
from outboxd.cli.options import config_option, json_option
from outboxd.cli.table import print_table


@click.command()
@config_option
@json_option
@click.option("--dead", is_flag=True, help="Only those that were given up.")
@click.option("--retry", is_flag=True, help="Give those that were given up all their attempts again.")
@click.option("--drop", is_flag=True, help="Delete those that were given up.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many.")
def notifications(config_path: Path, as_json: bool, dead: bool, retry: bool, drop: bool, limit: int) -> int:
    """List the notifications to your webhook, newest first.

    Those that it has taken are kept as long as delivered events are; those that were given up, until you send
    them again or drop them.

    \b
    Examples:
      outboxd notifications --dead
      outboxd notifications --retry

    Exit codes: 0 listed; 66 there is no outbox.
    """
    if retry and drop:
        raise click.UsageError("say --retry or --drop, not both")
    settings = config.read(config_path)
    if retry or drop:
        with closing(app.outbox(settings)) as outbox:
            count = outbox.notices.drop() if drop else outbox.notices.revive(clock.wall())
        click.echo(f"{counted(count, 'notification')} {'dropped' if drop else 'to be sent again'}", err=True)
    with database.reading(settings.database) as connection:
        found = report.notifications(connection, dead=dead, limit=limit)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        print_table(("id", "type", "status", "attempts", "created_at", "last_error"), found)
    return 0
