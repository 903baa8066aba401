"""Exports: files of customers, read row by row, each row with its number. Memory stays flat.

CSV, JSON lines, and JSON: an array, or whatever a platform's API wraps around one. A row comes out as the
presets read it, without secrets; one that cannot be read comes out as the reason. Whose customer it is, and
where it goes, is not asked here.
"""

import csv
import io
import itertools
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, NamedTuple, NoReturn

import ijson

from outboxd.clock import floor
from outboxd.errors import EventError, NoOutboxError
from outboxd.payload import LIMIT
from outboxd.shapes import Columns, as_rest
from outboxd.sources.specification import without_secrets

FORMATS = ("csv", "jsonl", "json")
"""A table with a header; one object a line; an array of objects, bare or wrapped."""

HEAD = LIMIT
"""Bytes from the beginning of a file by which it is known what it is."""

_LONGEST = LIMIT + 2
_MARK = b"\xef\xbb\xbf"
_DELIMITERS = ",;\t"
_PAGES = (
    *("customers", "items", "data", "results", "data.customers", "data.items"),
    *("customers.nodes", "data.customers.nodes"),
)
_LISTS = {"": "item", **{page: f"{page}.item" for page in _PAGES}} | {
    page: f"{page}.item.node" for page in ("customers.edges", "data.customers.edges")
}
"""Where lists of customers stand in a document, and where the customers stand in them."""

_BROKEN = (ijson.JSONError, ValueError, SystemError)
"""What ijson raises at a document; the last two for a number of thousands of digits."""

DEEPEST = 64
"""How deep values may lie in a JSON document: what shops export is nested a few times."""

_DEEPER = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}

TOO_LARGE = f"it is larger than {LIMIT // 1024} KiB"
NOT_UTF8 = "it is not UTF-8 text; save the file as UTF-8"
NOT_JSON = "it is not JSON"


class Row(NamedTuple):
    """A customer, and the line (in JSON: the item) where it begins, counted from 1."""

    number: int
    data: Mapping[str, Any]


class Refusal(NamedTuple):
    """A line (or item) that is no customer, and why, without personal data.

    `is_written`: that shows only when it is delivered, and it becomes a dead letter.
    """

    number: int
    reason: str
    is_written: bool = False


