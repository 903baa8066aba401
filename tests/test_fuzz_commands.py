"""Whatever is typed ends with an exit code and words for people: no traceback, no waiting without end.

The commands run in this process, on an outbox with some events and a sandbox as Brevo. Those that run until
they are stopped (`run`, `demo`, `status --watch`) are only given what they cannot take, and `sandbox` a port
that somebody has.
"""

import io
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields
from pathlib import Path
from socket import create_server
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import outboxd
from outboxd import cli
from outboxd.brevo.sandbox import Fault, Sandbox
from outboxd.intake.command import OPTIONS, main
from tests.fuzz import cases
from tests.outboxes import new_outbox
from tests.processes import KEY, write_config
from tests.test_fuzz_payloads import MARK, PAYLOADS

CODES = {0, 1, 2, 3, 64, 65, 66, 69, 74, 75, 77, 78, 130}
"""The exit codes that the README names."""

LONGEST = 30
"""Seconds after which a command is taken to hang."""

ENDLESS = {"run", "demo"}

TAKEN = create_server(("127.0.0.1", 0))
PORT = str(TAKEN.getsockname()[1])
"""Of that port: a sandbox ends at once that has understood all else."""

EVENT = ["--event", "customer_updated", "--data", '{"id": 1}']

WORDS = st.sampled_from(
    (
        *("", "-", "--", "0", "1", "2", "-1", "1e400", "nan", "inf", "9" * 30, "yes"),
        *("customer_created", "shopify", "jane@example.com", "custom:1", "2026-11-23T16:12:51Z"),
        *("now", "dead>0", "oldest>15m", "dead>", "lane=running", "csv", "reason", "NAME:text"),
        *("{", "{}", "[]", "null", "%s%n", "../..", "~", "\x1b[31m", "\n", "💌", "a\udcffb"),
        *("events.jsonl", "customers.csv", "missing", "directory", "outbox.db", "binary"),
        *("copy.db", "directory/copy.db", "outbox.db-wal", "directory/../outbox.db", "faults.json"),
    )
) | st.text(st.characters(codec="utf-8", exclude_characters="/\0"), max_size=6)
"""What stands on command lines; of files only some, in a directory of their own."""

FAULTS = st.lists(
    st.dictionaries(
        st.sampled_from([each.name for each in fields(Fault)]),
        st.none() | st.integers() | st.floats() | st.text(max_size=4) | st.just({}) | st.just("reset"),
        max_size=3,
    ),
    max_size=2,
).map(lambda faults: json.dumps(faults).encode())


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a configuration, an outbox and files of several kinds; it becomes the working one."""
    directory = tmp_path_factory.mktemp("desk")
    with Sandbox() as sandbox, pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setenv("BREVO_API_KEY", KEY)
        config = write_config(directory / "config.yaml", sandbox.url)
        patch.setenv("OUTBOXD_DATABASE", str(directory / "outbox.db"))
        patch.setenv("OUTBOXD_CONFIG", str(config))
        new_outbox(directory / "outbox.db")
        for number in range(4):
            outboxd.enqueue(
                "customer_created",
                {"id": number, "email": f"zyx{number}@example.com", "firstName": "Zyx"},
                db=directory / "outbox.db",
            )
        (directory / "directory").mkdir()
        (directory / "binary").write_bytes(bytes(range(256)) * 9)
        (directory / "customers.csv").write_text("id,email,first name\n8,zyx@example.com,Zyx\n9,,\n")
        event = {"event": "customer_updated", "data": {"id": 3, "email": "zyx@example.com"}}
        (directory / "faults.json").write_text('[{"status": 503}]')
        (directory / "events.jsonl").write_text(json.dumps(event) + "\n{\n")
        yield directory


@contextmanager
def given_input(data: bytes) -> Iterator[None]:
    """Standard input holds `data`, and a command that hangs is broken off."""

    def hangs(*_: Any) -> None:
        pytest.fail(f"no end within {LONGEST} seconds")

    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(data), "utf-8", "surrogateescape")
    handler = signal.signal(signal.SIGALRM, hangs)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        sys.stdin = before


def call(command: Any, arguments: Sequence[str], data: bytes = b"") -> Told:
    """Run a command's function with its streams in hand, as strict as a process has them."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", how) for how in ("strict", "backslashreplace"))
    with given_input(data), redirect_stdout(out), redirect_stderr(err):
        code = command(list(arguments))
    told = []
    for stream in (out, err):
        stream.flush()
        told.append(stream.buffer.getvalue().decode())
    return Told(code, *told)


