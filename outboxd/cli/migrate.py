"""`migrate`: make the outbox, or bring it to the current schema."""

from pathlib import Path

import click

from outboxd import config, database
from outboxd.cli.options import config_option


@click.command()
@config_option
def migrate(config_path: Path) -> int:
    """Create the outbox, or bring it to the current schema. `outboxd run` does so too.

    \b
    Example:
      outboxd migrate

    Exit codes: 0 it is current; 78 it was made by a newer outboxd.
    """
    settings = config.read(config_path)
    before, after = database.migrate(settings.database)
    if before == after:
        click.echo(f"{settings.database}: the schema is current ({after})")
    else:
        click.echo(f"{settings.database}: brought from schema {before or 'none'} to {after}")
    return 0