class Tape(io.RawIOBase):
    """A stream with its `head` to look at, less a byte order mark. `position` counts the bytes read."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        start = stream.read(HEAD)
        self.position = len(start)
        self.head = start.removeprefix(_MARK)
        self._left = memoryview(self.head)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part: bytes | memoryview = self._left[: len(buffer)]
        if part:
            self._left = self._left[len(part) :]
        else:
            part = self._stream.read(len(buffer))
            self.position += len(part)
        buffer[: len(part)] = part
        return len(part)


@dataclass(frozen=True, slots=True)
class Export:
    """One file that is open. `as_of` is when those of its rows were true that do not say it themselves."""

    name: str
    format: str
    as_of: datetime
    tape: Tape

    @property
    def unit(self) -> str:
        """What its rows are numbered by."""
        return "item" if self.format == "json" else "line"

    def rows(self, preset: str) -> Iterator[Row | Refusal]:
        """Every row, once; `preset` says what is meant where platforms differ."""
        stream: BinaryIO = io.BufferedReader(self.tape, 1 << 16)
        match self.format:
            case "csv":
                return _csv(stream, self.tape.head, preset)
            case "jsonl":
                return _json_lines(stream)
            case _:
                return _json(stream, self.tape.head)


@contextmanager
def opened(
    name: str, stdin: BinaryIO, *, now: datetime, as_of: datetime | None = None, format: str | None = None
) -> Iterator[Export]:
    """The file called `name`, `-` for standard input. Raises NoOutboxError where it cannot be read.

    Unless `as_of` says otherwise its rows are as old as the file, those of a stream as old as `now`.
    """
    try:
        stream = stdin if name == "-" else open(name, "rb")  # noqa: SIM115 - closed below, unless it is not ours
        tape = Tape(stream)
        facts = os.fstat(stream.fileno()) if name != "-" else None
    except OSError as error:
        raise unreadable(name, error) from error
    try:
        is_file = facts is not None and stat.S_ISREG(facts.st_mode)
        changed_at = floor(datetime.fromtimestamp(facts.st_mtime, UTC)) if facts and is_file else now
        yield Export(name, format or detected(tape.head), as_of or changed_at, tape)
    finally:
        if stream is not stdin:
            stream.close()


def total_size(names: Iterable[str]) -> int | None:
    """The bytes of all these files, None if one is a stream. Raises NoOutboxError for one that is missing."""
    total: int | None = 0
    for name in names:
        try:
            facts = os.stat(name) if name != "-" else None
        except OSError as error:
            raise unreadable(name, error) from error
        is_file = facts is not None and stat.S_ISREG(facts.st_mode)
        total = total + facts.st_size if facts and is_file and total is not None else None
    return total


def unreadable(name: str, error: OSError) -> NoOutboxError:
    """What an error of the file system means for the file called `name`."""
    return NoOutboxError(f"{name} cannot be read: {error.strerror}", hint=f"look: ls -l {name}")


def detected(head: bytes) -> str:
    """The format of a file that begins so."""
    start = head.lstrip()
    if start.startswith(b"["):
        return "json"
    if not start.startswith(b"{"):
        return "csv"
    lines = start.split(b"\n", 2)
    first = _object(lines[0])
    if first is None:  # over many lines, or spoilt
        return "jsonl" if len(lines) > 1 and _object(lines[1]) is not None else "json"
    return "json" if "id" not in first and _list_in(start) else "jsonl"


def _object(line: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _list_in(head: bytes) -> str | None:
    """Where the customers are in a document that begins so."""
    try:
        for place, event, _ in ijson.parse(_shallow(ijson.basic_parse(io.BytesIO(head)))):
            if event == "start_array" and place in _LISTS:
                return _LISTS[place]
    except _BROKEN:  # the head ends somewhere within
        return None
    return None


def _shallow(parts: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The parts of a document. One that is nested deeply is none: to tell where they stand takes for ever."""
    depth = 0
    for part in parts:
        depth += _DEEPER.get(part[0], 0)
        if depth > DEEPEST:
            raise ijson.JSONError("nested too deeply")
        yield part


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Every line with its end; None for one that is too long to be kept in memory."""
    while line := stream.readline(_LONGEST):
        is_whole = len(line) < _LONGEST or line.endswith(b"\n")
        yield line if is_whole else None
        while not is_whole:
            rest = stream.readline(_LONGEST)
            is_whole = not rest or rest.endswith(b"\n")


class _Text:
    """Lines for the CSV reader, which knows neither bytes nor limits. Of the record that is read it is known
    whether one of them `is_cut`, how many marks of quotation each `quotes` has, and thus how many they are.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = _lines(stream)
        self.begin()

    def begin(self) -> None:
        """Another record begins."""
        self.is_cut = False
        self.quotes: list[int] = []

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.is_cut = self.is_cut or line is None
            self.quotes.append(line.replace(b'""', b"").count(b'"') if line else 0)
            yield "\n" if line is None else line.decode("utf-8", "surrogateescape")

    def fault(self, number: int, error: csv.Error) -> str:
        """Why the record, which began in the line of that number, cannot be read."""
        is_whole = "end of data" in str(error)  # otherwise the last line was left in its middle
        is_open, opened = False, None
        for line, quotes in enumerate(self.quotes if is_whole else self.quotes[:-1], start=number):
            is_open ^= bool(quotes % 2)
            opened = line if is_open and quotes else opened
        if opened is None:
            return "it cannot be read as CSV: a cell is too long, or a quote stands where none can"
        told = f"a quote opens in line {opened} and is not closed as it should be"
        return f"{told}, so that nothing up to line {number + len(self.quotes) - 1} can be read"


