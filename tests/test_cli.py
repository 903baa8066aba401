"""The operator's commands: what they print, and what their exit codes say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from outboxd import cli
from outboxd.errors import OutboxdError
from tests.shop import KEY, MakeShop, Shop


@pytest.fixture
def operate(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command of `outboxd` at the shop; errors come back as they are raised."""
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    return lambda *arguments: run(shop, tmp_path, *arguments)


def run(shop: Shop, directory: Path, *arguments: str, **sync: Any) -> Result:
    path = directory / "config.yaml"
    skill = {"customer-sync": sync}
    path.write_text(
        json.dumps({"database": str(shop.path), "brevo": {"base_url": shop.sandbox.url}, "skills": skill})
    )
    return CliRunner().invoke(
        cli.group, [arguments[0], "--config", str(path), *arguments[1:]], standalone_mode=False
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
    from outboxd.brevo.sandbox import Fault

    shop.sandbox.faults.add(Fault(status=503, path="/contacts", times=1))
    shop.sent("created", id=1, email="mara@example.com")
    facts = json.loads(operate("status", "--json").output)
    assert (facts["pending"], facts["retrying"], facts["due"]) == (1, 1, 0)
    assert facts["next_attempt_at"] > shop.event(1)["created_at"]
    assert facts["windows"]["hour"]["error_rate"] == 1.0


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
    from outboxd.brevo.sandbox import Fault

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
        ("no/outbox.db", "/no does not exist", "create it: sudo install -d -m 2770 "),
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


def test_attributes_are_not_made_unasked(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    mapping = {"email": "email", "tier": "TIER"}
    asked = run(shop, tmp_path, "attributes", "--create", field_mapping=mapping)
    assert "Make 1 attributes in Brevo?" in asked.output
    assert exit_code(run(shop, tmp_path, "attributes", field_mapping=mapping)) == 1


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
