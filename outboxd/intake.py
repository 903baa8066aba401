"""The intake: a program writes an event into the outbox, by `outboxd.enqueue` or by `outboxd-intake`.

Standard library only, and little of it: a shop may start it for every event. What can be seen to be
unusable without knowing the shop is refused here; everything else is stored as it came.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from time import monotonic, sleep

from outboxd import database, payload, pool, streams, topics
from outboxd.clock import from_text, to_text, wall
from outboxd.errors import EX_IO, EX_USAGE, AdriftError, EventError, IntakeError, NoOutboxError, OutboxdError
from outboxd.locks import turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike
    from typing import Any, TextIO

    Row = tuple[str, str, str | None, str | None, str | None]
    """One event, checked: event, payload, source, occurred_at, idempotency_key."""

    Line = tuple[str, object]
    """Where an event stood in what was read, and what stood there."""

_as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

INSERT = """
INSERT INTO outbox (event, payload, source, occurred_at, idempotency_key, created_at, next_attempt_at)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""


def enqueue(
    event: str,
    data: Mapping[str, Any],
    *,
    source: str | None = None,
    occurred_at: datetime | None = None,
    idempotency_key: str | None = None,
    db: str | PathLike[str] | None = None,
    connection: Any = None,
    now: Callable[[], datetime] = wall,
) -> int:
    """Write one event to the outbox and return its id.

    `data` is the customer as the shop has it, or the envelope {event, timestamp, data}. With `connection`
    (a sqlite3 connection, or a SQLAlchemy connection or session, to the outbox's database) the event joins
    the caller's transaction: it is committed and rolled back with it. Otherwise it is committed here, to
    `db`, $OUTBOXD_DATABASE or the default path. An `idempotency_key` that is known already writes nothing
    and returns the id of the first event. Not for handlers of signals: what they interrupt may be this.
    Raises EventError, NoOutboxError, RightsError, DatabaseError.
    """
    row = checked(event, data, source=source, occurred_at=occurred_at, idempotency_key=idempotency_key)
    if connection is None:
        return write(database_path(db), [row], now)[0]
    return _insert(_executor(connection), row, to_text(now()))


def database_path(given: str | PathLike[str] | None) -> str:
    """The outbox to write to: as given, by $OUTBOXD_DATABASE, or the default. Raises NoOutboxError."""
    path = os.fspath(given or os.environ.get("OUTBOXD_DATABASE") or database.DEFAULT_PATH)
    try:
        if "\0" not in path and os.fsencode(path):
            return path
    except UnicodeEncodeError:
        pass
    raise NoOutboxError("the outbox is named by what is no path", hint="name a file on this host")


def checked(
    event: object,
    data: object,
    *,
    source: object = None,
    occurred_at: object = None,
    idempotency_key: object = None,
) -> Row:
    """An event that is fit to be stored. Raises EventError, whose text holds nothing of the payload."""
    if not isinstance(event, str) or event not in topics.KNOWN:
        raise EventError("no such event", hint=f"the events are: {', '.join(topics.EVENTS)}")
    if not isinstance(data, dict) and isinstance(data, Mapping):  # a dict is one, but to ask that is slow
        data = dict(data)
    payload.check(data)
    stated = data.get("event") if isinstance(data, dict) and "data" in data else None
    if isinstance(stated, str) and stated in topics.EVENTS and event in topics.EVENTS and stated != event:
        raise EventError(f"the event is {event}, but its payload says {stated}", hint="make them agree")
    try:
        text = _as_json(data)
        size = len(text.encode())
    except UnicodeEncodeError:
        raise EventError("the payload holds half a character (a lone surrogate)") from None
    except (TypeError, ValueError, RecursionError):
        raise EventError(
            "the payload holds something that JSON cannot say", hint="send plain JSON values"
        ) from None
    if size > payload.LIMIT:
        raise EventError(
            f"the payload is larger than {payload.LIMIT // 1024} KiB", hint="send the customer alone"
        )
    for name, value in (("source", source), ("idempotency_key", idempotency_key)):
        if value is not None and not (
            isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable()
        ):
            raise EventError(f"{name} must be a text of 1 to 255 characters")
    if isinstance(source, str) and not topics.is_source(source):
        raise EventError(
            "no such source",
            hint=f"the sources are: {', '.join(topics.PRESETS)}; or of one shop: shopify:second-shop",
        )
    return event, text, _text(source), _moment(occurred_at), _text(idempotency_key)


def write(path: str | PathLike[str], rows: Sequence[Row], now: Callable[[], datetime] = wall) -> list[int]:
    """Write all of `rows` in one transaction, in turn with other producers; their ids."""
    give_up = monotonic() + pool.PATIENCE
    while True:
        try:
            with database.explained(path), pool.connection(path) as pooled, turn(path):
                pooled.begin()
                moment = to_text(now())
                ids = [_insert(pooled.connection.execute, row, moment) for row in rows]
                pooled.connection.execute("COMMIT")
                return ids
        except AdriftError:  # what was open is closed now, and others in here may have it still
            if monotonic() > give_up:
                raise
            sleep(pool.AGAIN)