def _csv(stream: BinaryIO, head: bytes, preset: str) -> Iterator[Row | Refusal]:
    records = _records(stream, head)
    header = next(records, None)
    if header is None:
        return
    number, cells = header
    if isinstance(cells, str):
        yield Refusal(number, f"the header cannot be read, so nothing can: {cells}")
        return
    columns, width = Columns(cells, preset), len(cells)
    if not columns.names_somebody:
        yield Refusal(number, "the header has neither a customer id nor an email, so nothing can be read")
        return
    if columns.twice:
        told = f"the header has {columns.twice!r} twice, and nobody can tell which counts: rename one of them"
        yield Refusal(number, f"{told}. Nothing is read")
        return
    for number, cells in records:
        if isinstance(cells, str):
            yield Refusal(number, cells)
        elif len(cells) != width:
            yield Refusal(
                number, f"it has {len(cells)} cell{'s' * (len(cells) != 1)}, and the header has {width}"
            )
        else:
            yield Row(number, columns.row(cells))


def _records(stream: BinaryIO, head: bytes) -> Iterator[tuple[int, list[str] | str]]:
    """The line where each record begins, and its cells or why they cannot be read. Blank ones are skipped."""
    text = _Text(stream)
    reader = csv.reader(text, delimiter=_delimiter(head), strict=True)  # or rows would vanish in a cell
    while True:
        number = reader.line_num + 1
        text.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, TOO_LARGE if text.is_cut else text.fault(number, error)
            continue
        if text.is_cut:
            yield number, TOO_LARGE
        elif not _is_utf8(cells):
            yield number, NOT_UTF8
        elif any(cells):
            yield number, cells


def _delimiter(head: bytes) -> str:
    """The one that the header has most of, outside of quotes."""
    header = head.lstrip().split(b"\n", 1)[0].decode("utf-8", "replace")
    return max(_DELIMITERS, key=lambda mark: sum(part.count(mark) for part in header.split('"')[::2]))


def _is_utf8(cells: list[str]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:  # what was no UTF-8 came in as half a character
        return False
    return True


def _json_lines(stream: BinaryIO) -> Iterator[Row | Refusal]:
    for number, line in enumerate(_lines(stream), start=1):
        if line is None:
            yield Refusal(number, TOO_LARGE)
        elif not line.isspace():
            try:
                found = _customer(number, _parsed(line))
            except EventError as error:
                found = Refusal(number, str(error))
            if found is not None:
                yield found


def _parsed(line: bytes) -> Any:
    """What the line holds. Raises EventError."""
    try:
        value = json.loads(line.decode(), parse_constant=_refuse)
        # Halves of characters can be escaped, and then stored nowhere.
        if b"\\ud" in line.lower():
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeDecodeError:
        raise EventError(NOT_UTF8) from None
    except UnicodeEncodeError:
        raise EventError("it holds half a character (a lone surrogate)") from None
    except json.JSONDecodeError as error:
        raise EventError(f"{NOT_JSON} ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError):
        raise EventError(f"{NOT_JSON} (a number is none, or it is nested too deeply)") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _json(stream: BinaryIO, head: bytes) -> Iterator[Row | Refusal]:
    place = _list_in(head)
    if place is None and len(head) == HEAD:
        yield Refusal(1, "no list of customers begins in the first part of the file")
        return
    parts = _shallow(ijson.basic_parse(stream, multiple_values=True, use_float=True))
    items = ijson.items(ijson.parse(parts), place or "")
    for number in itertools.count(1):
        try:
            found = _customer(number, next(items))
        except StopIteration:
            return
        except _BROKEN:
            yield Refusal(number, f"{NOT_JSON} from here on, so nothing after it could be read")
            return
        if found is not None:
            yield found


def _customer(number: int, value: Any) -> Row | Refusal | None:
    """The row; None for what only belongs to a customer and has a line of its own, as in bulk exports."""
    if not isinstance(value, dict):
        return Refusal(number, 'it is not a JSON object such as {"id": …, "email": …}')
    if "__parentId" in value:
        return None
    if str(value.get("id")).startswith("gid://") and "/Customer/" not in str(value["id"]):
        return Refusal(number, "its id is of something else than a customer")
    return Row(number, without_secrets(as_rest(value)))
