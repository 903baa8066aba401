"""`outboxd-intake` as a real process: what it takes, what it refuses, and with which exit code."""

import ctypes
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

INTAKE = str(Path(sys.executable).with_name("outboxd-intake"))
GOOD = '{"event": "customer_created", "data": {"id": %d}}'


def intake(
    db: Path | str, *options: str, given: str | bytes = b"", is_powerless: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run it on `db` with `given` as standard input; `is_powerless`: without root's right to all files."""
    ran = subprocess.run(
        [INTAKE, "--db", str(db), *options],
        input=given.encode() if isinstance(given, str) else given,
        capture_output=True,
        timeout=30,
        preexec_fn=give_up_power if is_powerless else None,
    )
    return subprocess.CompletedProcess(ran.args, ran.returncode, ran.stdout.decode(), ran.stderr.decode())


LIBC = ctypes.CDLL(None)


def give_up_power() -> None:
    """Drop CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from what root gains by an exec; others lack them."""
    for capability in (1, 2):
        LIBC.prctl(24, capability, 0, 0, 0)


def stored(db: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(db)) as connection:
        return connection.execute("SELECT event, payload FROM outbox ORDER BY id").fetchall()


def test_one_event_is_written_by_options(db: Path) -> None:
    ran = intake(
        db,
        *("--event", "customer_deleted", "--data", '{"id": 5}', "--source=shopify"),
        *("--occurred-at", "2026-11-23T17:12:51+01:00", "--idempotency-key", "k"),
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "1\n", "")
    with closing(sqlite3.connect(db)) as connection:
        row = connection.execute("SELECT event, payload, source, occurred_at, idempotency_key FROM outbox")
        assert row.fetchone() == (
            "customer_deleted",
            '{"id":5}',
            "shopify",
            "2026-11-23T16:12:51.000Z",
            "k",
        )


LINES = "\n".join(GOOD % number for number in (1, 2, 3))


@pytest.mark.parametrize(
    "given",
    [
        LINES,
        LINES + "\n",
        "\n \n" + LINES.replace("\n", "\r\n\r\n"),
        b"\xef\xbb\xbf" + LINES.encode(),
        json.dumps([json.loads(line) for line in LINES.splitlines()]),
        json.dumps([json.loads(line) for line in LINES.splitlines()], indent=2),
    ],
    ids=["lines", "ended", "blank lines", "byte order mark", "array", "array over lines"],
)
def test_many_events_are_read_from_standard_input(db: Path, given: str | bytes) -> None:
    ran = intake(db, given=given)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "1\n2\n3\n", "")
    assert [json.loads(payload)["data"]["id"] for _, payload in stored(db)] == [1, 2, 3]


def test_one_object_may_stand_over_many_lines(db: Path) -> None:
    assert intake(db, given=json.dumps(json.loads(GOOD % 1), indent=4)).stdout == "1\n"


def test_bare_data_is_of_the_event_that_the_option_names(db: Path) -> None:
    ran = intake(db, "--event", "customer_updated", given='{"id": 1}\n{"email": "jane@example.com"}')
    assert ran.returncode == 0
    assert [event for event, _ in stored(db)] == ["customer_updated"] * 2


@pytest.mark.parametrize("names", [("idempotency_key", "occurred_at"), ("idempotencyKey", "occurredAt")])
def test_a_line_may_carry_its_own_particulars(db: Path, names: tuple[str, str]) -> None:
    key, moment = names
    line = {**json.loads(GOOD % 1), "source": "magento", key: "a", moment: "2026-01-01T00:00:00Z"}
    ran = intake(db, "--source", "shopify", given=f"{json.dumps(line)}\n{json.dumps(line)}\n{GOOD % 2}")
    assert ran.stdout == "1\n1\n2\n"
    with closing(sqlite3.connect(db)) as connection:
        told = connection.execute("SELECT source, idempotency_key, occurred_at FROM outbox").fetchall()
    assert told == [("magento", "a", "2026-01-01T00:00:00.000Z"), ("shopify", None, None)]
    assert all("occurred" not in payload for _, payload in stored(db))


