"""`backfill`: all existing customers from files into the outbox, or a preview of what that would do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outboxd import clock, config, place
from outboxd.cli.options import config_option, json_option
from outboxd.cli.tally import Tally, progress
from outboxd.config import Config
from outboxd.config.kinds import FaultError
from outboxd.config.kinds import source as parse_source
from outboxd.errors import EX_DATA, EX_IO, OutboxdError

if TYPE_CHECKING:  # what is heavy is loaded by those who need it
    from outboxd.backfill import Sink
    from outboxd.preview import Preview

INTERRUPTED = 130


class ListError(OutboxdError):
    """The refused rows cannot be listed where they were to be."""

    exit_code = EX_IO


def _source(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    try:
        return value and parse_source(value)
    except FaultError as fault:
        raise click.BadParameter(str(fault)) from fault


def _time(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    try:
        return clock.from_text(value) if value else None
    except ValueError as error:
        raise click.BadParameter("must be a time with its zone, such as 2026-11-23T16:12:51Z") from error


@click.command()
@config_option
@json_option
@click.option("--dry-run", is_flag=True, help="Write nothing; tell what would come of it.")
@click.option(
    "--source", metavar="NAME", callback=_source, help="Whose files these are. Default: as configured."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("csv", "jsonl", "json")),
    help="What the files are. Default: as their content looks.",
)
@click.option(
    "--as-of",
    metavar="TIME",
    callback=_time,
    help="When the rows were true that do not say it themselves. Default: the file's own time.",
)
@click.option(
    "--refused",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write every refused row's file, line and reason here, as JSON lines.",
)
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def backfill(
    config_path: Path,
    as_json: bool,
    dry_run: bool,
    source: str | None,
    form: str | None,
    as_of: datetime | None,
    refused: Path | None,
    quiet: bool,
    files: tuple[str, ...],
) -> int:
    """Write the customers that a shop has already to the outbox, from its exports.

    A FILE is CSV with a header, JSON lines, or JSON as the shop's API answers it; `-` is standard input.
    The rows go to Brevo behind whatever happens in the shop meanwhile, and never replace newer news. The
    same command again writes only what is missing, so it may be broken off. --dry-run also tells which rows
    would be written and die, because nobody knows an address of that customer.

    \b
    Examples:
      outboxd backfill --dry-run customers.csv
      outboxd backfill customers.csv
      outboxd backfill --source magento --refused refused.jsonl page-1.json page-2.json

    Exit codes: 0 all rows are written; 65 some are refused, the others are written, or (--dry-run) some would
    die; 66 no such outbox or file; 74 the database, or the list of refused rows, cannot be written; 130
    broken off.
    """
    from outboxd import app
    from outboxd.backfill import Writer, pour
    from outboxd.exports import opened, total_size

    settings = config.read(config_path)
    source = source or settings.source
    now = clock.wall()
    own = place.files(settings.database)
    for name in files:
        if place.is_among(Path(name), own):  # who closes a database as a plain file drops the locks on it
            raise click.BadParameter(f"{name} belongs to the outbox itself; name an export of the shop")
    target: AbstractContextManager[Sink] = (
        _preview(settings, source, now)
        if dry_run
        else Writer.of(settings.database, source=source, now=clock.wall)
    )
    is_broken_off = False
    with ExitStack() as stack:
        needed = [*map(Path, files), *config.files(config_path, settings)]
        refusals = stack.enter_context(_emptied(refused, needed)) if refused else None
        sink = stack.enter_context(target)
        step = stack.enter_context(progress(total_size(files), is_shown=not quiet and sys.stderr.isatty()))
        tally = Tally(sink, refusals)
        options = app.plan(settings).reading
        try:
            for name in files:
                with (
                    opened(name, sys.stdin.buffer, now=now, as_of=as_of, format=form) as export,
                    tally.of(export) as refuse,
                ):
                    pour(export, sink, source=source, options=options, refuse=refuse, step=step)
        except KeyboardInterrupt:
            is_broken_off = True
    tally.tell_refusals()
    if as_json:
        click.echo(json.dumps(tally.facts(), indent=2))
    else:
        tally.print()
    if is_broken_off:
        _tell_how_to_go_on(now if "-" in files and as_of is None else None, is_written=not dry_run)
        return INTERRUPTED
    return EX_DATA if tally.told else 0


@contextmanager
def _emptied(path: Path, needed: Iterable[Path]) -> Iterator[Callable[[str], object]]:
    """The file at `path`, written anew, unless it is one of those that are `needed`; what takes its lines."""
    if place.is_among(path, needed):
        told = f"{path} would be overwritten, and is needed; name another file"
        raise click.BadParameter(told, param_hint="--refused")
    with _named(path):
        file = path.open("w", encoding="utf-8")

    def take(line: str) -> None:
        with _named(path):
            file.write(line)

    try:
        yield take
    finally:
        with _named(path):
            file.close()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What keeps the list of refused rows from being written is told by the name of its file."""
    try:
        yield
    except OSError as error:
        raise ListError(
            f"the refused rows cannot be written to {path}: {error.strerror}",
            hint="make room, or name another file; the same command goes on",
        ) from error


def _tell_how_to_go_on(as_of: datetime | None, *, is_written: bool) -> None:
    option = f", with --as-of {clock.to_text(as_of)}," if as_of else ""
    told = (
        f"what is counted is written, and the same command{option} goes on"
        if is_written
        else "as far as told"
    )
    click.echo(f"broken off: {told}", err=True)


def _preview(settings: Config, source: str, now: datetime) -> AbstractContextManager[Preview]:
    """A preview, with the account's attributes if they can be had."""
    from outboxd import app
    from outboxd.preview import Preview

    catalogue, why_not = app.catalogue(settings, os.environ)
    if why_not:
        click.echo(f"not checked: the types of Brevo's attributes ({why_not})", err=True)
    return Preview.of(settings.database, plan=app.plan(settings), catalogue=catalogue, source=source, now=now)
