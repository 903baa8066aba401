"""`pause` and `resume`: hold deliveries, and let them go on."""

from contextlib import closing
from datetime import datetime
from pathlib import Path

import click

from outboxd import app, clock, config
from outboxd.cli.operator import operator
from outboxd.cli.options import config_option, json_option
from outboxd.outbox import Outbox
from outboxd.pause import KEY, Pause, standing


@click.command()
@config_option
@json_option
@click.option("--reason", metavar="TEXT", help="Why; `outboxd status` shows it.")
def pause(config_path: Path, as_json: bool, reason: str | None) -> int:
    """Send nothing to Brevo from now on, until `outboxd resume`.

    Holds for every daemon and every drain of this outbox, and over restarts. The running daemon heeds it at
    once: what is in flight ends, imports that Brevo has are seen through, and events are still taken in.
    A pause that is on already stays as it is, but for a new reason.

    \b
    Example:
      outboxd pause --reason "the mapping is being mended"

    Exit codes: 0 paused, also if it was before; 66 there is no outbox.
    """
    with _opened(config_path) as outbox:
        now = clock.wall()
        before = standing(outbox.state(KEY))
        if before is not None and reason is None:
            made = before
        elif before is not None:
            made = Pause(True, before.since, before.by, reason)
        else:
            made = Pause(True, now, operator(), reason)
        _keep(outbox, made, now)
    if as_json:
        click.echo(made.as_state())
    elif before is not None:
        click.echo(f"paused already, since {clock.to_text(before.since)} by {before.by}")
    else:
        click.echo("paused: events are taken in, and nothing is sent until: outboxd resume")
    return 0


@click.command()
@config_option
@json_option
@click.option("--reason", metavar="TEXT", help="Why; kept with the time, see `outboxd status --json`.")
def resume(config_path: Path, as_json: bool, reason: str | None) -> int:
    """Let deliveries go on after `outboxd pause`.

    \b
    Example:
      outboxd resume

    Exit codes: 0 nothing is paused any more, also if nothing was; 66 there is no outbox.
    """
    with _opened(config_path) as outbox:
        now = clock.wall()
        before = standing(outbox.state(KEY))
        made = Pause(False, now, operator(), reason)
        if before is not None:
            _keep(outbox, made, now)
    if as_json:
        click.echo(made.as_state())
    elif before is None:
        click.echo("nothing was paused")
    else:
        click.echo(f"deliveries go on; they were paused since {clock.to_text(before.since)} by {before.by}")
    return 0


def _opened(config_path: Path) -> closing[Outbox]:
    return closing(app.outbox(config.read(config_path)))


def _keep(outbox: Outbox, made: Pause, now: datetime) -> None:
    outbox.save_state({KEY: made.as_state()}, now)
