"""`run` and `drain`: deliver for good, or once."""

import os
from pathlib import Path

import click

from outboxd import app, clock, config, logs
from outboxd.cli.options import config_option, shared_option
from outboxd.errors import EX_TEMPORARY


@click.command()
@config_option
@shared_option
def run(config_path: Path, shared: bool) -> int:
    """Drain the outbox to Brevo until told to stop.

    Brings the database to the current schema first. SIGTERM or Ctrl-C finishes what is in flight; a second
    one ends at once. SIGHUP reads the configuration again and keeps the old one if the new is not valid.

    \b
    Example:
      outboxd run --config /etc/outboxd/config.yaml

    Exit codes: 0 stopped; 75 another process drains; 78 wrong configuration or a newer schema.
    """
    return app.run(config_path, shared=shared)


@click.command()
@config_option
@shared_option
def drain(config_path: Path, shared: bool) -> int:
    """Deliver once, until nothing is due; for cron, or to see what happens.

    \b
    Example:
      outboxd drain && outboxd status

    Exit codes: 0 nothing is due any more; 75 another process drains, or the lane is blocked or
    paused, or waits for more than some seconds.
    """
    settings = config.read(config_path)
    logs.set_up(settings.log_level)
    if not settings.enabled:
        click.echo("nothing is drained: enabled is false in the configuration", err=True)
        return 0
    key = config.api_key(settings.brevo, os.environ)
    with app.drainer(settings, shared=shared) as charge, app.relaying(settings, key, charge) as relay:
        relay.drain()
    if relay.paused is not None:
        told = f"since {clock.to_text(relay.paused.since)} by {relay.paused.by}"
        click.echo(f"the lane is paused, {told}; let it go on with: outboxd resume", err=True)
        return EX_TEMPORARY
    if not relay.is_drained:
        lane = relay.lane
        until = f" (next try {clock.to_text(lane.until)})" if lane.until is not None else ""
        click.echo(f"the lane is {lane.state}: {lane.reason}{until}", err=True)
        return EX_TEMPORARY
    return 0
