"""Notifications: the operator's webhook is told at least once, signed, in sum, and never in the way."""

import base64
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from socket import create_server
from typing import Any

import pytest
from click.testing import CliRunner
from standardwebhooks.webhooks import Webhook

import outboxd
from outboxd import app, cli, notify, webhook
from outboxd.brevo.sandbox import Fault, Sandbox
from outboxd.clock import wall
from outboxd.errors import DatabaseError
from outboxd.notices import TYPES, Notification
from tests.conftest import until
from tests.outboxes import new_outbox
from tests.processes import KEY, status, write_config
from tests.receiver import Receiver, receiving
from tests.shop import MakeShop, Shop
from tests.test_relay import running

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
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


def test_what_a_shop_wrote_in_place_of_an_event_s_name_is_not_told(shop: Shop, receiver: Receiver) -> None:
    """Two columns mixed up, and the name is the payload."""
    shop.reopen(notifications={"webhook_url": receiver.url, "each": True})
    shop.insert(json.dumps(ANN), "customer_created")
    shop.insert("customer.updated", "[]")
    shop.drain()
    mixed_up, unreadable = told(shop, receiver, 2)
    assert mixed_up["data"]["event"] is None
    assert "ann@" not in json.dumps(mixed_up)
    assert unreadable["data"]["event"] == "customer.updated"