def command_of(name: str) -> click.Command:
    found = cli.group.get_command(click.Context(cli.group), name)
    assert found is not None
    return found


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command with options of its own, and of others, in any order, with any values."""
    name = draw(st.sampled_from(sorted(cli.COMMANDS)))
    options = {
        option: isinstance(parameter, click.Option) and parameter.is_flag
        for parameter in command_of(name).params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
        if option not in ("--config", "--watch")
    }
    arguments: list[str] = []
    for option in draw(st.lists(st.sampled_from(sorted(options) or ["--help"]), max_size=4)):
        arguments.append(option)
        if not options.get(option, True):
            arguments.append(draw(WORDS))
    arguments += draw(st.lists(WORDS, max_size=2))
    if name in ENDLESS:
        arguments.insert(0, "--no-such-option")
    if name == "sandbox":
        arguments += ["--port", PORT]
    return [name, *arguments]


@settings(
    max_examples=cases(150),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(line=lines(), data=PAYLOADS | st.binary(max_size=20))
@example(line=["metrics", "--textfile", "outbox.db"], data=b"")
def test_any_command_line_ends_with_a_known_exit_code(desk: Path, line: list[str], data: bytes) -> None:
    """And leaves an outbox that takes events."""
    told = call(cli.main, line, data)
    assert told.code in CODES, told
    assert told.code == 0 or told.err or told.out, "a failure must be told"
    assert KEY not in told.out + told.err
    assert call(main, EVENT).code == 0, line


@settings(max_examples=cases(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=FAULTS | PAYLOADS | st.binary(max_size=20))
def test_any_faults_are_understood_or_refused(desk: Path, faults: bytes) -> None:
    told = call(cli.main, ["sandbox", "--port", PORT, "--faults", "-"], faults)
    assert told.code in (1, 78), told
    assert told.err


@pytest.mark.parametrize("option", ["--latency", "--fail-rate"])
def test_what_is_no_number_lies_in_no_range(desk: Path, option: str) -> None:
    told = call(cli.main, ["sandbox", "--port", PORT, option, "nan"])
    assert (told.code, "not a number" in told.err) == (2, True)
    told = call(cli.main, ["status", "--watch", "--every", "nan"])
    assert (told.code, "not a number" in told.err) == (2, True)


@settings(max_examples=cases(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=st.lists(WORDS, max_size=4))
def test_any_words_are_no_command_and_told_so(desk: Path, line: list[str]) -> None:
    assert call(cli.main, line).code in CODES


@settings(
    max_examples=cases(150),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    arguments=st.lists(st.sampled_from([*OPTIONS, "--skip-invalid", "-h", "--help"]) | WORDS, max_size=6),
    data=PAYLOADS | st.lists(PAYLOADS, max_size=3).map(b"\n".join) | st.binary(max_size=20),
)
def test_any_use_of_the_intake_ends_with_a_known_exit_code_and_no_word_of_the_data(
    desk: Path, arguments: list[str], data: bytes
) -> None:
    told = call(main, arguments, data)
    assert told.code in CODES, told
    assert not MARK.search(told.err), told.err
    assert call(main, EVENT).code == 0, arguments


@settings(max_examples=cases(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=PAYLOADS,
    takes=st.sampled_from(["enqueue", "outboxd-intake"]),
    by=st.sampled_from(["--data", "input"]),
)
def test_data_that_is_refused_is_not_repeated(desk: Path, data: bytes, takes: str, by: str) -> None:
    """Neither by the one command nor by the other, whichever way the data came."""
    arguments = ["--event", "customer_updated"]
    if by == "--data":
        arguments += ["--data", os.fsdecode(data)]
    command = main if takes == "outboxd-intake" else cli.main
    told = call(command, arguments if command is main else [takes, *arguments], data)
    assert told.code in (0, 65), told
    assert not MARK.search(told.err), told.err