def _insert(execute: Callable[[str, Any], Any], row: Row, moment: str) -> int:
    result = execute(INSERT, (*row, moment, moment))
    if result.rowcount != 0:
        return int(result.lastrowid)
    first = execute("SELECT id FROM outbox WHERE idempotency_key = ?", (row[4],)).fetchone()
    return int(first[0])


def _executor(connection: Any) -> Callable[[str, Any], Any]:
    """How to execute on the caller's connection; SQLAlchemy is known by its methods, not imported."""
    if isinstance(connection, sqlite3.Connection):
        cursor = connection.cursor()
        cursor.row_factory = None  # rows are tuples, whatever the caller wants its own to be
        return cursor.execute
    if callable(getattr(connection, "connection", None)):  # a session
        connection = connection.connection()
    if hasattr(connection, "exec_driver_sql"):
        return connection.exec_driver_sql  # type: ignore[no-any-return]
    raise TypeError("connection must be a sqlite3 connection, or a SQLAlchemy connection or session")


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _moment(value: object) -> str | None:
    if value is None:
        return None
    try:
        moment = value if isinstance(value, datetime) else from_text(str(value))
        if moment.tzinfo is None:
            raise ValueError
        return to_text(moment)
    except (ValueError, OverflowError):
        raise EventError(
            "occurred_at must be a time with its time zone", hint="such as 2026-11-23T16:12:51Z"
        ) from None


def read_lines(text: str) -> Iterator[Line]:
    """The events of a text and where each stood: one JSON value, an array of them, or JSON lines.

    A line that is no JSON is yielded as the ValueError that says so.
    """
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        # splitlines() would also split at U+2028 and its like, which JSON allows within a text.
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"line {number}", _parsed(line)
        return
    if not isinstance(whole, list):
        yield "line 1", whole
        return
    for number, value in enumerate(whole, start=1):
        yield f"item {number}", value


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except RecursionError:
        return ValueError("nested too deeply")
    except json.JSONDecodeError as error:
        return ValueError(f"not JSON ({error.msg} at column {error.colno})")
    except ValueError:
        return ValueError("not JSON (a number is too long)")


PARTICULARS = {"source": "source", "occurred_at": "occurredAt", "idempotency_key": "idempotencyKey"}
"""What a line may say beside its event and data, and how a script would spell it."""

SPELLINGS = frozenset((*PARTICULARS, *PARTICULARS.values()))


def row_of(value: object, defaults: Mapping[str, object]) -> Row:
    """The event that one line says; `defaults` are the command's options. Raises EventError.

    A line is an envelope {event, timestamp, data}, or bare data where the command names the event.
    It may carry source, occurred_at and idempotency_key of its own beside `data`, in camelCase too.
    """
    if isinstance(value, ValueError):
        raise EventError(str(value))
    if not isinstance(value, dict):
        raise EventError("not a JSON object")
    named = value.get("event") if "data" in value else None
    event = defaults.get("event") or named
    if event is None:
        raise EventError(
            "it does not say which event it is",
            hint='write {"event": "customer_updated", "data": {…}}, or name the event with --event',
        )
    own = value if named is not None else {}
    extras = {
        name: next((own[key] for key in (name, camel) if own.get(key) is not None), defaults.get(name))
        for name, camel in PARTICULARS.items()
    }
    body = {name: part for name, part in value.items() if name not in own or name not in SPELLINGS}
    return checked(event, body, **extras)


def take(
    text: str, defaults: Mapping[str, object], *, skip_invalid: bool = False
) -> tuple[list[Row], list[str]]:
    """The events of a text, and a sentence for each line that is none.

    Raises IntakeError with all of those sentences unless they are to be skipped.
    """
    rows: list[Row] = []
    faults: list[str] = []
    for place, value in read_lines(text):
        try:
            rows.append(row_of(value, defaults))
        except EventError as error:
            faults.append(f"{place}: {error}" + (f" ({error.hint})" if error.hint else ""))
    if faults and not skip_invalid:
        raise IntakeError(faults)
    if not rows and not faults:
        raise IntakeError(["there is no event: the input is empty"])
    return rows, faults


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


def read_text(name: str, stdin: TextIO) -> str:
    """What the file called `name` holds, `-` for standard input; UTF-8, a byte order mark allowed."""
    try:
        if name == "-":
            raw = stdin.buffer.read()
        else:
            with open(name, "rb") as file:
                raw = file.read()
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise IntakeError([f"line {line}: not UTF-8 text"]) from None
    except OSError as error:
        raise NoOutboxError(f"{name} cannot be read: {error.strerror}") from error


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
