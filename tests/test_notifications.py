"""Notifications: the operator's webhook is told at least once, signed, in sum, and never in the way."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from standardwebhooks.webhooks import Webhook

from outboxd import cli
from outboxd.brevo.sandbox import Fault
from outboxd.notices import TYPES
from tests.conftest import until
from tests.receiver import Receiver, receiving
from tests.shop import MakeShop, Shop

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
ANN = {"id": 1, "email": "ann@example.com", "firstName": "Ann"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def shop(make_shop: MakeShop, receiver: Receiver) -> Shop:
    return make_shop(notifications={"webhook_url": receiver.url, "secret": SECRET})


def told(shop: Shop, receiver: Receiver, count: int = 1) -> list[dict[str, Any]]:
    """Let the interval pass, and so many messages arrive and be recorded."""
    shop.later(minutes=2)

    def is_told() -> bool:
        shop.relay.step()
        return len(finished(shop)) >= count

    until(is_told)
    return receiver.told


def finished(shop: Shop) -> list[Any]:
    return shop.rows("SELECT id FROM notifications WHERE status <> 'pending'")


def test_a_thousand_completions_are_one_message(shop: Shop, receiver: Receiver) -> None:
    for number in range(1000):
        shop.insert("customer_created", {"id": number, "email": f"c{number}@example.com"})
    shop.drain()
    (message,) = told(shop, receiver)
    assert message["type"] == "sync_completed"
    assert message["data"]["events"] == 1000
    assert message["data"]["verdicts"] == {"delivered": 1000}
    assert len(message["data"]["event_ids"]) == 20


def test_each_event_is_told_of_if_that_is_asked_for(shop: Shop, receiver: Receiver) -> None:
    shop.reopen(notifications={"webhook_url": receiver.url, "each": True})
    ids = [shop.enqueue("created", id=number, email=f"c{number}@example.com") for number in range(3)]
    shop.drain()
    messages = told(shop, receiver, 3)
    assert sorted(message["data"]["event_id"] for message in messages) == ids
    assert {message["data"]["verdict"] for message in messages} == {"delivered"}
    assert messages[0]["data"]["customer_key"].startswith("custom:")


def test_dead_letters_are_told_with_their_reasons(shop: Shop, receiver: Receiver) -> None:
    shop.insert("customer_created", "[]")
    event = shop.enqueue("created", id=5, email="not an address")
    shop.drain()
    (message,) = told(shop, receiver)
    assert message["type"] == "sync_failed"
    assert message["data"]["events"] == 2
    assert event in message["data"]["event_ids"]
    assert any("email address is not valid" in reason for reason in message["data"]["reasons"])


def test_a_message_is_signed_by_the_scheme_of_standard_webhooks(shop: Shop, receiver: Receiver) -> None:
    shop.reopen(notifications={"webhook_url": receiver.url, "secret": SECRET, "each": True})
    shop.enqueue("created", **ANN)
    until(lambda: shop.relay.step() >= 0 and len(finished(shop)) == 1)
    headers, body = receiver.posts[0]
    signed = {name: headers[name] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    assert Webhook(SECRET).verify(body, signed) == json.loads(body)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(SECRET).verify(body + b" ", signed)


def test_a_failing_receiver_is_tried_again_with_the_same_id(shop: Shop, receiver: Receiver) -> None:
    receiver.status = 503
    shop.sent("created", **ANN)
    shop.later(minutes=2)
    shop.relay.step()
    until(lambda: shop.relay.step() >= 0 and shop.rows("SELECT 1 FROM notifications WHERE last_error <> ''"))
    receiver.status = 200
    told(shop, receiver)
    assert len(receiver.posts) == 2
    assert len({headers["webhook-id"] for headers, _ in receiver.posts}) == 1


@pytest.mark.parametrize("status", [301, 410, 500])
def test_a_receiver_that_never_takes_it_makes_a_dead_letter(
    shop: Shop, receiver: Receiver, status: int
) -> None:
    receiver.status = status
    shop.sent("created", **ANN)

    def is_dead() -> bool:
        shop.later(hours=7)
        shop.relay.step()
        return bool(shop.rows("SELECT 1 FROM notifications WHERE status = 'dead'"))

    until(is_dead)
    assert len(receiver.posts) == 16
    assert shop.rows("SELECT last_error FROM notifications") == [(f"the receiver answered {status}",)]


def test_a_dead_receiver_does_not_slow_the_sync(shop: Shop, receiver: Receiver) -> None:
    receiver.status = None
    shop.reopen(notifications={"webhook_url": receiver.url, "each": True})
    shop.sent("created", **ANN)
    until(lambda: shop.relay.step() >= 0 and len(receiver.posts) == 1)
    shop.sandbox.faults.add(Fault(status=403, times=1))
    for number in range(100):
        shop.enqueue("created", id=number + 2, email=f"c{number}@example.com")
    shop.drain()
    shop.later(minutes=5)
    shop.drain()
    assert shop.status()["delivered"] == 101
    assert len(receiver.posts) == 1, "it still hangs"


def test_a_lane_that_stops_and_goes_on_is_told(shop: Shop, receiver: Receiver) -> None:
    shop.sandbox.faults.add(Fault(status=403, times=1))
    shop.sent("created", **ANN)
    shop.later(minutes=5)
    shop.drain()
    told(shop, receiver, 3)
    assert "Brevo" in receiver.of_type("lane_blocked")[0]["reason"]
    assert len(receiver.of_type("lane_resumed")) == 1


def test_a_window_is_told_with_its_result(shop: Shop, receiver: Receiver) -> None:
    hook = {"webhook_url": receiver.url, "events": ["batch_completed"]}
    shop.reopen(options={"sync_mode": "batch"}, notifications=hook)
    for number in range(5):
        shop.enqueue("created", id=number, email=f"c{number}@example.com")
    shop.drain()
    message, *_ = told(shop, receiver)
    assert message["type"] == "batch_completed"
    assert (message["data"]["delivered"], message["data"]["dead"]) == (5, 0)
    assert message["data"]["reason"] == "drain"


def test_what_is_not_wanted_is_not_written(shop: Shop, receiver: Receiver) -> None:
    shop.reopen(notifications={"webhook_url": receiver.url, "events": ["sync_failed"]})
    shop.sent("created", **ANN)
    assert shop.rows("SELECT count(*) FROM notifications") == [(0,)]
    shop.reopen()
    shop.insert("customer_created", "[]")
    shop.drain()
    assert shop.rows("SELECT count(*) FROM notifications") == [(0,)]


def test_no_message_holds_personal_data(shop: Shop, receiver: Receiver) -> None:
    shop.reopen(notifications={"webhook_url": receiver.url, "each": True, "events": list(TYPES)})
    shop.sent("created", **ANN, phone="+4915112345678")
    shop.sent("created", id=7, email="bad address@example")
    told(shop, receiver, 2)
    everything = b" ".join(body for _, body in receiver.posts) + str(receiver.posts).encode()
    for word in (b"ann@", b"Ann", b"4915112345678", b"bad address"):
        assert word not in everything


def test_the_dead_ones_are_listed_and_sent_again(shop: Shop, receiver: Receiver, tmp_path: Path) -> None:
    test_a_receiver_that_never_takes_it_makes_a_dead_letter(shop, receiver, 500)
    config = tmp_path / "config.yaml"
    config.write_text(f"database: {shop.path}")
    ran = CliRunner().invoke(cli.group, ["notifications", "--dead", "--json", "--config", str(config)])
    (dead,) = json.loads(ran.output)
    assert (dead["type"], dead["last_error"]) == ("sync_completed", "the receiver answered 500")
    assert shop.status()["notifications"] == {"pending": 0, "dead": 1}
    CliRunner().invoke(cli.group, ["notifications", "--retry", "--config", str(config)])
    receiver.status = 200
    told(shop, receiver)
    assert shop.status()["notifications"] == {"pending": 0, "dead": 0}


def test_what_was_noted_is_delivered_after_a_restart(shop: Shop, receiver: Receiver) -> None:
    shop.sent("created", **ANN)
    shop.reopen(notifications={"webhook_url": receiver.url})
    assert [message["type"] for message in told(shop, receiver)] == ["sync_completed"]
