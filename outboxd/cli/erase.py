"""`erase`: one person leaves, in Brevo and here."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import click

from outboxd import app, config
from outboxd.cli.consent import ask
from outboxd.cli.figures import counted
from outboxd.cli.options import config_option, json_option
from outboxd.erase import Erasure, Known


@click.command()
@config_option
@json_option
@click.option("--dry-run", is_flag=True, help="Say what would go, and leave it.")
@click.option("--yes", is_flag=True, help="Erase without asking.")
@click.argument("whom", metavar="EMAIL|ID")
def erase(config_path: Path, as_json: bool, dry_run: bool, yes: bool, whom: str) -> int:
    """Erase one person for good: the contact in Brevo, and all that is kept of them here.

    By an address they have or had, or by the shop's id (source:id if several shops have it); - reads it
    from standard input, so that neither `ps` nor the shell's history has it. All of their events go, dead
    letters among them. A hashed tombstone stays, so that late events do not bring them back; a new
    registration does. Then the bytes of the file are searched for their addresses, phones and names. The
    daemon may run.

    \b
    Examples:
      outboxd erase --dry-run jane@example.com
      outboxd erase shopify:4711 --yes

    Exit codes: 0 erased, and no trace is left; 1 some are: see what is said, or the answer was no; 66 nobody
    has this id, or several have; 75 not now: Brevo is out of reach, or another process delivers them just
    now.
    """
    settings = config.read(config_path)
    if whom == "-":  # bytes: whether they are text is for us to say, not for the locale
        whom = sys.stdin.buffer.readline().decode(errors="surrogateescape")
    whom = whom.strip()
    if not whom.isprintable():
        raise click.UsageError("EMAIL|ID is not text; write it in UTF-8")
    key = config.api_key(settings.brevo, os.environ)
    with app.erasing(settings, key) as eraser:
        known = eraser.known(whom)
    if dry_run and as_json:
        click.echo(json.dumps(_plain(known)))
    elif not (yes and as_json):
        _describe(known, err=as_json)
    if dry_run:
        return 0
    if not yes:
        ask("Erase for good?")  # beside nobody: a daemon that starts meanwhile takes over what was left
    with app.erasing(settings, key) as eraser:
        erasure = eraser.erase(whom)
    if as_json:
        told = {each.name: getattr(erasure, each.name) for each in fields(erasure)}
        click.echo(json.dumps({**told, "is_complete": erasure.is_complete}))
    else:
        _tell(erasure)
    return 0 if erasure.is_complete else 1


def _plain(known: Known) -> Mapping[str, object]:
    customers = [each.customer_key for each in known.persons]
    return {"customers": customers, "events": known.events, "mentions": known.mentions}


def _describe(known: Known, *, err: bool) -> None:
    """Who it is, and what is theirs; to stderr where stdout is a program's."""
    if not known.persons:
        click.echo("nobody here has this address; Brevo may know it from elsewhere", err=err)
    for each in known.persons:
        click.echo(f"customer {each.customer_key}, and their contact in Brevo", err=err)
    click.echo(f"events of theirs: {_ids(known.events)}", err=err)
    if known.mentions:
        click.echo(f"events of other customers that mention them, and stay: {_ids(known.mentions)}", err=err)


def _tell(erasure: Erasure) -> None:
    for key, told in erasure.told.items():
        click.echo(f"customer {key}: in Brevo: {told}; here: a hashed tombstone is left")
    click.echo(f"{counted(erasure.events, 'event')} erased")
    if erasure.was_rewritten:
        click.echo("the file held traces of what had been deleted earlier, and was written anew")
    found = f"found {counted(erasure.left, 'time')}" if erasure.left else "none is left"
    click.echo(f"searched the file and its log, byte by byte, for {_kinds(erasure.searched)}: {found}")
    if erasure.shared:
        click.echo(f"not searched for, as other customers have the same: {_kinds(erasure.shared)}")
    if erasure.mentions:
        click.echo(f"outboxd: other customers' events mention them: {_ids(erasure.mentions)}", err=True)
    click.echo("backups that were made before still hold what they held", err=True)


def _kinds(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} of kind {kind}" for kind, count in counts.items()) or "nothing"


def _ids(ids: object) -> str:
    found = sorted(ids)  # type: ignore[call-overload]
    more = f" and {len(found) - 20} more" if len(found) > 20 else ""
    return (", ".join(map(str, found[:20])) or "none") + more