def test_a_file_is_read_too(db: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(LINES)
    assert intake(db, str(path)).stdout == "1\n2\n3\n"
    assert intake(db, str(tmp_path / "none.jsonl")).returncode == 66


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_line_ends_where_json_lines_end_and_nowhere_else(db: Path, separator: str) -> None:
    """JSON lets these stand within a text, though Unicode calls them ends of lines."""
    line = json.dumps(
        {"event": "customer_created", "data": {"id": 1, "firstName": f"Ada{separator}B"}}, ensure_ascii=False
    )
    ran = intake(db, given=f"{line}\n{GOOD % 2}")
    assert (ran.returncode, ran.stdout) == (0, "1\n2\n"), ran.stderr


BAD = "\n".join(
    (
        GOOD % 1,
        "{broken",
        "[1]",
        '{"event": "customer_created", "data": {"firstName": "s3cr3t"}}',
        "",
        '{"id": 5}',
        '{"event": "customer_moved", "data": {"id": 1}}',
        f'{{"event": "customer_created", "data": {{"id": {"9" * 5000}}}}}',
        '{"event": "customer_created", "data": {"id": ' + "[" * 100_000 + "}}",
        GOOD % 2,
    )
)
FAULTY = [2, 3, 4, 6, 7, 8, 9]


def test_nothing_of_a_faulty_input_is_written_and_every_fault_is_told(db: Path) -> None:
    ran = intake(db, given=BAD)
    assert (ran.returncode, ran.stdout) == (65, "")
    told = [line.partition("line ")[2].partition(":")[0] for line in ran.stderr.splitlines()]
    assert told == [str(number) for number in FAULTY]
    assert "s3cr3t" not in ran.stderr
    assert stored(db) == []


def test_the_good_lines_of_a_faulty_input_are_written_where_that_is_wanted(db: Path) -> None:
    ran = intake(db, "--skip-invalid", given=BAD)
    assert (ran.returncode, ran.stdout) == (65, "1\n2\n")
    assert ran.stderr.count("left out: line ") == len(FAULTY)
    assert ran.stderr.endswith(f"wrote 2, left out {len(FAULTY)}\n")
    assert len(stored(db)) == 2


def test_a_skipped_input_without_a_good_line_writes_nothing(db: Path) -> None:
    assert intake(db, "--skip-invalid", given="{").returncode == 65
    assert stored(db) == []


def test_text_that_is_not_utf8_is_refused_with_its_line(db: Path) -> None:
    latin = '{"event": "customer_created", "data": {"id": 2, "lastName": "Müller"}}'.encode("latin-1")
    ran = intake(db, given=(GOOD % 1).encode() + b"\n" + latin)
    assert (ran.returncode, ran.stdout) == (65, "")
    assert "line 2: not UTF-8" in ran.stderr
    assert stored(db) == []


@pytest.mark.parametrize("given", ["", "\n\n", "[]"])
def test_an_empty_input_is_told(db: Path, given: str) -> None:
    ran = intake(db, given=given)
    assert (ran.returncode, ran.stdout) == (65, "")
    assert "empty" in ran.stderr


@pytest.mark.parametrize(
    ("name", "mend"),
    [("none.db", "create it with: outboxd migrate"), ("no/none.db", "sudo install -d -m 2770 ")],
)
def test_a_missing_outbox_is_told_with_its_mend(tmp_path: Path, name: str, mend: str) -> None:
    ran = intake(tmp_path / name, given=GOOD % 1)
    assert ran.returncode == 66
    assert f"hint: {mend}" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_outbox_that_may_not_be_written_is_told_with_its_mend(db: Path) -> None:
    db.chmod(0o440)
    db.parent.chmod(0o550)
    try:
        ran = intake(db, given=GOOD % 1, is_powerless=True)
    finally:
        db.parent.chmod(0o770)
    assert ran.returncode == 77
    assert "hint: be the one it belongs to: sudo -u root" in ran.stderr


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, only a long enough text\n" * 20)
    ran = intake(path, given=GOOD % 1)
    assert ran.returncode == 74
    assert "not a sound SQLite database" in ran.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--evnt", "x"],
        ["--event"],
        ["a", "b"],
        ["--data", "{}", "a"],
        ["--idempotency-key", "k"],
    ],
)
def test_wrong_usage_is_told(db: Path, options: list[str]) -> None:
    ran = intake(db, *options, given=LINES)
    assert ran.returncode == 64, ran.stderr
    assert ran.stderr.startswith("outboxd-intake: ")
    assert stored(db) == []


