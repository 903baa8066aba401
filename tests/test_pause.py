"""Pause: nothing is sent until the operator lets it go on, and nothing is lost meanwhile."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

import outboxd
from outboxd.brevo.sandbox import Sandbox
from tests.conftest import until
from tests.operator import Operate, exit_code, operator, operator_at, told
from tests.outboxes import new_outbox
from tests.processes import Daemon, status, write_config
from tests.shop import MakeShop, Shop
from tests.test_relay import running

WHY = "mapping of Mara's field is mended"


@pytest.fixture
def operate(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operate:
    return operator(shop, tmp_path, monkeypatch)


def customer_keys(shop: Shop) -> list[str]:
    return [row[0] for row in shop.rows("SELECT customer_key FROM outbox ORDER BY id")]


def test_events_are_taken_in_and_admitted_but_not_sent_until_it_is_resumed(
    shop: Shop, operate: Operate
) -> None:
    assert exit_code(operate("pause", "--reason", WHY)) == 0
    shop.enqueue("created", id=1, email="mara@example.com")
    shop.drain()
    assert shop.calls == []
    assert customer_keys(shop) == ["custom:1"]
    assert shop.event(1)["attempts"] == 0
    assert exit_code(operate("resume")) == 0
    shop.drain()
    assert shop.methods == ["POST"]


def test_it_survives_restarts(shop: Shop, operate: Operate) -> None:
    operate("pause")
    shop.enqueue("created", id=1, email="mara@example.com")
    shop.reopen()
    shop.drain()
    assert shop.calls == []


def test_a_running_drainer_heeds_it_at_its_next_round(shop: Shop, operate: Operate) -> None:
    with running(shop.relay):
        shop.enqueue("created", id=1, email="mara@example.com")
        until(lambda: shop.status()["delivered"] == 1)
        operate("pause")
        until(lambda: shop.relay.paused is not None)
        shop.enqueue("created", id=2, email="tom@example.com")
        until(lambda: customer_keys(shop)[-1] == "custom:2")
        assert shop.methods == ["POST"]
        operate("resume")
        until(lambda: shop.status()["delivered"] == 2)


def test_what_is_in_flight_ends(make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = make_shop({"latency": timedelta(milliseconds=300)})
    operate = operator(shop, tmp_path, monkeypatch)
    with running(shop.relay):
        shop.enqueue("created", id=1, email="mara@example.com")
        until(lambda: shop.status()["in_flight"] == 1)
        operate("pause")
        shop.enqueue("updated", id=1, lastName="Later")
        until(lambda: shop.status()["delivered"] == 1)
        assert shop.status()["pending"] == 1
        assert shop.methods == ["POST"]


def test_a_drain_says_so_and_asks_to_come_back(shop: Shop, operate: Operate) -> None:
    operate("pause", "--reason", WHY)
    shop.enqueue("created", id=1, email="mara@example.com")
    result = operate("drain")
    assert exit_code(result) == 75
    assert "the lane is paused, since 20" in result.stderr
    assert "by olga; let it go on with: outboxd resume" in result.stderr
    assert shop.calls == []


def test_status_tells_since_when_by_whom_and_why(shop: Shop, operate: Operate) -> None:
    assert told(operate("status", "--json"))["pause"] is None
    operate("pause", "--reason", WHY)
    facts = told(operate("status", "--json"))
    assert facts["lane"] == {"state": "paused", "reason": WHY, "until": None}
    assert facts["pause"].keys() == {"is_on", "since", "by", "reason"}
    assert facts["pause"]["by"] == "olga"
    lane = next(line for line in operate("status").stdout.splitlines() if line.startswith("lane"))
    assert lane.split(maxsplit=1)[1] == f"paused: {WHY} (0 s ago, by olga; outboxd resume)"


def test_a_disabled_sync_is_told_as_disabled(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operate = operator(shop, tmp_path, monkeypatch, enabled=False)
    operate("pause")
    assert told(operate("status", "--json"))["lane"]["state"] == "disabled"


def test_a_reason_stays_in_its_line_and_does_nothing_to_the_terminal(operate: Operate) -> None:
    operate("pause", "--reason", "one\ntwo\x1b[2J")
    shown = operate("status").stdout.splitlines()
    assert all(line.isprintable() for line in shown)
    [lane] = [line for line in shown if "paused" in line]
    assert "paused: one two\\x1b[2J" in lane


def test_pausing_again_keeps_the_first_word_but_for_a_new_reason(operate: Operate) -> None:
    first = told(operate("pause", "--json"))
    assert told(operate("pause", "--json")) == first
    assert told(operate("pause", "--json", "--reason", WHY)) == {**first, "reason": WHY}
    assert f"paused already, since {first['since']} by olga" in operate("pause").stdout


def test_resuming_again_changes_nothing(operate: Operate) -> None:
    assert operate("resume").stdout == "nothing was paused\n"
    operate("pause")
    assert "deliveries go on" in operate("resume", "--reason", "done").stdout
    kept = told(operate("status", "--json"))["pause"]
    assert (kept["is_on"], kept["by"], kept["reason"]) == (False, "olga", "done")
    result = operate("resume")
    assert (exit_code(result), result.stdout) == (0, "nothing was paused\n")
    assert told(operate("status", "--json"))["pause"] == kept


def test_the_log_names_the_operator_and_never_the_reason(
    shop: Shop, operate: Operate, caplog: pytest.LogCaptureFixture
) -> None:
    operate("pause", "--reason", WHY)
    shop.drain()
    operate("resume", "--reason", WHY)
    shop.drain()
    assert [m for m in caplog.messages if m.startswith("lane")] == [
        "lane state=paused by=olga",
        "lane state=running",
    ]
    assert "Mara" not in caplog.text


def test_a_window_that_is_missed_opens_afterwards(
    make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(options={"sync_mode": "batch"})
    operate = operator(shop, tmp_path, monkeypatch)
    shop.relay.step()
    operate("pause")
    shop.enqueue("created", id=1, email="mara@example.com")
    shop.later(hours=1)
    shop.drain()
    assert shop.relay.step() > 0
    assert shop.calls == []
    assert json.loads(shop.rows("SELECT value FROM state WHERE key = 'window'")[0][0])["opened_at"] is None
    operate("resume")
    until(lambda: shop.relay.step() >= 0 and shop.status()["delivered"] == 1)


def test_a_flush_says_that_its_window_opens_after_the_pause(
    make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"sync_mode": "batch"}
    operate = operator(make_shop(options=options), tmp_path, monkeypatch, options=options)
    operate("pause")
    result = operate("flush")
    assert exit_code(result) == 75
    assert "opens after outboxd resume" in result.stderr


def test_an_import_under_way_is_seen_through(
    make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(options={"sync_mode": "batch", "list_id": 5})
    operate = operator(shop, tmp_path, monkeypatch)
    shop.relay.step()
    for number in range(60):
        shop.enqueue("created", id=number, email=f"ann{number}@example.com")
    shop.later(minutes=15)

    def goes_on() -> bool:
        shop.relay.step()
        shop.later(seconds=1)
        return True

    until(lambda: goes_on() and any(call.path == "/contacts/import" for call in shop.calls))
    operate("pause")
    shop.enqueue("created", id=100, email="tom@example.com")
    until(lambda: goes_on() and shop.status()["delivered"] == 60)
    assert shop.status()["pending"] == 1
    assert shop.status()["imports"] == []


def test_a_daemon_stays_paused_when_it_is_killed_and_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox() as sandbox:
        config = write_config(tmp_path / "config.yaml", sandbox.url)
        path = new_outbox(config.with_name("outbox.db"))
        operate = operator_at(config, monkeypatch)
        operate("pause")
        outboxd.enqueue("customer_created", {"id": 1, "email": "mara@example.com"}, db=path)
        with Daemon(config) as daemon:
            daemon.ready().says("lane state=paused by=olga").kill()
        with Daemon(config) as daemon:
            daemon.ready().says("lane state=paused by=olga")
            assert status(path)["pending"] == 1
            operate("resume")
            until(lambda: status(path)["delivered"] == 1)
            assert len(sandbox.contacts) == 1