def test_a_message_is_signed_by_the_scheme_of_standard_webhooks(shop: Shop, receiver: Receiver) -> None:
    shop.reopen(notifications={"webhook_url": receiver.url, "secret": SECRET, "each": True})
    shop.enqueue("created", **ANN)
    until(lambda: shop.relay.step() >= 0 and len(finished(shop)) == 1)
    headers, body = receiver.posts[0]
    signed = {name: headers[name] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    assert Webhook(SECRET).verify(body, signed) == json.loads(body)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(SECRET).verify(body + b" ", signed)


def test_an_outcome_and_its_notification_are_recorded_together_or_not_at_all(shop: Shop) -> None:
    with closing(sqlite3.connect(shop.path)) as connection, connection:
        connection.execute(
            "CREATE TRIGGER refusal BEFORE INSERT ON notifications BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    shop.enqueue("created", **ANN)
    with pytest.raises(DatabaseError, match="no room"):
        shop.drain()
    assert (shop.status()["pending"], shop.status()["delivered"]) == (1, 0)


def test_what_a_killed_process_was_about_to_tell_is_told_by_the_next_one(
    shop: Shop, receiver: Receiver
) -> None:
    shop.sent("created", **ANN)
    shop.later(minutes=2)
    with closing(app.outbox(shop.settings)) as killed:
        begun = killed.notices.claim(shop.clock(), timedelta(minutes=1))
    assert begun is not None
    told(shop, receiver)
    assert [headers["webhook-id"] for headers, _ in receiver.posts] == [begun.message_id]


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
    assert len(receiver.posts) == notify.BACKOFF.max_attempts
    assert shop.rows("SELECT last_error FROM notifications") == [(f"the receiver answered {status}",)]


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_receiver_may_be_down_for_two_days(chance: float) -> None:
    """As the README has it, whatever chance takes off, and not for much longer."""
    waits = [notify.BACKOFF.delay(attempt, chance) for attempt in range(1, notify.BACKOFF.max_attempts)]
    assert timedelta(days=2) <= sum(waits, timedelta()) <= timedelta(days=2.5)


def test_a_receiver_that_is_not_there_is_told_of_in_the_words_that_brevo_is(receiver: Receiver) -> None:
    note = Notification(1, "msg_1", TYPES[0], {}, "2026-11-23T16:00:00.000Z", 1)
    receiver.status = None
    silent = webhook.Webhook(receiver.url, timeout=timedelta(seconds=0.2))
    assert silent.post(note, wall()) == "no answer within 0.2 seconds"
    with create_server(("127.0.0.1", 0)) as server:
        nobody = webhook.Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/secret-path")
    assert nobody.post(note, wall()) == "the receiver cannot be reached: Connection refused"


def test_a_dead_receiver_does_not_slow_the_sync(shop: Shop, receiver: Receiver) -> None:
    receiver.status = None
    shop.reopen(notifications={"webhook_url": receiver.url, "each": True})
    with running(shop.relay):
        for number in range(101):
            shop.enqueue("created", id=number, email=f"c{number}@example.com")
        until(lambda: shop.status()["delivered"] == 101)
        assert len(receiver.posts) == 1, "it still hangs"


def test_a_drain_tells_all_that_is_due_before_it_ends_and_nothing_twice(
    tmp_path: Path, receiver: Receiver
) -> None:
    """For those who drain by cron, and run no daemon."""
    with Sandbox() as sandbox:
        hook = {"webhook_url": receiver.url, "each": True}
        config = write_config(tmp_path / "config.yaml", sandbox.url, notifications=hook)
        new_outbox(tmp_path / "outbox.db")
        for number in range(5):
            body = {"id": number, "email": f"c{number}@example.com"}
            outboxd.enqueue("customer_created", body, db=tmp_path / "outbox.db")
        command = [sys.executable, "-m", "outboxd", "drain", "--config", str(config)]
        for _ in range(2):
            done = subprocess.run(command, env={**os.environ, "BREVO_API_KEY": KEY}, timeout=60)
            assert done.returncode == 0
    assert sorted(told["event_id"] for told in receiver.of_type("sync_completed")) == [1, 2, 3, 4, 5]
    assert status(tmp_path / "outbox.db")["notifications"] == {"pending": 0, "dead": 0}


def test_a_drain_gives_a_receiver_that_is_down_one_try(shop: Shop, receiver: Receiver) -> None:
    """It would have to wait for each of a thousand."""
    receiver.status = 503
    shop.reopen(notifications={"webhook_url": receiver.url, "each": True})
    for number in range(5):
        shop.enqueue("created", id=number, email=f"c{number}@example.com")
    shop.drain()
    assert len(receiver.posts) == 1
    assert shop.rows("SELECT last_error FROM notifications WHERE attempts = 1") == [
        ("the receiver answered 503",)
    ]


def test_a_lane_that_stops_and_goes_on_is_told(shop: Shop, receiver: Receiver) -> None:
    shop.sandbox.faults.add(Fault(status=403, times=1))
    shop.sent("created", **ANN)
    shop.later(minutes=5)
    shop.drain()
    told(shop, receiver, 3)
    assert "Brevo" in receiver.of_type("lane_blocked")[0]["reason"]
    assert len(receiver.of_type("lane_resumed")) == 1


def test_a_lane_that_goes_on_after_a_restart_is_told(shop: Shop, receiver: Receiver) -> None:
    """A wrong key is mended, and the daemon started anew."""
    hook = {"webhook_url": receiver.url, "events": ["lane_blocked", "lane_resumed"]}
    shop.reopen(key="xkeysib-wrong", notifications=hook)
    shop.sent("created", **ANN)
    assert shop.status()["lane"]["state"] == "blocked"
    shop.reopen(key="xkeysib-wrong", notifications=hook)
    shop.drain()
    assert shop.status()["lane"]["state"] == "blocked"
    shop.reopen(notifications=hook)
    shop.drain()
    assert shop.status()["delivered"] == 1
    told(shop, receiver, 2)
    assert [message["type"] for message in receiver.told] == ["lane_blocked", "lane_resumed"]
    assert "API key" in receiver.told[1]["data"]["reason"]


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


def test_the_dead_ones_are_dropped_and_no_others(shop: Shop, receiver: Receiver, tmp_path: Path) -> None:
    test_a_receiver_that_never_takes_it_makes_a_dead_letter(shop, receiver, 500)
    shop.sent("updated", id=1, firstName="Anna")
    config = tmp_path / "config.yaml"
    config.write_text(f"database: {shop.path}")
    ran = CliRunner().invoke(cli.group, ["notifications", "--drop", "--json", "--config", str(config)])
    assert "1 notification dropped" in ran.stderr
    assert [each["status"] for each in json.loads(ran.stdout)] == ["pending"]
    both = CliRunner().invoke(cli.group, ["notifications", "--drop", "--retry", "--config", str(config)])
    assert both.exit_code == 2


def test_what_was_noted_is_delivered_after_a_restart(shop: Shop, receiver: Receiver) -> None:
    shop.sent("created", **ANN)
    shop.reopen(notifications={"webhook_url": receiver.url})
    assert [message["type"] for message in told(shop, receiver)] == ["sync_completed"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "OUTBOXD_SECRET is not set"),
        ("", "OUTBOXD_SECRET is not set"),
        ("whsec_?", "it must be whsec_ and 24 to 64 bytes in base64"),
        ("whsec_c2hvcnQ=", "it must be whsec_ and 24 to 64 bytes in base64"),
        (SECRET, None),
    ],
)
def test_a_secret_that_is_none_is_found_by_check_and_not_shown(
    db: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, told: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("OUTBOXD_SECRET", raising=False)
    else:
        monkeypatch.setenv("OUTBOXD_SECRET", value)
    hook = {"webhook_url": "https://shop.example/hook", "secret_env": "OUTBOXD_SECRET"}
    config = db.with_name("config.yaml")
    config.write_text(json.dumps({"database": str(db), "notifications": hook}))
    ran = CliRunner().invoke(cli.group, ["check", "--offline", "--json", "--config", str(config)])
    [found] = [each for each in json.loads(ran.output)["checks"] if each["what"] == "webhook"]
    assert found["is_well"] == (told is None)
    assert (told or "signed") in found["told"]
    assert not value or value not in ran.output


BODIES = re.findall(
    r"^\| `(\w+)` \| ([^|]*`[^|]*) \|$", README.partition("## Be told")[2].partition("\n## ")[0], re.M
)


def test_the_readme_names_every_member_of_every_body(shop: Shop, receiver: Receiver) -> None:
    hook = {"webhook_url": receiver.url, "events": list(TYPES)}
    shop.reopen(options={"sync_mode": "batch"}, notifications=hook)
    shop.sandbox.faults.add(Fault(status=403, times=1))
    shop.enqueue("created", **ANN)
    shop.insert("customer_created", "[]")
    shop.drain()
    shop.later(minutes=5)
    shop.drain()
    told(shop, receiver, 5)
    named = {type_: set(re.findall(r"`(\w+)`", text)) for type_, text in BODIES}
    named["sync_failed"] |= named["sync_completed"]  # "the same"
    assert {type_: set(receiver.of_type(type_)[0]) for type_ in TYPES} == named


def test_the_readme_names_every_member_of_the_body_of_each_event(shop: Shop, receiver: Receiver) -> None:
    shop.reopen(notifications={"webhook_url": receiver.url, "each": True})
    shop.sent("created", **ANN)
    (message,) = told(shop, receiver)
    text = README.partition("With `each: true`")[2].partition(".\n")[0].partition(". ")[0]
    assert set(re.findall(r"`(\w+)`", text)) == set(message["data"])
    assert set(message) == {"type", "timestamp", "data"}
