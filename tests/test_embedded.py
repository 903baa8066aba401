"""CustomerSync: the specification's Python client, with the relay inside the caller's process."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from outboxd import CustomerSync, EventError, OutboxdError, embedded
from outboxd.brevo.sandbox import Sandbox
from outboxd.errors import ConfigError, HeldError
from tests.conftest import until
from tests.processes import status

MAPPING = {
    "email": "email",
    "first_name": "FIRSTNAME",
    "last_name": "LASTNAME",
    "total_orders": "TOTAL_ORDERS",
}
TOTALS = {"TOTAL_ORDERS": "float"}


def made(path: Path, sandbox: Sandbox, **settings: Any) -> CustomerSync:
    return CustomerSync(
        database=path / "shop.db",
        brevo_api_key="xkeysib-sandbox",
        source="woocommerce",
        field_mapping=MAPPING,
        brevo={"base_url": sandbox.url},
        **{"options": {"sync_mode": "realtime", "list_id": 5}, **settings},
    )


def test_the_specifications_example_arrives(tmp_path: Path) -> None:
    with Sandbox(attributes=TOTALS) as sandbox:
        sync = made(tmp_path, sandbox)
        data = {"email": "jane@example.com", "total_orders": 10, "total_spent": 1250.00}
        with sync:
            sync.trigger({"event": "customer_updated", "data": data})
            until(lambda: sandbox.contact("jane@example.com"))
        contact = sandbox.contact("jane@example.com")
        assert contact is not None
        assert contact["attributes"]["TOTAL_ORDERS"] == 10
        assert "TOTAL_SPENT" not in contact["attributes"]
        assert contact["listIds"] == [5]


def test_options_may_be_camel_case(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        sync = made(tmp_path, sandbox, options={"syncMode": "realtime", "listId": 7})
        sync.trigger({"event": "customer_created", "data": {"email": "jane@example.com"}})
        sync.drain()
        contact = sandbox.contact("jane@example.com")
        assert contact is not None
        assert contact["listIds"] == [7]


def test_what_was_triggered_before_a_start_is_delivered_after_it(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        made(tmp_path, sandbox).trigger({"event": "customer_created", "data": {"email": "jane@example.com"}})
        with made(tmp_path, sandbox):
            until(lambda: sandbox.contact("jane@example.com"))
        assert status(tmp_path / "shop.db")["pending"] == 0


def test_run_ends_when_it_is_stopped(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        sync = made(tmp_path, sandbox)
        thread = threading.Thread(target=sync.run)
        thread.start()
        sync.trigger({"event": "customer_created", "data": {"email": "jane@example.com"}})
        until(lambda: sandbox.contact("jane@example.com"))
        sync.stop()
        thread.join(10)
        assert not thread.is_alive()


def test_a_stop_while_nothing_runs_is_none_of_the_next_block(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        sync = made(tmp_path, sandbox)
        sync.stop()
        with sync:
            sync.trigger({"event": "customer_created", "data": {"email": "jane@example.com"}})
            until(lambda: sandbox.contact("jane@example.com"))


def test_a_run_that_is_stopped_before_it_has_begun_ends(tmp_path: Path) -> None:
    """A thread may be slow to start, and who waits for its end has said so already."""
    with Sandbox() as sandbox:
        sync = made(tmp_path, sandbox)
        sync.stop()
        sync.run()


def test_no_call_leaves_once_the_block_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may drain by then, and tell what is newer."""
    monkeypatch.setattr(embedded, "GRACE", timedelta(0))
    with Sandbox(latency=timedelta(milliseconds=200)) as sandbox:
        sync = made(tmp_path, sandbox)
        sync.trigger({"event": "customer_created", "data": {"id": 7, "email": "ann@example.com"}})
        sync.drain()
        with sync:
            sync.trigger({"event": "customer_updated", "data": {"id": 7, "email": "bea@example.com"}})
            until(lambda: sandbox.stats["under_way"] and len(sandbox.calls) == 3)
        until(lambda: not [each for each in threading.enumerate() if each.name.startswith("delivery")])
        assert "PUT" not in {call.method for call in sandbox.calls}


def test_a_second_drainer_is_told_who_drains(tmp_path: Path) -> None:
    with Sandbox() as sandbox, made(tmp_path, sandbox), pytest.raises(HeldError, match="process"):
        made(tmp_path, sandbox).drain()


@pytest.mark.parametrize("event", [{}, {"event": "customer_created"}, {"data": {"id": 1}}, None, 5])
def test_an_event_without_its_parts_is_refused(tmp_path: Path, event: Any) -> None:
    with Sandbox() as sandbox, pytest.raises(EventError):
        made(tmp_path, sandbox).trigger(event)


@pytest.mark.parametrize("section", ["options", "field_mapping", "brevo", "retry", "batch", "hybrid"])
@pytest.mark.parametrize("value", ["list_id", ["list_id"], 5])
def test_what_is_no_section_is_told_as_every_other_fault(tmp_path: Path, section: str, value: Any) -> None:
    wrong: dict[str, Any] = {section: value}
    with pytest.raises(ConfigError, match=rf"{section}: must be a (section|mapping)"):
        CustomerSync(database=tmp_path / "outbox.db", brevo_api_key="key", **wrong)


@pytest.mark.parametrize("section", ["options", "brevo", "retry", "batch", "hybrid"])
def test_names_that_are_no_text_are_told_as_unknown(tmp_path: Path, section: str) -> None:
    wrong: dict[str, Any] = {section: {5: True, None: True}}
    with pytest.raises(ConfigError) as caught:
        CustomerSync(database=tmp_path / "outbox.db", brevo_api_key="key", **wrong)
    assert [fault.partition("; ")[0] for fault in caught.value.faults] == [
        f"CustomerSync: {place(section)}.{name}: no such setting" for name in ("5", "None")
    ]


def place(section: str) -> str:
    return f"skills.customer-sync.{section}" if section == "options" else section


@pytest.mark.parametrize("key", [5, None, b"xkeysib-a", ""])
def test_a_key_that_is_no_text_is_told(tmp_path: Path, key: Any) -> None:
    with pytest.raises(ConfigError, match="brevo_api_key holds no API key"):
        CustomerSync(database=tmp_path / "outbox.db", brevo_api_key=key)


def test_wrong_settings_are_told_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        CustomerSync(
            database=tmp_path / "shop.db",
            brevo_api_key="xkeysib-sandbox",
            source="shopfy",
            options={"list_ids": 5},
        )
    assert len(caught.value.faults) == 2
    assert isinstance(caught.value, OutboxdError)
    assert "did you mean shopify?" in str(caught.value)
    assert "did you mean list_id?" in str(caught.value)
