"""What cannot be read is parked as dead with a reason a person can act on, and made good by a retry."""

import json

import pytest

from tests.shop import Shop

UNREADABLE = {
    "no JSON": ("customer_created", "id=7", None, "the payload is not JSON"),
    "no text": ("customer_created", "", None, "the payload is not JSON"),
    "no object": ("customer_created", "[7]", None, "the payload is not a JSON object"),
    "no value": ("customer_created", "null", None, "the payload is not a JSON object"),
    "too deep": (
        "customer_created",
        '{"a":' * 20_000 + "1" + "}" * 20_000,
        None,
        "the payload is nested too deeply",
    ),
    "too large": (
        "customer_created",
        json.dumps({"id": 7, "note": "x" * 300_000}),
        None,
        "larger than 256 KiB",
    ),
    "no such event": (
        "customer_exploded",
        '{"id": 7, "email": "ann@example.com"}',
        None,
        "the event's name is none that this source sends",
    ),
    "no such source": (
        "customer_created",
        '{"id": 7, "email": "ann@example.com"}',
        "prestashop",
        "the event's source is none of the platforms",
    ),
    "nobody": ("customer_created", '{"firstName": "Ann"}', None, "neither an id nor an email address"),
    "nothing": ("customer_updated", "{}", None, "neither an id nor an email address"),
}


@pytest.mark.parametrize(("event", "payload", "source", "reason"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_is_parked_with_its_reason(
    shop: Shop, event: str, payload: str, source: str | None, reason: str
) -> None:
    event_id = shop.insert(event, payload, source)
    shop.drain()
    parked = shop.event(event_id)
    assert parked["status"] == "dead"
    assert parked["last_error"]
    assert reason in parked["last_error"]
    assert parked["attempts_made"][0]["verdict"] == "refused"
    assert shop.calls == []
    assert shop.status()["dead"] == 1


def test_a_parked_event_does_not_hold_up_the_ones_after_it(shop: Shop) -> None:
    for payload in ("{", "[]", "{}"):
        shop.insert("customer_created", payload)
    good = shop.insert("customer_created", {"id": 7, "email": "ann@example.com"})
    shop.drain()
    assert shop.event(good)["status"] == "delivered"
    assert shop.status()["dead"] == 3


def test_an_id_that_nobody_knows_without_an_address_ends_dead_and_says_so(shop: Shop) -> None:
    event = shop.sent("updated", id=77, firstName="Ann")
    assert event["status"] == "dead"
    assert "no address is known for customer custom:77" in event["last_error"]
    assert shop.calls == []


def test_an_event_without_an_address_is_made_good_by_one_that_has_it(shop: Shop) -> None:
    first = shop.sent("updated", id=77, firstName="Ann")["id"]
    shop.sent("updated", id=77, email="ann@example.com")
    assert shop.event(first)["status"] == "delivered"
    assert shop.contact("ann@example.com")["attributes"] == {"FIRSTNAME": "Ann"}


def test_what_shops_say_that_is_no_news_of_a_customer_is_done_without_a_call(shop: Shop) -> None:
    event_id = shop.insert("customer_deleted", {"id": 12})
    shop.drain()
    assert shop.event(event_id)["status"] == "delivered"
    assert shop.calls == []