def test_help_names_every_option_and_needs_no_outbox(tmp_path: Path) -> None:
    ran = intake(tmp_path / "none.db", "--help")
    assert ran.returncode == 0
    for option in ("--event", "--data", "--source", "--occurred-at", "--idempotency-key", "--skip-invalid"):
        assert option in ran.stdout


@pytest.mark.parametrize(("closed", "code", "told"), [(0, 0, "1\n"), (1, 74, ""), (2, 0, "1\n")])
def test_a_shop_may_start_it_without_one_of_its_streams(db: Path, closed: int, code: int, told: str) -> None:
    ran = subprocess.run(
        [INTAKE, "--db", str(db), "--event", "customer_created", "--data", '{"id": 5}'],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=lambda: os.close(closed),
        text=True,
        timeout=30,
    )
    assert (ran.returncode, ran.stdout) == (code, told), ran.stderr
    assert ("do not write it again" in ran.stderr) == (closed == 1)
    assert len(stored(db)) == 1


def test_what_is_left_out_is_not_said_among_the_ids(db: Path) -> None:
    """Where standard error is closed it is said nowhere."""
    ran = subprocess.run(
        [INTAKE, "--db", str(db), "--skip-invalid"],
        input=f"{GOOD % 1}\n{{\n".encode(),
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.close(2),
        timeout=30,
    )
    assert (ran.returncode, ran.stdout) == (65, b"1\n")


@pytest.mark.parametrize(
    ("options", "given", "code", "written"),
    [
        (["--nonsense"], "", 64, 0),
        ([], "{", 65, 0),
        (["--skip-invalid"], f"{GOOD % 1}\n{{\n", 65, 1),
        (["--help"], "", 0, 0),
    ],
)
@pytest.mark.parametrize("full", ["stdout", "stderr"])
def test_what_nobody_can_be_told_does_not_change_what_is_done_nor_the_exit_code(
    db: Path, full: str, options: list[str], given: str, code: int, written: int
) -> None:
    """But for ids that cannot be printed: they are missed."""
    with open("/dev/full", "wb") as nobody:
        out, err = (nobody if name == full else subprocess.PIPE for name in ("stdout", "stderr"))
        command = [INTAKE, "--db", str(db), *options]
        ran = subprocess.run(command, input=given.encode(), stdout=out, stderr=err, timeout=30)
    assert ran.returncode == (74 if written and full == "stdout" else code), ran.stderr
    assert b"Traceback" not in (ran.stderr or b"")
    assert len(stored(db)) == written


def test_several_producers_at_once_each_get_their_turn(db: Path) -> None:
    """Four processes write a hundred events each, a transaction an event: none fails, none is lost."""
    code = (
        "import sys, outboxd\n"
        "for n in range(100):\n"
        "    print(outboxd.enqueue('customer_created', {'id': f'{sys.argv[2]}-{n}'}, db=sys.argv[1]))\n"
    )
    producers = [
        subprocess.Popen([sys.executable, "-c", code, str(db), str(number)], stdout=subprocess.PIPE)
        for number in range(4)
    ]
    told = [producer.communicate(timeout=60)[0].split() for producer in producers]
    assert [producer.returncode for producer in producers] == [0] * 4
    assert sorted(int(number) for ids in told for number in ids) == list(range(1, 401))
    customers = {json.loads(payload)["id"] for _, payload in stored(db)}
    assert customers == {f"{producer}-{number}" for producer in range(4) for number in range(100)}
