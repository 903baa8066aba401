"""`prune`: remove what is over and past its time, now."""

import json
from contextlib import closing
from pathlib import Path

import click

from outboxd import clock, config, database, report
from outboxd.cli.figures import counted
from outboxd.cli.options import config_option, json_option
from outboxd.cli.progress import bar
from outboxd.outbox.pruning import Pruning
from outboxd.prune import sweep

NAMES = {
    "events": "delivered event",
    "dropped": "dropped letter",
    "notifications": "notification",
    "imports": "import",
    "counters": "minute",
}


@click.command()
@config_option
@json_option
@click.option("--dry-run", is_flag=True, help="Say what would go, and leave it.")
def prune(config_path: Path, as_json: bool, dry_run: bool) -> int:
    """Remove what is past the time that the section `retention` gives it. The daemon does so by itself.

    Delivered events go and the attempts at them, dropped dead letters, notifications that were delivered,
    imports that have ended, and old counters, and the file gives back what they took up. What is pending, and
    what is dead, stays. Writers and the daemon need not wait: it is done in small steps.

    \b
    Examples:
      outboxd prune --dry-run
      outboxd prune

    Exit codes: 0 done; 66 there is no outbox.
    """
    settings = config.read(config_path)
    now = clock.wall()
    with database.reading(settings.database) as connection:
        database.check_revision(settings.database, database.revision(connection))
        found = report.past_retention(connection, settings.retention, now)
    removed = dict.fromkeys((*found, "pages"), 0)
    if not dry_run:
        with closing(Pruning(settings.database)) as pruning, bar("pruning") as advance:
            for what, number in sweep(pruning, settings.retention, now):
                removed[what] += number
                advance(sum(removed[each] for each in found), sum(found.values()))
    told = found if dry_run else removed
    if as_json:
        click.echo(json.dumps(told))
        return 0
    verb = "would go" if dry_run else "gone"
    things = ", ".join(counted(told[what], name) for what, name in NAMES.items())
    click.echo(f"{things} of counters {verb}")
    if told["attempts"]:
        click.echo(f"and the attempts at {counted(told['attempts'], 'event')}, which will stay")
    return 0
