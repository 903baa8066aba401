"""The events that a script hands over as text, line by line or as a whole: read, and checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from outboxd.errors import EventError, IntakeError, NoOutboxError
from outboxd.intake import checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from outboxd.intake import Row

    Line = tuple[str, object]
    """Where an event stood in what was read, and what stood there."""

PARTICULARS = {"source": "source", "occurred_at": "occurredAt", "idempotency_key": "idempotencyKey"}
"""What a line may say beside its event and data, and how a script would spell it."""

SPELLINGS = frozenset((*PARTICULARS, *PARTICULARS.values()))


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
