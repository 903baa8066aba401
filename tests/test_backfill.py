"""Backfill: each row of an export is an event, once, behind live ones, and no newer than it really is."""

import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st

from outboxd import backfill, cli, clock, database, exports, mapping, sources
from outboxd.errors import AdriftError, EventError, OutboxdError
from outboxd.event import Kind, Reading
from outboxd.exports import Refusal, Row
from outboxd.outbox import CHUNK
from tests.conftest import until
from tests.shop import KEY, Shop, soon

CSV = "id,email,firstName\n1,mara@example.com,Mara\n2,tom@example.com,Tom\n"

Operate = Callable[..., Result]


@pytest.fixture
def operate(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operate:
    """Runs `outboxd backfill` at the shop, in an empty directory; errors come back as they are raised."""
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    configure(shop, tmp_path)

    def run(*arguments: str, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(
            cli.group, ["backfill", *arguments], input=input, standalone_mode=False, catch_exceptions=True
        )

    return run


def configure(shop: Shop, directory: Path, **sync: Any) -> None:
    document = {
        "database": str(shop.path),
        "brevo": {"base_url": shop.sandbox.url},
        "skills": {"customer-sync": sync},
    }
    (directory / "config.yaml").write_text(json.dumps(document))


def exit_code(result: Result) -> int:
    if isinstance(result.exception, OutboxdError):
        return result.exception.exit_code
    assert result.exception is None, result.exception
    return int(result.return_value or 0)


def write(name: str, content: str, modified_at: str | None = None) -> str:
    """Write the file called `name`, as if at `modified_at`; its name."""
    Path(name).write_text(content)
    if modified_at is not None:
        seconds = clock.from_text(modified_at).timestamp()
        os.utime(name, (seconds, seconds))
    return name


def numbered(count: int, start: int = 0) -> str:
    lines = (f"{number},mara-{number}@example.com,Mara\n" for number in range(start, start + count))
    return "id,email,firstName\n" + "".join(lines)


def counts(result: Result) -> tuple[int, int, int]:
    """Written, repeated, refused."""
    facts = json.loads(result.stdout)
    return facts["written"], facts["repeated"], facts["refused"]


def test_each_row_is_an_event_as_the_file_has_it(shop: Shop, operate: Operate) -> None:
    result = operate(write("customers.csv", CSV, "2025-03-01T10:00:00.500Z"))
    assert exit_code(result) == 0
    rows = shop.rows(
        "SELECT event, source, payload, occurred_at, is_backfill, status FROM outbox ORDER BY id"
    )
    assert [(*row[:2], json.loads(row[2]), *row[3:]) for row in rows] == [
        (
            *("customer_updated", "custom", {"id": number, "email": email, "firstName": name}),
            *("2025-03-01T10:00:00.500Z", 1, "pending"),
        )
        for number, email, name in (("1", "mara@example.com", "Mara"), ("2", "tom@example.com", "Tom"))
    ]


def test_every_row_becomes_a_contact(shop: Shop, operate: Operate) -> None:
    operate(write("customers.csv", CSV))
    shop.drain()
    shop.later(minutes=5)
    shop.drain()
    assert shop.status()["pending"] == 0
    assert shop.contact("mara@example.com")["attributes"]["FIRSTNAME"] == "Mara"
    assert shop.contact("tom@example.com")["attributes"]["FIRSTNAME"] == "Tom"


def test_live_events_are_taken_before_backfilled_ones(shop: Shop, operate: Operate) -> None:
    operate(write("customers.csv", numbered(300)))
    live = shop.enqueue("created", id=9999, email="live@example.com")
    with closing(shop_outbox(shop)) as outbox:
        assert [event.id for event in outbox.fresh(2)] == [live, 1]


def shop_outbox(shop: Shop) -> Any:
    from outboxd import app

    return app.outbox(shop.settings)


@pytest.mark.parametrize("stated", [True, False], ids=["by the row's own time", "by the file's time"])
def test_an_older_row_never_replaces_newer_news(shop: Shop, operate: Operate, stated: bool) -> None:
    data = {"id": "1", "email": "mara@example.com", "updatedAt": "2025-03-02T00:00:00Z"}
    shop.sent("created", **data, firstName="Mara")
    row = {"id": "1", "firstName": "Old", "lastName": "Beck"}
    if stated:
        row["updatedAt"] = "2025-03-01T00:00:00Z"
    operate(write("customers.jsonl", json.dumps(row), None if stated else "2025-03-01T00:00:00Z"))
    drained(shop)
    assert shop.contact("mara@example.com")["attributes"] == {"FIRSTNAME": "Mara", "LASTNAME": "Beck"}


def drained(shop: Shop) -> None:
    """Deliver live and backfilled events."""
    for _ in range(2):
        shop.drain()
        shop.later(minutes=5)
    assert shop.status()["pending"] == 0


def test_a_time_that_is_named_counts_for_rows_without_one(shop: Shop, operate: Operate) -> None:
    rows = [{"id": "1", "updatedAt": "2025-03-01T00:00:00Z"}, {"id": "2"}]
    operate("--as-of", "2025-05-01T02:00:00+02:00", write("customers.json", json.dumps(rows)))
    assert shop.rows("SELECT occurred_at FROM outbox ORDER BY id") == [(None,), ("2025-05-01T00:00:00.000Z",)]


def test_of_several_rows_of_a_customer_the_newest_wins(shop: Shop, operate: Operate) -> None:
    rows = [
        {"id": "1", "email": "mara@example.com", "firstName": name, "updatedAt": f"2025-03-0{day}T00:00:00Z"}
        for name, day in (("First", 1), ("Last", 3), ("Middle", 2))
    ]
    operate(write("customers.json", json.dumps(rows)))
    drained(shop)
    assert shop.contact("mara@example.com")["attributes"]["FIRSTNAME"] == "Last"


def test_whoever_was_deleted_does_not_come_back(shop: Shop, operate: Operate) -> None:
    shop.sent("created", id="1", email="mara@example.com")
    shop.sent("deleted", id="1")
    calls = len(shop.calls)
    operate("--as-of", soon(60), write("customers.csv", CSV.replace("tom", "tim")))
    drained(shop)
    assert len(shop.calls) > calls
    assert shop.contact("mara@example.com")["emailBlacklisted"] is True
    assert shop.rows("SELECT deleted_at IS NULL FROM contacts ORDER BY customer_key") == [(0,), (1,)]


def test_the_same_file_again_writes_nothing(shop: Shop, operate: Operate) -> None:
    name = write("customers.csv", numbered(450))
    assert counts(operate("--json", name)) == (450, 0, 0)
    assert counts(operate("--json", name)) == (0, 450, 0)
    assert shop.status()["pending"] == 450


def test_a_longer_file_writes_what_is_missing(shop: Shop, operate: Operate) -> None:
    name = write("customers.csv", numbered(250), "2025-03-01T00:00:00Z")
    operate(name)
    write(name, numbered(460), "2025-03-01T00:00:00Z")
    assert counts(operate("--json", name)) == (210, 250, 0)


def test_a_row_that_says_its_time_is_the_same_in_a_newer_file(operate: Operate) -> None:
    rows = json.dumps([{"id": "1", "updatedAt": "2025-03-01T00:00:00Z"}, {"id": "2"}])
    operate(write("customers.json", rows, "2025-03-02T00:00:00Z"))
    assert counts(operate("--json", write("customers.json", rows, "2025-03-03T00:00:00Z"))) == (1, 1, 0)


def test_identical_rows_are_written_once_within_and_across_files(operate: Operate) -> None:
    at = "2025-03-01T00:00:00Z"
    first = write("one.csv", "id,firstName\n1,Mara\n2,Tom\n1,Mara\n", at)
    second = write("two.json", '[{"id": "2", "firstName": "Tom"}, {"id": "2", "firstName": "Tim"}]', at)
    facts = json.loads(operate("--json", first, second).stdout)
    assert facts == {
        "written": 3,
        "repeated": 2,
        "refused": 0,
        "files": [
            {"file": "one.csv", "written": 2, "repeated": 1, "refused": 0},
            {"file": "two.json", "written": 1, "repeated": 1, "refused": 0},
        ],
    }


def test_refused_rows_are_told_and_the_others_written(shop: Shop, operate: Operate) -> None:
    lines = [
        {"id": 1, "email": "mara@example.com"},
        {"firstName": "Nobody"},
        {"id": 3, "email": "not-an-address"},
        {"id": 4, "note": "x" * 300_000},
        {"id": 5},
    ]
    result = operate("--refused", "refused.jsonl", write("c.jsonl", "\n".join(map(json.dumps, lines))))
    assert exit_code(result) == 65
    assert [row[0] for row in shop.rows("SELECT payload ->> 'id' FROM outbox ORDER BY id")] == [1, 5]
    told = [json.loads(line) for line in Path("refused.jsonl").read_text().splitlines()]
    assert [(each["file"], each["line"]) for each in told] == [("c.jsonl", 2), ("c.jsonl", 3), ("c.jsonl", 4)]
    assert "neither a customer id nor an address" in told[0]["reason"]
    assert "email address is not valid" in told[1]["reason"]
    assert "larger than 256 KiB" in told[2]["reason"]
    assert "refused: c.jsonl, line 3: the email address is not valid" in result.stderr
    for text in ("not-an-address", "Nobody"):
        assert text not in result.output + Path("refused.jsonl").read_text()


def test_refused_rows_are_listed_whatever_bytes_their_file_is_called_by(operate: Operate) -> None:
    name = os.fsdecode(b"M\xfcller.csv")
    Path(name).write_text("id,email\n1,nobody\n")
    assert exit_code(operate("--json", "--refused", "refused.jsonl", name)) == 65
    [told] = map(json.loads, Path("refused.jsonl").read_text().splitlines())
    assert told["file"] == name


@pytest.mark.parametrize("name", ["./customers.csv", "config.yaml", "outbox", "its log"])
def test_the_list_of_refused_rows_overwrites_nothing_that_is_needed(
    shop: Shop, operate: Operate, name: str
) -> None:
    path = {"outbox": shop.path, "its log": Path(f"{shop.path}-wal")}.get(name, Path(name))
    export = write("customers.csv", CSV)
    before = path.read_bytes()
    result = operate("--refused", str(path), export)
    assert isinstance(result.exception, click.UsageError)
    assert "overwritten" in str(result.exception)
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_the_outbox_is_no_export(shop: Shop, operate: Operate, suffix: str) -> None:
    """To close it as a plain file would drop the locks that SQLite has on it."""
    path = shop.path.parent / ".." / shop.path.parent.name / f"{shop.path.name}{suffix}"
    result = operate(str(path))
    assert isinstance(result.exception, click.UsageError)
    assert f"{path} belongs to the outbox itself; name an export of the shop" in str(result.exception)


@pytest.mark.parametrize("rows", [1, 5000])
def test_a_list_of_refused_rows_that_finds_no_room_is_told_by_its_name(operate: Operate, rows: int) -> None:
    """Whether the disk is full while it is written, or when it is closed."""
    result = operate("--refused", "/dev/full", write("customers.csv", "id,email\n" + "1,nobody\n" * rows))
    assert exit_code(result) == 74
    assert "cannot be written to /dev/full: No space left on device" in str(result.exception)


def test_a_list_of_refused_rows_that_cannot_be_made_is_told_likewise(operate: Operate) -> None:
    result = operate("--refused", "missing/refused.jsonl", write("customers.csv", CSV))
    assert exit_code(result) == 74
    assert "cannot be written to missing/refused.jsonl: No such file or directory" in str(result.exception)


def test_the_list_of_refused_rows_ends_after_twenty(operate: Operate) -> None:
    result = operate(write("customers.csv", "id,email\n" + "1,nobody\n" * 1030))
    told = result.stderr.splitlines()
    assert len(told) == 21
    assert told[-1] == "and 1,010 more; --refused FILE lists them all"
    assert result.stdout.split()[-1] == "1,030"


def test_secrets_do_not_reach_the_database(shop: Shop, operate: Operate) -> None:
    row = {"id": 1, "email": "a@example.com", "password_hash": "kept-away", "x": {"rp_token": "kept-away"}}
    operate(write("one.jsonl", json.dumps(row)))
    operate(write("two.csv", "id,Password Hash,api_key\n2,kept-away,kept-away\n"))
    payloads = [json.loads(row[0]) for row in shop.rows("SELECT payload FROM outbox ORDER BY id")]
    assert payloads == [{"id": 1, "email": "a@example.com", "x": {}}, {"id": "2"}]


def test_standard_input_is_as_old_as_the_run(shop: Shop, operate: Operate) -> None:
    before = clock.wall()
    assert counts(operate("--json", "-", input=CSV)) == (2, 0, 0)
    (moment,) = {row[0] for row in shop.rows("SELECT occurred_at FROM outbox")}
    assert before <= clock.from_text(moment) <= clock.wall()


def test_the_source_can_be_named(shop: Shop, operate: Operate) -> None:
    operate("--source", "shopify:second", write("customers.csv", CSV))
    assert shop.rows("SELECT DISTINCT source FROM outbox") == [("shopify:second",)]
    assert operate("--source", "shopfy", "customers.csv").exception is not None


@pytest.mark.parametrize("form", exports.FORMATS)
def test_a_format_can_be_named(operate: Operate, form: str) -> None:
    content = {"csv": "id\n1\n", "jsonl": '{"id": 1}', "json": '{"id": 1}'}[form]
    assert counts(operate("--json", "--format", form, write("customers", content))) == (1, 0, 0)


def test_people_see_a_table(operate: Operate) -> None:
    result = operate(write("a.csv", numbered(1500)), write("b.csv", numbered(2, start=5000)))
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["file", "written", "repeated", "refused"],
        ["a.csv", "1,500", "0", "0"],
        ["b.csv", "2", "0", "0"],
        ["all", "1,502", "0", "0"],
    ]
    assert result.stderr == ""


def test_a_missing_file_or_outbox_is_told_before_anything_is_written(shop: Shop, operate: Operate) -> None:
    present = write("customers.csv", CSV)
    assert exit_code(operate(present, "absent.csv")) == 66
    assert shop.status()["pending"] == 0
    shop.path.rename("elsewhere.db")
    assert exit_code(operate(present)) == 66
    shop.path.write_text("no database at all")
    assert exit_code(operate(present)) == 74


# A run that is broken off, as a process of its own.


class Run:
    """`outboxd backfill -`, fed by hand."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "outboxd", "backfill", *options, "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def feed(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()


AS_OF = ("--as-of", "2025-03-01T00:00:00Z")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_run_that_was_broken_off_goes_on_without_doubling(
    shop: Shop, operate: Operate, how: signal.Signals
) -> None:
    """It had read part of the rows, and was waiting for more."""
    rows = numbered(20_000)
    run = Run(*AS_OF)
    run.feed(rows[: len(rows) * 3 // 4])
    until(lambda: shop.status()["pending"] > 1_000)
    run.process.send_signal(how)
    stdout, stderr = run.process.communicate(timeout=10)
    written = shop.status()["pending"]
    assert 1_000 < written < 20_000
    assert written % CHUNK == 0
    if how is signal.SIGINT:
        assert run.process.returncode == 130
        assert stdout.split()[-3] == f"{written:,}"
        assert "the same command goes on" in stderr
    assert counts(operate("--json", *AS_OF, "-", input=rows)) == (20_000 - written, written, 0)
    assert shop.rows("SELECT count(DISTINCT payload ->> 'id') FROM outbox") == [(20_000,)]


def test_a_stream_that_was_broken_off_is_told_the_time_to_name(shop: Shop, operate: Operate) -> None:
    run = Run()
    run.feed(numbered(20_000))
    until(lambda: shop.status()["pending"] > 1_000)
    run.process.send_signal(signal.SIGINT)
    _, stderr = run.process.communicate(timeout=10)
    moment = shop.rows("SELECT DISTINCT occurred_at FROM outbox")[0][0]
    assert f"--as-of {moment}" in stderr


# What is promised to others.


class Keeper:
    """A sink that keeps what it is given."""

    kinds: tuple[str, ...] = ()
    details: Mapping[str, Counter[str]] = MappingProxyType({})

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.chunks: list[int] = []

    def put(self, entries: Sequence[backfill.Entry]) -> Sequence[Refusal]:
        self.chunks.append(len(entries))
        return ()


def test_entries_come_in_chunks_and_progress_is_told() -> None:
    content = numbered(1_050).encode()
    keeper = Keeper()
    steps: list[tuple[int, int]] = []
    with exports.opened("-", BytesIO(content), now=clock.wall()) as export:
        backfill.pour(
            export,
            keeper,
            source="custom",
            options=sources.DEFAULTS,
            refuse=lambda refusal: None,
            step=lambda rows, size: steps.append((rows, size)),
        )
    assert keeper.chunks == [CHUNK] * (1_050 // CHUNK)
    assert [sum(step) for step in zip(*steps, strict=True)] == [1_050, len(content)]


def test_other_producers_write_meanwhile(shop: Shop, operate: Operate) -> None:
    """Every transaction is a short one, and each producer gets its turn."""
    name = write("customers.csv", numbered(6_000))
    is_over = threading.Event()
    ids: list[int] = []

    def produce() -> None:
        while not is_over.is_set():
            ids.append(shop.enqueue("created", id=f"live-{len(ids)}"))

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        assert counts(operate("--json", name)) == (6_000, 0, 0)
    finally:
        is_over.set()
        producer.join()
    between = [(later - earlier - 1) for earlier, later in itertools.pairwise(ids)]
    assert sum(gap > 0 for gap in between) > 3
    assert shop.status()["pending"] == 6_000 + len(ids)


def test_another_writer_that_does_not_let_go_is_named(shop: Shop, operate: Operate, monkeypatch: Any) -> None:
    monkeypatch.setattr("outboxd.database.BUSY_TIMEOUT", 0.05)
    with closing(sqlite3.connect(shop.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        result = operate(write("customers.csv", CSV))
    assert exit_code(result) == 74
    assert "locked by another program" in str(result.exception)


FOREIGN = "INSERT INTO outbox (event, payload) VALUES ('customer_created', '{}')"


def test_what_others_write_after_the_log_was_removed_is_not_written_over(db: Path) -> None:
    reading = Reading(Kind.UPDATED, "1", None)
    first, second = ([backfill.Entry(n, "{}", reading, None, f"key {n}")] for n in (1, 2))
    other = f"import sqlite3; c = sqlite3.connect({str(db)!r}, isolation_level=None); c.execute({FOREIGN!r})"
    with backfill.Writer.of(db, source="custom", now=clock.wall) as writer:
        writer.put(first)
        db.with_name("outbox.db-shm").unlink()
        subprocess.run([sys.executable, "-c", other], check=True)
        with pytest.raises(AdriftError):
            writer.put(second)
    with backfill.Writer.of(db, source="custom", now=clock.wall) as writer:
        writer.put(first)
        writer.put(second)
        assert writer.counts == {"written": 1, "repeated": 1}
    with database.reading(db) as connection:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (3,)


locals_ = st.text("ab1A._-+'\"@ é", min_size=0, max_size=70)
domains = st.sampled_from(
    ["example.com", "EXAMPLE.com", "mail.shop.de", "localhost", "a..b", "-a.de", "", "x.invalid"]
)


@given(locals_, domains | locals_)
@example("a" * 64, "example.com")
@example("a" * 65, "example.com")
@example("mara", "example.com ")
def test_an_address_is_refused_here_exactly_if_it_would_be_at_delivery(local: str, domain: str) -> None:
    row = Row(2, {"id": 1, "email": f"{local}@{domain}"})
    assert _is_taken(row) == _is_deliverable(row.data["email"])


def _is_taken(row: Row) -> bool:
    try:
        backfill.entry(row, source="custom", options=sources.DEFAULTS, as_of="")
    except EventError:
        return False
    return True


def _is_deliverable(email: str) -> bool:
    try:
        mapping.address(Reading(Kind.UPDATED, "1", email))
    except EventError:
        return False
    return True


names = st.dictionaries(
    st.sampled_from(["id", "email", "firstName", "updatedAt"]), st.text(max_size=5), min_size=1
)


@given(names, names)
def test_two_rows_have_one_key_exactly_if_they_say_the_same(
    first: dict[str, str], second: dict[str, str]
) -> None:
    def key(data: dict[str, str]) -> str:
        row = Row(1, {"id": 1, **data, "email": "mara@example.com"})
        return backfill.entry(row, source="custom", options=sources.DEFAULTS, as_of="").key

    def said(data: dict[str, str]) -> str:
        return json.dumps({"id": 1, **data, "email": "mara@example.com"})

    assert (key(first) == key(second)) == (said(first) == said(second))


def test_the_moment_of_a_row_is_part_of_its_key_only_if_it_says_none() -> None:
    def keys(data: dict[str, Any]) -> set[str]:
        moments = (clock.to_text(datetime(2025, 3, day, tzinfo=UTC)) for day in (1, 2))
        return {
            backfill.entry(Row(1, data), source="custom", options=sources.DEFAULTS, as_of=at).key
            for at in moments
        }

    assert len(keys({"id": 1})) == 2
    assert len(keys({"id": 1, "updatedAt": "2025-03-01T00:00:00Z"})) == 1
