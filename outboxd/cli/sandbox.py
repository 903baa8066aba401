"""`sandbox`: a stand-in for Brevo on this host."""

import signal
from datetime import timedelta
from typing import BinaryIO

import click

from outboxd.cli.options import NumberRange
from outboxd.errors import OutboxdError


class PortError(OutboxdError):
    """The port is taken."""


@click.command()
@click.option(
    "--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0 for any free one."
)
@click.option("--api-key", default="xkeysib-sandbox", show_default=True, help="The key it accepts.")
@click.option("--latency", default=0.0, type=NumberRange(0, 60), help="Seconds before each answer.")
@click.option("--fail-rate", default=0.0, type=NumberRange(0, 1), help="Share of calls that get a 503.")
@click.option("--seed", default=0, help="Of the chance by which calls fail.")
@click.option("--unlimited", is_flag=True, help="Without Brevo's rate limits.")
@click.option("--faults", type=click.File("rb"), help="A JSON list of scripted faults.")
@click.option("--attribute", "attributes", multiple=True, metavar="NAME:TYPE", help="A further attribute.")
def sandbox(
    port: int,
    api_key: str,
    latency: float,
    fail_rate: float,
    seed: int,
    unlimited: bool,
    faults: BinaryIO | None,
    attributes: tuple[str, ...],
) -> int:
    """Run a local stand-in for Brevo: it keeps contacts, and answers as Brevo does.

    Point `brevo.base_url` at the address it prints. The contacts it has are shown at /sandbox/contacts,
    the calls it got at /sandbox/calls. It listens on this host alone and forgets everything when it ends.

    \b
    Examples:
      outboxd sandbox --attribute TIER:text
      outboxd sandbox --fail-rate 0.05 --latency 0.05

    Exit codes: 0 stopped by Ctrl-C or SIGTERM; 1 the port is taken; 78 a fault cannot be understood.
    """
    from outboxd.brevo.sandbox import Fault, Sandbox, parse_faults

    scripted = list(parse_faults(faults.read())) if faults else []
    if fail_rate:
        scripted.append(Fault(status=503, rate=fail_rate))
    made = Sandbox(
        port=port,
        api_key=api_key,
        latency=timedelta(seconds=latency),
        seed=seed,
        faults=scripted,
        attributes=dict(_typed(attribute) for attribute in attributes),
        requests_per_second=None if unlimited else 10,
        requests_per_hour=None if unlimited else 36_000,
        other_per_hour=None if unlimited else 100,
    )
    stops = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        made.start()
    except OSError as error:
        raise PortError(
            f"port {port} cannot be used: {error.strerror}", hint="name another with --port"
        ) from error
    click.echo(
        f"brevo.base_url: {made.url}\nAPI key:        {api_key}\ncontacts:       {made.root}/sandbox/contacts"
    )
    signal.sigwait(stops)
    made.stop()
    return 0


def _typed(attribute: str) -> tuple[str, str]:
    name, _, kind = attribute.partition(":")
    return name, kind or "text"
