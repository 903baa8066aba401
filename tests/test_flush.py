"""`flush`, and what `status` says of batch windows and imports."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from outboxd import cli
from outboxd.brevo.sandbox import Fault
from tests.conftest import until
from tests.processes import Daemon, write_config
from tests.shop import KEY, MakeShop, Shop

NEW_YEAR = {"window": "0 0 1 1 *"}


@pytest.fixture
def shop(make_shop: MakeShop) -> Shop:
    return make_shop({"import_delay": timedelta(0)}, options={"sync_mode": "batch"}, batch=NEW_YEAR)


def run(shop: Shop, *arguments: str, sync_mode: str = "batch") -> Result:
    path = shop.path.with_name("config.yaml")
    sync = {"options": {"sync_mode": sync_mode, "list_id": 5}}
    settings = {"base_url": shop.sandbox.url, "requests_per_second": 1000}
    document = {"database": str(shop.path), "brevo": settings, "batch": NEW_YEAR}
    path.write_text(json.dumps({**document, "skills": {"customer-sync": sync}}))
    command = [arguments[0], "--config", str(path), *arguments[1:]]
    return CliRunner(env={"BREVO_API_KEY": KEY}).invoke(cli.group, command, standalone_mode=False)


def window(shop: Shop) -> Any:
    return json.loads(run(shop, "status", "--json").output)["window"]


def test_before_the_first_window_there_is_nothing_to_tell(shop: Shop) -> None:
    assert window(shop) == {
        "is_open": False,
        **dict.fromkeys(("opened_at", "closed_at", "reason", "next_at", "delivered", "dead", "calls")),
    }
    assert "window          closed, next -" in run(shop, "status").output


def test_the_last_window_is_shown_with_its_result(shop: Shop) -> None:
    for number in range(3):
        shop.enqueue("created", id=number, email=f"ann{number}@example.com")
    shop.enqueue("created", id=9, email="no address")
    shop.drain()
    told = window(shop)
    assert (told["is_open"], told["reason"]) == (False, "drain")
    assert (told["delivered"], told["dead"], told["calls"]) == (3, 1, 3)
    assert told["next_at"].endswith("-01-01T00:00:00.000Z")
    assert "(drain): 3 delivered, 1 dead, 3 calls" in run(shop, "status").output


def test_what_waits_for_a_window_is_attempted_when_that_opens(shop: Shop) -> None:
    shop.sent("created", id=1, email="ann@example.com")
    assert shop.status()["next_attempt_at"] is None
    shop.enqueue("updated", id=1, firstName="Ann")
    assert shop.status()["next_attempt_at"] == window(shop)["next_at"]
    shop.sandbox.faults.add(Fault(status=503, times=1))
    shop.drain()
    shop.enqueue("created", id=2, email="tom@example.com")
    told = shop.status()
    assert told["next_attempt_at"] == shop.event(2)["next_attempt_at"] < told["window"]["next_at"]


def test_flush_says_so_where_nothing_waits_for_windows(shop: Shop) -> None:
    told = run(shop, "flush", sync_mode="realtime")
    assert "sync_mode is realtime" in told.output
    assert not told.return_value
    assert shop.rows("SELECT * FROM state WHERE key = 'flush'") == []


def test_flush_without_a_daemon_names_the_mend_and_is_not_forgotten(shop: Shop) -> None:
    event = shop.enqueue("created", id=1, email="ann@example.com")
    told = run(shop, "flush")
    assert told.return_value == 75
    assert "outboxd drain" in told.output
    until(lambda: shop.relay.step() >= 0 and shop.event(event)["status"] == "delivered")


def test_flush_makes_the_running_daemon_deliver_at_once(shop: Shop) -> None:
    config = write_config(
        shop.path.with_name("daemon.yaml"), shop.sandbox.url, options={"sync_mode": "batch"}, batch=NEW_YEAR
    )
    config.write_text(config.read_text().replace("outbox.db", shop.path.name))
    with Daemon(config) as daemon:
        daemon.ready()
        event = shop.enqueue("created", id=1, email="ann@example.com")
        until(lambda: shop.rows("SELECT 1 FROM outbox WHERE customer_key IS NOT NULL"))
        assert shop.event(event)["status"] == "pending"
        assert not run(shop, "flush").return_value
        until(lambda: shop.event(event)["status"] == "delivered")


def test_imports_under_way_are_shown(make_shop: MakeShop, tmp_path: Path) -> None:
    slow = {"import_delay": timedelta(hours=1)}
    shop = make_shop(slow, options={"sync_mode": "batch", "list_id": 5}, batch=NEW_YEAR)
    for number in range(60):
        shop.enqueue("created", id=number, email=f"ann{number}@example.com")
    run(shop, "flush")

    def is_under_way() -> bool:
        shop.later(seconds=1)
        shop.relay.step()
        return bool(shop.rows("SELECT 1 FROM imports WHERE process_id IS NOT NULL"))

    until(is_under_way)
    (told,) = json.loads(run(shop, "status", "--json").output)["imports"]
    assert (told["rows"], told["status"], told["process_id"]) == (60, "running", 1)
    assert "1 under way, 60 rows" in run(shop, "status").output
