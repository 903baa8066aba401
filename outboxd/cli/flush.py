"""`flush`: open a batch window now."""

from contextlib import closing
from datetime import timedelta
from pathlib import Path

import click

from outboxd import app, clock, config, database, report
from outboxd.cli.options import config_option
from outboxd.errors import EX_TEMPORARY

LIVELY = timedelta(minutes=2)
"""How old the heartbeat of a daemon that runs can be."""


@click.command()
@config_option
def flush(config_path: Path) -> int:
    """Open a batch window now, whatever the schedule says.

    For sync_mode batch. The running daemon takes everything that waits; `outboxd status` shows how it gets
    on. Without a daemon, `outboxd drain` does the same and returns when all is done.

    \b
    Example:
      outboxd flush && outboxd status --watch

    Exit codes: 0 the window opens; 75 no daemon runs, or deliveries are paused: it opens as soon as that
    ends.
    """
    settings = config.read(config_path)
    if settings.sync_mode != "batch":
        click.echo(f"nothing waits for a window: sync_mode is {settings.sync_mode}", err=True)
        return 0
    now = clock.wall()
    with closing(app.outbox(settings)) as outbox:
        outbox.save_state({"flush": clock.to_text(now)}, now)
    with database.reading(settings.database) as connection:
        facts = report.status(connection, now, enabled=True)
    beat = facts["heartbeat_at"]
    if facts["lane"]["state"] == "paused":
        click.echo("deliveries are paused: the window opens after outboxd resume", err=True)
        return EX_TEMPORARY
    if beat is None or now - clock.from_text(beat) > LIVELY:
        click.echo("no daemon runs: the window opens as soon as one does, or run: outboxd drain", err=True)
        return EX_TEMPORARY
    click.echo("the window opens now")
    return 0
