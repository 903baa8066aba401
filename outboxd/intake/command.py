"""`outboxd-intake`: the command by which a script writes events."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from outboxd import streams
from outboxd.errors import EX_IO, EX_USAGE, IntakeError, OutboxdError
from outboxd.intake import database_path, write
from outboxd.intake.lines import read_text, take

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike
    from typing import TextIO

USAGE = """\
Usage: outboxd-intake [OPTIONS] [FILE]

Write customer events to the outbox, all of them in one transaction, and print their ids.
Reads FILE or standard input: a JSON object, an array of them, or one a line.

Options:
  --event NAME            customer_created, customer_updated or customer_deleted
  --data JSON             the one event's data, instead of reading any
  --source NAME           shopify, woocommerce, magento or custom (default: as configured)
  --occurred-at TIME      when it happened, such as 2026-11-23T16:12:51Z
  --idempotency-key KEY   write the event only if KEY was not written before (one event only)
  --db PATH               the outbox (default: $OUTBOXD_DATABASE, else /var/lib/outboxd/outbox.db)
  --skip-invalid          write the good lines, and say which were left out
  --help                  this text

Examples:
  outboxd-intake --event customer_created --data '{"id": 5, "email": "jane@example.com"}'
  outboxd-intake < events.jsonl

Exit codes: 0 written; 64 wrong usage; 65 bad events (nothing written), or some left out;
66 no outbox or file there; 74 the database cannot be used; 77 no right to write it.
"""

OPTIONS = ("--event", "--data", "--source", "--occurred-at", "--idempotency-key", "--db")


class UnprintedError(OutboxdError):
    """All is written, and nobody can be told."""

    exit_code = EX_IO


class UsageError(OutboxdError):
    exit_code = EX_USAGE


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `outboxd-intake`; returns its exit code."""
    streams.fill()
    try:
        return _main(list(sys.argv[1:] if arguments is None else arguments), sys.stdin, sys.stdout)
    except OutboxdError as error:
        streams.tell(f"outboxd-intake: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    finally:
        streams.end()


def _main(arguments: list[str], stdin: TextIO, stdout: TextIO | None) -> int:
    options, files, skip_invalid, wants_help = _options(arguments)
    if wants_help:
        with suppress(OSError):  # whoever asked has gone
            print(USAGE, end="", file=stdout)
        return 0
    defaults: dict[str, object] = {
        "event": options.get("--event"),
        "source": options.get("--source"),
        "occurred_at": options.get("--occurred-at"),
        "idempotency_key": options.get("--idempotency-key"),
    }
    text = options["--data"] if "--data" in options else read_text(files[0] if files else "-", stdin)
    return deposit(text, defaults, database_path(options.get("--db")), stdout, skip_invalid=skip_invalid)


def deposit(
    text: str,
    defaults: Mapping[str, object],
    path: str | PathLike[str],
    stdout: TextIO | None,
    *,
    skip_invalid: bool,
) -> int:
    """Take the events of `text`, write them, print their ids; the exit code."""
    rows, faults = take(text, defaults, skip_invalid=skip_invalid)
    if defaults.get("idempotency_key") is not None and len(rows) > 1:
        raise UsageError("--idempotency-key is for one event", hint="put idempotency_key into each line")
    ids = write(path, rows) if rows else []
    try:
        if stdout is None:
            raise ValueError("closed by whoever started this process")
        stdout.write("".join(f"{number}\n" for number in ids))
        stdout.flush()
    except (OSError, ValueError) as error:
        told = (
            "the event is written, but its id" if len(ids) == 1 else "the events are written, but their ids"
        )
        raise UnprintedError(
            f"{told} cannot be printed", hint="do not write it again; mend standard output"
        ) from error
    if not faults:
        return 0
    listed = "\n".join(f"left out: {fault}" for fault in faults)
    streams.tell(f"{listed}\nwrote {len(rows)}, left out {len(faults)}")
    return IntakeError.exit_code


def _options(arguments: list[str]) -> tuple[dict[str, str], list[str], bool, bool]:
    options: dict[str, str] = {}
    files: list[str] = []
    skip_invalid = wants_help = False
    while arguments:
        argument = arguments.pop(0)
        name, has_value, value = argument.partition("=")
        if name in OPTIONS:
            if not has_value and not arguments:
                raise UsageError(f"{name} wants a value", hint="see outboxd-intake --help")
            options[name] = value if has_value else arguments.pop(0)
        elif argument == "--skip-invalid":
            skip_invalid = True
        elif argument in ("--help", "-h"):
            wants_help = True
        elif argument.startswith("-") and argument != "-":
            raise UsageError(f"no such option: {argument}", hint="see outboxd-intake --help")
        else:
            files.append(argument)
    if len(files) > 1:
        raise UsageError("one file at a time", hint="cat FILE… | outboxd-intake")
    if "--data" in options and files:
        raise UsageError("either --data or a file, not both", hint="see outboxd-intake --help")
    return options, files, skip_invalid, wants_help
