"""The operator's commands: what they print, and what their exit codes say."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from outboxd import cli
from outboxd.brevo.sandbox import Fault
from outboxd.errors import OutboxdError
from tests.shop import KEY, MakeShop, Shop


@pytest.fixture
def operate(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command of `outboxd` at the shop; errors come back as they are raised."""
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    return lambda *arguments: run(shop, tmp_path, *arguments)


def run(shop: Shop, directory: Path, *arguments: str, answer: str = "", **sync: Any) -> Result:
    path = directory / "config.yaml"
    skill = {"customer-sync": sync}
    path.write_text(
        json.dumps({"database": str(shop.path), "brevo": {"base_url": shop.sandbox.url}, "skills": skill})
    )
    return CliRunner().invoke(
        cli.group,
        [arguments[0], "--config", str(path), *arguments[1:]],
        input=answer,
        standalone_mode=False,
    )


def exit_code(result: Result) -> int:
    if isinstance(result.exception, OutboxdError):
        return result.exception.exit_code
    assert result.exception is None, result.exception
    return int(result.return_value or 0)


def test_status_has_the_promised_keys(shop: Shop, operate: Any) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    shop.enqueue("created", id=2, email="tom@example.com")
    facts = json.loads(operate("status", "--json").output)
    assert {
        name: facts[name] for name in ("pending", "due", "in_flight", "retrying", "dead", "delivered")
    } == {
        "pending": 1,
        "due": 1,
        "in_flight": 0,
        "retrying": 0,
        "dead": 0,
        "delivered": 1,
    }
    assert facts["oldest_pending_seconds"] >= 0
    assert facts["next_attempt_at"] is None
    assert facts["lane"] == {"state": "running", "reason": None, "until": None}
    for window in (facts["windows"]["hour"], facts["windows"]["day"]):
        assert (window["delivered"], window["failed"], window["success_rate"]) == (1, 0, 1.0)
        assert set(window["latency_ms"]) == {"average", "p50", "p95", "p99"}
        assert window["latency_ms"]["p50"] > 0


def test_status_tells_people_the_depth_first(shop: Shop, operate: Any) -> None:
    shop.enqueue("created", id=1, email="mara@example.com")
    output = operate("status").output
    assert output.splitlines()[0].split() == ["pending", "1"]
    assert "lane" in output


def test_a_retrying_event_is_told_with_its_next_attempt(shop: Shop, operate: Any) -> None:
    shop.sandbox.faults.add(Fault(status=503, path="/contacts", times=1))
    shop.sent("created", id=1, email="mara@example.com")
    facts = json.loads(operate("status", "--json").output)
    assert (facts["pending"], facts["retrying"], facts["due"]) == (1, 1, 0)
    assert facts["next_attempt_at"] > shop.event(1)["created_at"]
    assert facts["windows"]["hour"]["error_rate"] == 1.0


def test_what_is_in_flight_or_goes_at_once_has_no_next_attempt(make_shop: MakeShop) -> None:
    """Neither the end of a lease is one, nor the moment at which an event was written."""
    shop = make_shop({"latency": timedelta(seconds=0.5)})
    event_id = shop.enqueue("created", id=1, email="mara@example.com")
    assert shop.status()["next_attempt_at"] is None
    shop.relay.step()
    told = shop.status()
    assert (told["in_flight"], told["next_attempt_at"]) == (1, None)
    shop.settle()
    assert shop.event(event_id)["status"] == "delivered"


def test_nothing_is_attempted_before_the_lane_goes_on(shop: Shop, operate: Any) -> None:
    shop.sandbox.faults.add(Fault(status=503, path="/contacts", times=1))
    retried = shop.sent("created", id=1, email="mara@example.com")["next_attempt_at"]
    assert shop.status()["next_attempt_at"] == retried
    shop.sandbox.faults.add(Fault(status=429, headers={"x-sib-ratelimit-reset": "600"}, times=1))
    shop.sent("created", id=2, email="tom@example.com")
    told = shop.status()
    assert told["lane"]["state"] == "waiting"
    assert told["next_attempt_at"] == told["lane"]["until"] > retried
    assert re.search(r"next attempt +in (9 min|10 min)", operate("status").output)
    operate("pause")
    assert shop.status()["next_attempt_at"] is None


