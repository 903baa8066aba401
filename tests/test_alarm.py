"""`status` as a check: its first line, its exit codes, and what its start costs."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from outboxd import cli
from tests.shop import Shop

Status = Callable[..., int]


@pytest.fixture
def config(shop: Shop, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"database": str(shop.path)}))
    return path


@pytest.fixture
def status(config: Path) -> Status:
    """Runs `outboxd status` at the shop as the program does; its exit code."""
    return lambda *arguments: cli.main(["status", "--config", str(config), *arguments])


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """The lines on stdout since the last time."""
    return lambda: capsys.readouterr().out.splitlines()


def fail(shop: Shop) -> None:
    """Make a dead letter."""
    shop.sent("updated", id=9, firstName="Nobody")


def test_without_thresholds_a_dead_letter_is_no_failure(shop: Shop, status: Status) -> None:
    fail(shop)
    assert status() == 0


def test_a_check_that_finds_all_well_says_so_before_the_table(
    shop: Shop, status: Status, told: Callable[[], list[str]]
) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    assert status("--fail-if", "dead>0", "--fail-if", "heartbeat>1m", "--warn-if", "lane!=running") == 0
    first, blank, *table = told()
    assert first.startswith("OK: ")
    assert blank == ""
    assert table[0].split() == ["pending", "0"]


def test_a_warning_exits_with_1_and_a_failure_with_2(
    shop: Shop, status: Status, told: Callable[[], list[str]]
) -> None:
    fail(shop)
    assert status("--warn-if", "dead>0", "--fail-if", "dead>5") == 1
    assert told()[0] == "WARNING: dead is 1 (dead>0)"
    assert status("--fail-if", "dead>0") == 2
    assert told()[0] == "CRITICAL: dead is 1 (dead>0)"


def test_the_worst_counts_and_everything_that_is_met_is_told(
    shop: Shop, status: Status, told: Callable[[], list[str]]
) -> None:
    fail(shop)
    assert status("--warn-if", "error_rate>=5%", "--fail-if", "dead>0", "--fail-if", "pending>5") == 2
    assert told()[0] == "CRITICAL: dead is 1 (dead>0); error_rate is 100.0% (error_rate>=5%)"


def test_a_daemon_that_never_ran_is_told_as_such(status: Status, told: Callable[[], list[str]]) -> None:
    assert status("--fail-if", "heartbeat>1m") == 2
    assert told()[0] == "CRITICAL: heartbeat is never (heartbeat>1m)"


def test_in_json_the_check_stands_beside_the_facts(
    shop: Shop, status: Status, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(shop)
    assert status("--json", "--fail-if", "dead>0", "--warn-if", "pending>5") == 2
    facts = json.loads(capsys.readouterr().out)
    assert facts["check"] == {"level": "CRITICAL", "met": [{"threshold": "dead>0", "level": "CRITICAL"}]}
    assert facts["dead"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fail-if", "ded>0"],
        ["--fail-if", "dead>0", "--no-such-option"],
        ["--fail-if=dead>0", "--watch"],
        ["--warn-if"],
    ],
)
def test_a_check_that_is_written_wrong_is_unknown_not_critical(
    arguments: list[str], status: Status, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(*arguments) == 3
    told = capsys.readouterr()
    assert told.out.startswith("UNKNOWN: ")
    assert "hint: see: outboxd status --help" in told.err


def test_a_wrong_name_is_answered_with_the_known_ones(
    status: Status, capsys: pytest.CaptureFixture[str]
) -> None:
    status("--fail-if", "ded>0")
    assert "known are: pending, due, " in capsys.readouterr().err


def test_without_an_outbox_a_check_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("database: missing.db\n")
    check = ["status", "--config", str(tmp_path / "config.yaml")]
    assert cli.main([*check, "--fail-if", "dead>0"]) == 3
    told = capsys.readouterr()
    assert told.out.startswith("UNKNOWN: there is no outbox at ")
    assert "hint: create it with: outboxd migrate" in told.err
    assert cli.main(check) == 66


@pytest.mark.parametrize("wrong", [["--config", "missing.yaml"], ["--no-such-option"]])
def test_a_program_reads_json_also_where_there_is_no_answer(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", "--json", "--fail-if", "dead>0", *wrong]) == 3
    assert json.loads(capsys.readouterr().out) == {"check": {"level": "UNKNOWN", "met": []}}


def test_without_a_configuration_a_check_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUTBOXD_CONFIG", str(tmp_path / "missing.yaml"))
    assert cli.main(["status", "--warn-if", "dead>0"]) == 3
    assert cli.main(["status"]) == 78


def loaded(code: str, *arguments: str) -> set[str]:
    """The modules of a Python that has run `code`."""
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


RUN = "from outboxd import cli; assert cli.main(sys.argv[1:]) == 0"


@pytest.mark.parametrize("arguments", [["status", "--fail-if", "dead>5"], ["metrics"]])
def test_it_starts_without_what_only_the_daemon_needs(arguments: list[str], config: Path) -> None:
    heavy = {"sqlalchemy", "alembic", "requests", "apscheduler", "rich", "phonenumbers", "email_validator"}
    assert heavy & loaded(RUN, *arguments, "--config", str(config)) == set()


def test_a_command_runs_with_the_collector_on() -> None:
    """It rests while modules are loaded, and only then."""
    code = (
        "import gc, sys; from outboxd.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: print(gc.isenabled(), gc.get_freeze_count() > 0)"
    )
    command = [sys.executable, "-c", code, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == "True True"


def test_a_look_loads_no_thresholds_and_compiles_no_dataclass(config: Path) -> None:
    """A frozen one costs half a millisecond where it is defined, and there would be a dozen."""
    looked = loaded(RUN, "status", "--config", str(config))
    assert not looked & {"outboxd.threshold", "outboxd.cli.alarm"}
    assert "dataclasses" not in looked - loaded("import click, yaml")
