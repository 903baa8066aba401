"""`backup` and `restore`: the outbox as a file that is kept elsewhere, and back."""

import os
import socket
from functools import partial
from pathlib import Path

import click

from outboxd import app, clock, config
from outboxd.backup import back_up
from outboxd.cli.options import config_option
from outboxd.cli.progress import bar
from outboxd.restore import Restored
from outboxd.restore import restore as restore_

PATH = click.Path(path_type=Path, dir_okay=False)


@click.command()
@config_option
@click.option("--force", is_flag=True, help="Overwrite PATH.")
@click.argument("path", metavar="PATH", type=PATH)
def backup(config_path: Path, force: bool, path: Path) -> int:
    """Copy the outbox to PATH, while shops write and the daemon drains.

    The copy is one state of the outbox, checked before it gets its name, and complete: one file, readable by
    its directory's group. It holds personal data as the outbox does.

    \b
    Example:
      outboxd backup /var/backups/outbox-$(date +%F).db

    Exit codes: 0 done; 65 PATH is there already, or no file; 66 there is no outbox; 74 no room, or a damaged
    outbox; 78 the outbox is of another version.
    """
    settings = config.read(config_path)
    with bar("copying") as advance:
        needed = config.files(config_path, settings)
        size = back_up(settings.database, path.absolute(), force=force, needed=needed, advance=advance)
    click.echo(f"{path}: {size / 2**20:,.1f} MB, checked")
    return 0


@click.command()
@config_option
@click.option("--hold", is_flag=True, help="Make dead letters of what is pending in the backup.")
@click.option("--resend", is_flag=True, help="Send what is pending in the backup, again.")
@click.argument("path", metavar="BACKUP", type=PATH)
def restore(config_path: Path, hold: bool, resend: bool, path: Path) -> int:
    """Put a backup in the place of the outbox, of which a copy is kept beside it. Stop the daemon first.

    What is pending in the backup may have been delivered since it was made: --hold makes dead letters of it,
    for `outboxd retry` by hand; --resend sends it all again, old news over newer ones. What shops wrote
    since the backup is in the copy alone. Persons who were erased since stay erased.

    \b
    Examples:
      outboxd restore /var/backups/outbox-2026-11-24.db --hold
      outboxd events --dead

    Exit codes: 0 done; 64 say --hold or --resend; 65 not a sound backup; 66 there is no such file; 74 no
    room; 75 a daemon drains the outbox; 78 the backup is of a newer outboxd.
    """
    if hold and resend:
        raise click.UsageError("say --hold or --resend, not both")
    settings = config.read(config_path)
    now = clock.wall()
    who = f"outboxd restore, process {os.getpid()} on {socket.gethostname()} since {clock.to_text(now)}"
    with bar("copying") as advance:
        restored = restore_(
            path.absolute(),
            settings.database,
            now,
            who=who,
            admit=partial(app.admit, settings, now=now),
            hold=hold if hold or resend else None,
            advance=advance,
        )
    _tell(restored, settings.database, hold=hold)
    return 0


def _tell(restored: Restored, outbox: Path, *, hold: bool | None) -> None:
    then = restored.then
    click.echo(f"{outbox}: restored")
    if then.pending:
        told = "dead letters now: see outboxd events --dead" if hold else "sent when the daemon starts"
        click.echo(f"pending in the backup: {then.pending:,} ({told})")
    if then.erased:
        click.echo(f"erased since, and here as well: {then.erased:,}")
    if restored.aside is not None:
        click.echo(f"what was there is kept: {restored.aside}")
    if restored.aside is not None and restored.was_moved:
        click.echo("it was damaged, and is that file: restart programs that have it open", err=True)
    if then.lost is None:
        click.echo("erase those again who were erased since the backup was made", err=True)
    elif then.lost:
        told = f"written since, and there alone: {then.lost:,} (not delivered yet: {then.undelivered:,})"
        click.echo(told, err=True)
    click.echo("contacts are known here as they were then; compare them with Brevo: outboxd verify", err=True)