def test_a_retry_that_nobody_makes_is_told_as_due(shop: Shop, operate: Any) -> None:
    shop.sandbox.faults.add(Fault(status=503, path="/contacts", times=1))
    shop.clock.ahead = timedelta(hours=-1)
    shop.sent("created", id=1, email="mara@example.com")
    assert re.search(r"next attempt +due 59 min \d+ s ago", operate("status").output)


def test_a_disabled_sync_says_so(shop: Shop, tmp_path: Path) -> None:
    facts = json.loads(run(shop, tmp_path, "status", "--json", enabled=False).output)
    assert facts["lane"]["state"] == "disabled"
    assert "enabled" in facts["lane"]["reason"]


def test_drain_delivers_what_is_due(shop: Shop, operate: Any) -> None:
    shop.enqueue("created", id=1, email="mara@example.com")
    assert exit_code(operate("drain")) == 0
    assert shop.contact("mara@example.com")


def test_a_drain_that_is_blocked_says_why(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREVO_API_KEY", "xkeysib-wrong")
    shop.enqueue("created", id=1, email="mara@example.com")
    result = run(shop, tmp_path, "drain")
    assert exit_code(result) == 75
    assert "API key" in result.output
    assert json.loads(run(shop, tmp_path, "status", "--json").output)["lane"]["state"] == "blocked"


def test_a_drain_that_cannot_reach_brevo_says_so_each_time(shop: Shop, operate: Any) -> None:
    """The events are put off until the next probe: that they are not due then is no success."""
    from outboxd.brevo.sandbox import Fault

    shop.sandbox.faults.add(Fault(behaviour="reset"))
    shop.enqueue("created", id=1, email="mara@example.com")
    for _ in "ab":
        result = operate("drain")
        assert exit_code(result) == 75
        assert "the lane is blocked" in result.output


def test_a_drain_that_would_wait_long_says_until_when(shop: Shop, operate: Any) -> None:
    from outboxd.brevo.sandbox import Fault

    shop.sandbox.faults.add(Fault(status=429, headers={"retry-after": "1800"}, path="/contacts"))
    shop.enqueue("created", id=1, email="mara@example.com")
    result = operate("drain")
    assert exit_code(result) == 75
    until = json.loads(operate("status", "--json").output)["lane"]["until"]
    assert result.output.endswith(f"the lane is waiting: Brevo's rate limit is used up (next try {until})\n")


def test_events_lists_by_status_and_page(shop: Shop, operate: Any) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    shop.sent("updated", id=9, firstName="Nobody")
    shop.enqueue("created", id=2, email="tom@example.com")
    for only, ids in (("--pending", [3]), ("--dead", [2]), ("--delivered", [1])):
        assert [row["id"] for row in json.loads(operate("events", only, "--json").output)] == ids
    page = json.loads(operate("events", "--limit", "1", "--before", "3", "--json").output)
    assert [row["id"] for row in page] == [2]
    assert "no address is known" in operate("events", "--dead").output


def test_events_are_of_one_status_or_of_all(operate: Any) -> None:
    both = operate("events", "--dead", "--pending").exception
    assert isinstance(both, click.UsageError)
    assert str(both) == "say either --dead or --pending"


@pytest.mark.parametrize("option", ["--source shopify", "--event customer_updated"])
def test_what_is_said_of_a_file_is_refused_of_an_event(shop: Shop, operate: Any, option: str) -> None:
    shop.enqueue("created", id=1, email="mara@example.com")
    refused = operate("explain", "1", "--offline", *option.split()).exception
    assert isinstance(refused, click.UsageError)
    assert "are of a file" in str(refused)


def test_a_key_that_cannot_be_sent_is_told_with_its_mend(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREVO_API_KEY", "xkeysib-ä")
    output = run(shop, tmp_path, "check").output
    assert "must be one word of plain letters (xkeysib-…)\n      mend it: export BREVO_API_KEY=" in output


def test_one_is_told_of_in_the_singular(shop: Shop, operate: Any) -> None:
    shop.sent("created", id=1, email="mara@example.com", phone="12345")
    shop.sent("updated", id=9, firstName="Nobody")
    assert "(1 time)" in operate("status").output
    assert "(1 time, last at" in operate("check").output
    assert operate("retry", "2").output == "1 dead letter to be delivered again\n"
    assert "1 customer compared with 1 contact in Brevo" in operate("verify").output


def test_where_nothing_differs_no_table_is_begun(shop: Shop, operate: Any) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    assert operate("verify").stdout == "1 customer compared with 1 contact in Brevo\nall agrees\n"


def test_a_next_attempt_is_told_only_of_what_has_one(shop: Shop, operate: Any) -> None:
    """A finished event keeps the time to which it was leased, and that means nothing."""
    delivered = shop.sent("created", id=1, email="mara@example.com")["id"]
    waiting = shop.enqueue("created", id=2, email="tom@example.com")
    assert "next_attempt_at" not in operate("show", str(delivered)).output
    assert "next_attempt_at" in operate("show", str(waiting)).output
    told = json.loads(operate("events", "--json").output)
    assert [row["next_attempt_at"] is None for row in told] == [False, True]


def test_show_tells_an_event_with_its_attempts_and_no_payload(shop: Shop, operate: Any) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    output = operate("show", "1").output
    assert "delivered" in output
    assert "POST /contacts" in output
    assert "mara" not in output
    assert "mara@example.com" in operate("show", "1", "--payload").output
    assert exit_code(operate("show", "7")) == 66


def test_what_was_left_out_of_a_delivered_event_is_called_no_error(shop: Shop, operate: Any) -> None:
    shop.sent("created", id=1, email="mara@example.com", phone="12345")
    for command in ("events", "show 1", "explain 1 --offline"):
        output = operate(*command.split()).output
        assert "SMS left out" in output
        assert not re.search("last.error", output)
    assert re.search("^warning +SMS left out", operate("show", "1").output, re.MULTILINE)
    assert re.search("^  warning +SMS left out", operate("explain", "1", "--offline").output, re.MULTILINE)


def test_retry_brings_dead_letters_back(shop: Shop, operate: Any) -> None:
    shop.sent("updated", id=9, firstName="Nobody")
    shop.sent("created", id=1, email="mara@example.com")
    result = operate("retry", "1", "2", "--json")
    assert exit_code(result) == 1
    assert json.loads(result.output) == {"retried": [1], "not_dead": [2]}
    assert shop.event(1)["status"] == "pending"
    shop.drain()
    assert shop.event(1)["status"] == "dead"
    assert exit_code(operate("retry", "--dead")) == 0
    assert shop.status()["pending"] == 1


def test_an_unreadable_event_is_read_anew_when_it_is_retried(shop: Shop, operate: Any) -> None:
    event_id = shop.insert("customer_created", {"id": 1, "email": "mara@example.com"}, source="shopfy")
    shop.drain()
    assert shop.event(event_id)["status"] == "dead"
    operate("retry", str(event_id))
    assert shop.status()["pending"] == 1
    shop.drain()
    assert shop.event(event_id)["status"] == "dead"
    assert shop.status()["pending"] == 0


def test_check_finds_all_well(shop: Shop, operate: Any) -> None:
    result = operate("check")
    assert exit_code(result) == 0, result.output
    assert "FAIL" not in result.output


def test_check_names_what_is_wrong_and_what_mends_it(
    make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    shop = make_shop(sandbox={"lists": (1,)})
    shop.path.chmod(0o666)
    mapping = {"email": "email", "tier": "TIER"}
    result = run(shop, tmp_path, "check", "--json", field_mapping=mapping, options={"list_id": 9})
    assert exit_code(result) == 1
    wrong = {check["what"]: check for check in json.loads(result.output)["checks"] if not check["is_well"]}
    assert set(wrong) == {"rights", "attributes", "list"}
    assert "chmod" in wrong["rights"]["hint"]
    assert "TIER" in wrong["attributes"]["told"]
    assert "list_id" in wrong["list"]["hint"]


def test_check_tells_the_three_faults_of_a_key_apart(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BREVO_API_KEY", raising=False)
    told = [run(shop, tmp_path, "check").output]
    monkeypatch.setenv("BREVO_API_KEY", "xkeysib-wrong")
    told.append(run(shop, tmp_path, "check").output)
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    shop.sandbox.faults.add(Fault(behaviour="unrecognised_ip"))
    told.append(run(shop, tmp_path, "check").output)
    assert "export BREVO_API_KEY" in told[0]
    assert "does not know this API key" in told[1]
    assert "IP address" in told[2]


def test_check_tells_every_fault_of_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("databse: x\nretry:\n  jitter: 7\n")
    result = CliRunner().invoke(
        cli.group, ["check", "--config", str(tmp_path / "config.yaml")], standalone_mode=False
    )
    assert exit_code(result) == 1
    assert "config.yaml:1: databse: no such setting; did you mean database?" in result.output
    assert "config.yaml:3: retry.jitter" in result.output
    assert result.output.count("mend it:") == 1


def test_check_asks_whether_a_field_near_to_a_known_one_is_misspelt(shop: Shop, tmp_path: Path) -> None:
    """It may be the payload's own, so nothing is refused; but if not, its attribute would never be sent."""
    mapping = {"firstname": "FIRSTNAME", "last_name": "LASTNAME", "note": "NOTE", "address.phone": "SMS"}
    result = run(shop, tmp_path, "check", "--json", "--offline", field_mapping=mapping)
    assert exit_code(result) == 0
    told = [each["told"] for each in json.loads(result.output)["checks"] if each["what"] == "mapping"]
    assert told == ["firstname is looked for in payloads just as it is written; did you mean firstName?"]


@pytest.mark.parametrize(
    ("written", "told"),
    [("statsu", "No such command 'statsu'. Did you mean 'status'?"), ("xyzzy", "No such command 'xyzzy'.\n")],
)
def test_a_misspelt_command_is_told_with_the_nearest(
    written: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([written]) == 2
    assert told in capsys.readouterr().err


def test_a_shell_that_completes_a_misspelt_command_is_told_no_error() -> None:
    completing = ShellComplete(cli.group, {}, "outboxd", "_OUTBOXD_COMPLETE")
    assert [each.value for each in completing.get_completions(["statsu"], "--v")] == ["--version"]


def test_errors_are_text_with_a_hint_and_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("database: missing.db\n")
    assert cli.main(["status", "--config", str(tmp_path / "config.yaml")]) == 66
    told = capsys.readouterr().err
    assert told.startswith("outboxd: there is no outbox at ")
    assert "hint: create it with: outboxd migrate" in told


@pytest.mark.parametrize("command", ["status", "migrate", "run", "check"])
@pytest.mark.parametrize(
    ("database", "told", "hint"),
    [
        (".", " is a directory", "name a file in it with `database:`, such as "),
        (
            "config.yaml/x.db",
            "config.yaml is a file",
            "name a place in a directory with `database:`, such as ",
        ),
        ("no/outbox.db", "/no does not exist", "sudo install -d -m 2770 "),
    ],
)
def test_where_no_outbox_can_lie_is_told_alike_by_every_command(
    command: str,
    database: str,
    told: str,
    hint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    (tmp_path / "config.yaml").write_text(f"database: {database}\n")
    assert cli.main([command, "--config", str(tmp_path / "config.yaml")]) == (1 if command == "check" else 66)
    output = "".join(capsys.readouterr())
    assert told in output
    assert hint in output
    assert "in order" not in output
    assert "rights" not in output


def test_a_configuration_that_is_not_there_is_told_with_how_to_name_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", "--config", str(tmp_path / "nope.yaml")]) == 78
    told = capsys.readouterr().err
    assert "nope.yaml: No such file or directory" in told
    assert "hint: name the file with --config, or with $OUTBOXD_CONFIG" in told


@pytest.mark.parametrize("arguments", [["status", "--no-such"], ["nonsense"], ["retry"], ["show", "x"]])
def test_wrong_usage_is_told_without_a_traceback(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    given = arguments[:1] + (
        ["--config", str(tmp_path / "config.yaml")] if arguments[0] in cli.COMMANDS else []
    )
    assert cli.main(given + arguments[1:]) == 2
    assert "Usage" in capsys.readouterr().err


def test_attributes_stand_side_by_side_and_missing_ones_are_made_with_their_types(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    mapping = {
        "email": "email",
        "firstName": "FIRSTNAME",
        "totalSpent": "TOTAL_SPENT",
        "billing.city": "CITY",
    }
    found = run(shop, tmp_path, "attributes", "--json", field_mapping=mapping)
    assert exit_code(found) == 1
    assert [(row["attribute"], row["in_brevo"], row["to_be_made"]) for row in json.loads(found.output)] == [
        ("FIRSTNAME", "text", None),
        ("TOTAL_SPENT", None, "float"),
        ("CITY", None, "text"),
    ]
    made = run(shop, tmp_path, "attributes", "--create", "--yes", field_mapping=mapping)
    assert exit_code(made) == 0, made.output
    assert "float" in made.output
    assert exit_code(run(shop, tmp_path, "attributes", "--json", field_mapping=mapping)) == 0


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_attributes_are_not_made_unasked(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    mapping = {"email": "email", "tier": "TIER", "totalSpent": "SPENT"}
    asked = run(shop, tmp_path, "attributes", "--create", *more, field_mapping=mapping)
    assert exit_code(asked) == 1
    assert "Make in Brevo: TIER (text), SPENT (float)?" in asked.stderr
    assert [call for call in shop.sandbox.calls if call.method == "POST"] == []


def test_programs_are_told_which_attributes_were_made(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    mapping = {"email": "email", "firstName": "FIRSTNAME", "tier": "TIER"}
    for is_new in (True, False):
        made = run(shop, tmp_path, "attributes", "--create", "--yes", "--json", field_mapping=mapping)
        assert exit_code(made) == 0
        told = {row["attribute"]: (row["in_brevo"], row["made"]) for row in json.loads(made.output)}
        assert told == {"FIRSTNAME": ("text", False), "TIER": ("text", is_new)}


@pytest.mark.parametrize("is_kept", [True, False])
def test_that_brevo_has_all_attributes_is_said_if_it_has(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    if not is_kept:
        shop.sandbox.faults.add(Fault(status=201, path="/contacts/attributes/*", method="POST"))
    mapping = {"email": "email", "tier": "TIER"}
    made = run(shop, tmp_path, "attributes", "--create", "--yes", field_mapping=mapping)
    assert exit_code(made) == (0 if is_kept else 1)
    assert "made: TIER (text)" in made.output
    assert ("Brevo has all of them now" in made.output) == is_kept
    assert ("Brevo still lacks TIER" in made.output) != is_kept


@pytest.mark.parametrize("answer", ["n\n", ""])
@pytest.mark.parametrize("command", ["erase mara@example.com", "drop 1", "attributes --create"])
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_without_a_yes_nothing_is_done_and_that_is_said(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, more: list[str], answer: str
) -> None:
    """Whoever has it run by cron, or by a program, learns how to say so beforehand."""
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    mapping = {"email": "email", "tier": "TIER"}
    shop.sent("updated", id=9, firstName="Nobody")
    shop.sent("created", id=1, email="mara@example.com")
    before = (shop.status()["dead"], len(shop.sandbox.contacts))
    asked = run(shop, tmp_path, *command.split(), *more, field_mapping=mapping, answer=answer)
    assert exit_code(asked) == 1
    told = asked.exception
    assert isinstance(told, OutboxdError)
    assert (str(told), told.hint) == (
        ("nothing was done", None) if answer else ("nothing was done: nobody answered", "say --yes")
    )
    assert asked.stderr.endswith("\n")
    assert not more or asked.stdout == ""
    assert (shop.status()["dead"], len(shop.sandbox.contacts)) == before


def test_who_would_be_erased_is_said_before_it_is_asked(shop: Shop, operate: Any) -> None:
    """Also where standard output is for a program."""
    shop.sent("created", id=1, email="mara@example.com")
    asked = operate("erase", "--json", "mara@example.com")
    assert asked.stderr.startswith(
        "customer custom:1, and their contact in Brevo\nevents of theirs: 1\nErase"
    )
    assert asked.stdout == ""


def test_attributes_of_an_account_that_refuses_the_key_are_told_as_such(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREVO_API_KEY", "xkeysib-wrong")
    refused = run(shop, tmp_path, "attributes")
    assert exit_code(refused) == 69
    assert "API key" in str(refused.exception)


def test_check_repeats_what_was_left_out_lately(shop: Shop, operate: Any) -> None:
    shop.sent("created", id=1, email="mara@example.com", phone="12345")
    result = operate("check")
    assert exit_code(result) == 0
    assert "warn  warning: SMS left out: phone is a national phone number" in result.output


def test_check_says_what_mends_a_warning(operate: Any) -> None:
    lines = operate("check").output.splitlines()
    [place] = [number for number, line in enumerate(lines) if line.startswith("warn  list: none is set")]
    assert lines[place + 1] == "      mend it: set options.list_id"


def test_what_the_terminal_cannot_show_is_no_traceback(operate: Any, shop: Shop, tmp_path: Path) -> None:
    """The names of files are bytes, and not every locale is of UTF-8."""
    operate("status")  # writes the configuration
    name = tmp_path / os.fsdecode(b"M\xfcller.db")
    done = subprocess.run(
        [sys.executable, "-m", "outboxd", "backup", "--config", str(tmp_path / "config.yaml"), str(name)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "ller.db" in done.stdout


def test_what_nobody_thought_of_ends_with_its_place_and_tells_nothing_of_the_data(
    operate: Any, shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operate("status")  # writes the configuration
    with closing(sqlite3.connect(shop.path)) as connection, connection:
        connection.execute("INSERT INTO state VALUES ('heartbeat', 'mara@example.com', '')")
    assert cli.main(["status", "--config", str(tmp_path / "config.yaml")]) == 70
    told = capsys.readouterr()
    assert re.search(r"^outboxd: a bug, .*: ValueError at \w+\.py:\d+$", told.err, re.MULTILINE)
    assert "mara" not in told.out + told.err


def outboxd_with(closed: Sequence[int], directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `outboxd` as a process that was started without some of its three streams."""

    def close() -> None:
        for number in closed:
            os.close(number)

    return subprocess.run(
        [sys.executable, "-m", "outboxd", *arguments, "--config", str(directory / "config.yaml")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=close,
        text=True,
        timeout=60,
        env={**os.environ, "BREVO_API_KEY": KEY},
    )


@pytest.mark.parametrize(
    ("arguments", "closed", "code"),
    [
        ("enqueue", [0], 65),
        ("explain -", [0], 65),
        ("backfill -", [0], 0),
        ("backfill --dry-run -", [0], 0),
        ("erase -", [0], 66),
        ("erase mara@example.com", [0], 1),
        ("status", [1], 0),
        ("check", [2], 0),
        ("events", [0, 1, 2], 0),
    ],
)
def test_a_stream_that_is_closed_is_one_without_an_end_or_a_beginning(
    shop: Shop, operate: Any, tmp_path: Path, arguments: str, closed: Sequence[int], code: int
) -> None:
    """Input is empty, and what is said goes nowhere; nothing that is opened meanwhile takes its number."""
    shop.enqueue("created", id=1, email="mara@example.com")
    operate("status")  # writes the configuration
    done = outboxd_with(closed, tmp_path, *arguments.split())
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr


def test_a_watch_without_a_place_to_show_it_ends_as_every_watch_does(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("database: missing.db\n")
    done = outboxd_with([1], tmp_path, "status", "--watch")
    assert (done.returncode, "Traceback" in done.stderr) == (66, False), done.stderr


def test_an_address_that_is_no_text_is_refused_whatever_the_locale(operate: Any, tmp_path: Path) -> None:
    operate("status")  # writes the configuration
    command = [sys.executable, "-m", "outboxd", "erase", "-", "--config", str(tmp_path / "config.yaml")]
    environ = {**os.environ, "PYTHONIOENCODING": "utf-8:strict", "BREVO_API_KEY": KEY}
    done = subprocess.run(command, input=b"j\xf6@example.com\n", env=environ, capture_output=True, timeout=60)
    assert (done.returncode, b"Traceback" in done.stderr) == (2, False), done.stderr
    assert b"write it in UTF-8" in done.stderr


def test_json_is_json_whatever_the_locale(operate: Any, tmp_path: Path) -> None:
    """Letters beyond it would be written as Python does, and not as JSON does."""
    operate("status")  # writes the configuration
    event = {"event": "customer_created", "data": {"id": 1, "firstName": "Bj\xf6rk \U0001f600"}}
    command = [sys.executable, "-m", "outboxd", "explain", "--offline", "--reveal", "--json", "-"]
    done = subprocess.run(
        [*command, "--config", str(tmp_path / "config.yaml")],
        input=json.dumps(event).encode(),
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=60,
    )
    [told] = json.loads(done.stdout)
    assert "Bj\xf6rk \U0001f600" in [rule.get("value") for rule in told["mapping"]]


def test_data_and_a_file_are_not_both_taken(operate: Any, shop: Shop) -> None:
    """As by `outboxd-intake`: one of them would be left aside without a word."""
    told = operate("enqueue", "--event", "customer_created", "--data", '{"id": 1}', "events.jsonl")
    assert "not both" in str(told.exception)
    assert shop.status()["pending"] == 0


def test_ids_that_nobody_can_be_told_are_no_reason_to_write_again(
    shop: Shop, operate: Any, tmp_path: Path
) -> None:
    operate("status")
    event = ("enqueue", "--event", "customer_created", "--data", '{"id": 1}')
    done = outboxd_with((1,), tmp_path, *event)
    assert done.returncode == 74
    assert done.stderr == (
        "outboxd: the event is written, but its id cannot be printed\n"
        "hint: do not write it again; mend standard output\n"
    )
    assert shop.status()["pending"] == 1


@pytest.mark.parametrize("command", ["show 1", "events", "status", "--help"])
def test_a_reader_who_goes_early_is_told_alike_by_every_command(
    shop: Shop, operate: Any, tmp_path: Path, command: str
) -> None:
    shop.enqueue("created", id=1, email="mara@example.com")
    operate("status")
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as gone:
        done = outboxd_to(gone, tmp_path, command)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("command", ["show 1", "events", "pause"])
def test_what_cannot_be_printed_ends_with_its_reason(
    shop: Shop, operate: Any, tmp_path: Path, command: str
) -> None:
    """And with the hint that it may be done: a pause holds, whether somebody read so or not."""
    shop.enqueue("created", id=1, email="mara@example.com")
    operate("status")
    with open("/dev/full", "wb") as full:
        done = outboxd_to(full, tmp_path, command)
    assert done.returncode == 74
    assert done.stderr == (
        "outboxd: No space left on device\n"
        "hint: what was to be done may be done all the same; see: outboxd status\n"
    )
    assert (shop.status()["lane"]["state"] == "paused") == (command == "pause")


@pytest.mark.parametrize(("command", "code"), [("show 999999", 66), ("show", 2), ("erase -", 66)])
def test_an_error_that_nobody_can_read_keeps_its_exit_code(
    operate: Any, tmp_path: Path, command: str, code: int
) -> None:
    operate("status")
    with open("/dev/full", "wb") as full:
        done = outboxd_to(subprocess.DEVNULL, tmp_path, command, stderr=full)
    assert done.returncode == code


def outboxd_to(
    stdout: Any, directory: Path, command: str, *, stderr: Any = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "outboxd", *command.split()],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        timeout=60,
        env={**os.environ, "BREVO_API_KEY": KEY, "OUTBOXD_CONFIG": str(directory / "config.yaml")},
    )
