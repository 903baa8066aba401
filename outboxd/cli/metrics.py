"""`metrics`: the figures of the outbox for Prometheus."""

from pathlib import Path

import click

from outboxd import clock, config, textfile
from outboxd import metrics as figures
from outboxd.cli.options import config_option


@click.command()
@config_option
@click.option(
    "--textfile",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write them to this file, whole at once, instead of to stdout.",
)
def metrics(config_path: Path, file: Path | None) -> int:
    """Print the figures of the outbox in Prometheus' text format.

    Depth, age, attempts by verdict, latency, calls and their limits, the lane, imports, sizes of the files.
    They are read from the database: no daemon need run, and none is asked. The daemon writes them by itself
    if metrics.textfile is set in the configuration.

    \b
    Examples:
      outboxd metrics
      outboxd metrics --textfile /var/lib/prometheus/node-exporter/outboxd.prom

    Exit codes: 0 told; 66 there is no outbox; 77 the file cannot be written.
    """
    settings = config.read(config_path)
    page = figures.page(settings.database, clock.wall(), enabled=settings.enabled)
    if file is None:
        click.echo(page, nl=False)
    else:
        textfile.write(file, page, needed=config.files(config_path, settings))
    return 0
