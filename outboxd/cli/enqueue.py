"""`enqueue`: the intake, with the outbox taken from the configuration."""

import sys
from pathlib import Path

import click

from outboxd import config, topics
from outboxd.cli.options import config_option
from outboxd.intake.command import deposit
from outboxd.intake.lines import read_text


@click.command()
@config_option
@click.option("--event", metavar="NAME", help=f"{', '.join(topics.EVENTS)}.")
@click.option("--data", metavar="JSON", help="The one event's data, instead of reading any.")
@click.option(
    "--source", metavar="NAME", help="shopify, woocommerce, magento or custom. Default: as configured."
)
@click.option("--occurred-at", metavar="TIME", help="When it happened, such as 2026-11-23T16:12:51Z.")
@click.option("--idempotency-key", metavar="KEY", help="Write the event only if KEY was not written before.")
@click.option("--skip-invalid", is_flag=True, help="Write the good lines, and say which were left out.")
@click.argument("file", required=False)
def enqueue(
    config_path: Path,
    event: str | None,
    data: str | None,
    source: str | None,
    occurred_at: str | None,
    idempotency_key: str | None,
    skip_invalid: bool,
    file: str | None,
) -> int:
    """Write events to the outbox, all in one transaction, and print their ids.

    Reads FILE or standard input: a JSON object, an array of them, or one a line.
    `outboxd-intake` does the same and starts faster.

    \b
    Examples:
      outboxd enqueue --event customer_created --data '{"id": 5, "email": "jane@example.com"}'
      outboxd enqueue events.jsonl

    Exit codes: 0 written; 65 bad events (nothing written), or some left out.
    """
    if data is not None and file is not None:
        raise click.UsageError("say either --data or a file, not both")
    settings = config.read(config_path)
    text = data if data is not None else read_text(file or "-", sys.stdin)
    defaults = {
        "event": event,
        "source": source,
        "occurred_at": occurred_at,
        "idempotency_key": idempotency_key,
    }
    return deposit(text, defaults, settings.database, sys.stdout, skip_invalid=skip_invalid)
