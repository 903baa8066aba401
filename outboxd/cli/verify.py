"""`verify`: is in Brevo what we believe to be there? And the means to make it so."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from outboxd import app, clock, config, database, logs
from outboxd.brevo import listing
from outboxd.brevo.client import Brevo
from outboxd.brevo.limiter import Limiter
from outboxd.cli.figures import counted
from outboxd.cli.options import config_option, json_option
from outboxd.cli.table import print_table
from outboxd.config import Config
from outboxd.verify import Verification, Wishes, patiently
from outboxd.verify.comparison import Kind
from outboxd.verify.repair import Repair
from outboxd.verify.tally import Tally, attribute_of

CALLS = 2
"""Calls a second: the daemon beside it is not to be starved."""

Advance = Callable[[listing.Page | None], None]


@click.command()
@config_option
@json_option
@click.option("--repair", is_flag=True, help="Write events anew whose delivery makes Brevo agree.")
def verify(config_path: Path, as_json: bool, repair: bool) -> int:
    """Compare all contacts in Brevo with what outboxd delivered.

    It looks for contacts that are missing, attributes that were changed, opt-outs that are not in force, and
    customers that were deleted and are still there. Customers whose events wait, or were delivered
    meanwhile, are left out. Who unsubscribed in Brevo, or is not on the configured list, is told and left
    as it is; contacts that no event ever told of are counted.

    --repair calls nobody: it writes events anew, as far as their payloads are kept, and the daemon (or
    `outboxd drain`) delivers what differs, after all live events. Who unsubscribed in Brevo stays so; but a
    contact that somebody deleted in Brevo is made again.

    \b
    Examples:
      outboxd verify
      outboxd verify --repair && outboxd drain

    Exit codes: 0 all agrees, or will once the repair is delivered; 1 differences are left; 69 Brevo is out
    of reach; 75 Brevo refuses everybody.
    """
    settings = config.read(config_path)
    logs.set_up(settings.log_level)
    account = _account(settings)
    plan = app.plan(settings)
    ask = partial(patiently, sleep=time.sleep, tell=partial(click.echo, err=True))
    tally = Tally()
    with closing(app.outbox(settings)) as outbox, database.reading(settings.database) as connection:
        wishes = _wishes(settings, account, ask)
        mender = Repair(outbox, connection, plan.reading)
        verification = Verification(connection, wishes, clock=clock.wall)
        with _progress() as advance:
            for page, found in verification.differences(ask(listing.pages(account))):
                tally.add(found)
                if repair:
                    tally.add_repaired(mender.mend(found, clock.wall()))
                advance(page)
    if as_json:
        click.echo(json.dumps(_facts(verification, tally, repair=repair), indent=2))
    else:
        _show(verification, tally, settings.list_id, repair=repair)
    return 1 if tally.left else 0


def _account(settings: Config) -> Brevo:
    """The account, with limits of this command's own."""
    a_second = min(CALLS, settings.brevo.requests_per_second)
    limiter = Limiter([(a_second, 1.0), (settings.brevo.requests_per_hour, 3600.0)])
    return app.brevo(settings, config.api_key(settings.brevo, os.environ), limiter)


def _wishes(settings: Config, account: Brevo, ask: Any) -> Wishes:
    wanted = {attribute for name, attribute in settings.field_mapping.items() if name != "email"}
    catalogue = next(ask(iter(partial(account.attributes, wanted), None)))
    return Wishes(
        attributes={name: catalogue[name] for name in sorted(wanted) if name in catalogue},
        list_id=settings.list_id,
        deletes_softly=settings.delete_behavior == "soft",
    )


def _facts(verification: Verification, tally: Tally, *, repair: bool) -> dict[str, Any]:
    counts = {name: getattr(verification, name) for name in ("listed", "compared", "in_flux", "unknown")}
    return {
        "agrees": not tally.wrong,
        **counts,
        "differences": tally.differences(),
        "repair": tally.repair() if repair else None,
    }


def _show(verification: Verification, tally: Tally, list_id: int | None, *, repair: bool) -> None:
    attributes = [
        (f"{name} differs", count, attribute_of(name)) for name, count in tally.by_attribute.items()
    ]
    rows = [
        _counted(tally, Kind.MISSING, "missing in Brevo"),
        *attributes,
        _counted(tally, Kind.OPT_OUT, "opted out here, not blocklisted in Brevo"),
        _counted(tally, Kind.REMAINS, "deleted here, still in Brevo"),
        _counted(tally, Kind.UNSUBSCRIBED, "unsubscribed in Brevo, opted in here: left as it is"),
        _counted(tally, Kind.OFF_LIST, f"not on list {list_id}: left as it is"),
        ("in flux: left out", verification.in_flux, ""),
        ("in Brevo, unknown here: left alone", verification.unknown, ""),
    ]
    if repair:
        rows += [
            _counted(tally, "wholly", "to be repaired"),
            _counted(tally, "in_part", "to be repaired in part: some of their payloads are not kept"),
            _counted(tally, "overtaken", "had news meanwhile: left to it"),
            _counted(tally, "behind", "wait until another's opt-out of their contact is told: verify again"),
            _counted(tally, "beyond", "cannot be repaired from here: backfill them, or erase who is gone"),
        ]
    print_table(
        ("difference", "customers", "for example"),
        [
            {"difference": told, "customers": count, "for example": ", ".join(tally.examples(name))}
            for told, count, name in rows
            if count
        ],
    )
    compared = counted(verification.compared, "customer")
    click.echo(f"{compared} compared with {counted(verification.listed, 'contact')} in Brevo")
    if not tally.wrong:
        click.echo("all agrees")
    elif repair:
        written = counted(tally.count("events"), "event")
        click.echo(f"{written} written anew, for `outboxd run` or `outboxd drain` to deliver")
    else:
        differing = counted(tally.wrong, "customer")
        click.echo(f"{differing} with differences; to repair them: outboxd verify --repair")


def _counted(tally: Tally, name: str, told: str) -> tuple[str, int, str]:
    return told, tally.count(name), name


@contextmanager
def _progress() -> Iterator[Advance]:
    """A bar on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.finished_speed or task.speed or 0:,.0f} contacts/s")

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("contacts", total=None)

        def advance(page: listing.Page | None) -> None:
            if page is not None:
                progress.update(task, total=page.count, advance=len(page.contacts))

        yield advance
