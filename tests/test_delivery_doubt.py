"""An attempt whose end is unknown: Brevo may have acted on it, and nothing may be left behind."""

from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from outboxd import app
from outboxd.admit import admission
from outboxd.brevo.sandbox import Fault
from outboxd.sources import DEFAULTS
from tests.conftest import until
from tests.shop import KEY, MakeShop, Shop

A, B, C = ({"id": 7, "email": f"{name}@example.com", "firstName": "Ann"} for name in ("ann", "bea", "cleo"))
LOST = Fault(behaviour="lost_answer", times=1)
LOST_MOVE = Fault(behaviour="lost_answer", method="PUT", times=1)
GONE = ("deleted", {"id": 7})

AFTER = {
    "moved": ([("created", A)], [("updated", B)], ["bea@example.com"]),
    "moved again": ([("created", A)], [("updated", B), ("updated", C)], ["cleo@example.com"]),
    "moved there and back": ([("created", A)], [("updated", B), ("updated", A)], ["ann@example.com"]),
    "deleted": ([("created", A)], [GONE], []),
    "moved and deleted": ([("created", A)], [("updated", B), GONE], []),
    "moved in the same breath": ([("created", A), ("updated", B)], [("updated", C)], ["cleo@example.com"]),
}


def addresses(shop: Shop) -> list[str]:
    return [contact["email"] for contact in shop.sandbox.contacts]


def settle(shop: Shop) -> None:
    """Drain, and drain again, until all of it is over."""
    for _ in range(6):
        shop.drain()
        shop.later(hours=1)
    assert (shop.status()["pending"], shop.status()["dead"]) == (0, 0)


@pytest.mark.parametrize("updates", [True, False], ids=["updating", "without update_enabled"])
@pytest.mark.parametrize(("first", "then", "left"), AFTER.values(), ids=AFTER.keys())
def test_a_contact_whose_creation_was_not_answered_is_not_left_behind(
    make_shop: MakeShop,
    first: list[tuple[str, dict[str, Any]]],
    then: list[tuple[str, dict[str, Any]]],
    left: list[str],
    updates: bool,
) -> None:
    """The customer moved on before the attempt was repeated."""
    shop = make_shop(options={"delete_behavior": "hard", "update_enabled": updates})
    shop.sandbox.faults.add(LOST)
    for event, data in first:
        shop.enqueue(event, **data)
    shop.drain()
    assert len(addresses(shop)) == 1
    for event, data in then:
        shop.later(seconds=1)
        shop.enqueue(event, **data)
    settle(shop)
    assert addresses(shop) == left


@pytest.mark.parametrize("updates", [True, False], ids=["updating", "without update_enabled"])
def test_a_move_that_was_not_answered_is_followed_by_the_next_move(
    make_shop: MakeShop, updates: bool
) -> None:
    shop = make_shop(options={"update_enabled": updates})
    shop.sent("created", **A)
    shop.sandbox.faults.add(Fault(behaviour="lost_answer", method="PUT", times=1))
    shop.sent("updated", **B)
    shop.later(seconds=1)
    shop.enqueue("updated", **C)
    settle(shop)
    assert addresses(shop) == ["cleo@example.com"]


def test_what_a_killed_drainer_had_created_is_not_left_behind(make_shop: MakeShop) -> None:
    shop = make_shop()
    shop.enqueue("created", **A)
    with closing(app.outbox(shop.settings)) as outbox:
        courier = app.brevo(shop.settings, KEY)
        with closing(app.relay(shop.settings, courier, outbox, clock=shop.clock)) as killed:
            killed.step()
            until(lambda: addresses(shop) == ["ann@example.com"])  # and it never hears of it
    shop.later(seconds=1)
    shop.enqueue("updated", **B)
    settle(shop)
    assert addresses(shop) == ["bea@example.com"]


def test_a_drainer_killed_between_two_addresses_leaves_neither_behind(shop: Shop) -> None:
    """The first attempt was not the event's fault, and the killed one had got no further than the first."""
    shop.sandbox.faults.add(Fault(status=403, times=1))
    shop.sent("created", **A)
    shop.later(minutes=5)
    shop.enqueue("updated", **B)
    hang = Fault(behaviour="hang", method="GET", path="/contacts/*@*", times=1)
    shop.sandbox.faults.add(hang)
    with closing(app.outbox(shop.settings)) as outbox:
        courier = app.brevo(shop.settings, KEY)
        with closing(app.relay(shop.settings, courier, outbox, clock=shop.clock)) as killed:
            killed.step()
            until(lambda: shop.methods[-2:] == ["POST", "GET"])
    shop.later(hours=1)
    shop.enqueue("updated", **C)
    settle(shop)
    assert addresses(shop) == ["cleo@example.com"]


def test_a_deletion_that_was_tried_finds_the_address_that_was_perhaps_given_before_it(shop: Shop) -> None:
    """The first attempt gave the contact the second address, unheard; the second one was killed."""
    shop.sandbox.faults.add(LOST)
    shop.enqueue("created", **A)
    shop.later(seconds=1)
    shop.sent("updated", **B)
    assert addresses(shop) == ["bea@example.com"]
    shop.reopen(options={"delete_behavior": "hard"}).later(minutes=5)
    shop.enqueue("deleted", id=7)
    with closing(app.outbox(shop.settings)) as outbox:
        outbox.admit([admission(event, DEFAULTS) for event in outbox.fresh()], shop.clock())
        [killed] = outbox.claim(shop.clock(), limit=10, lease=timedelta(seconds=1))
    assert len(killed.events) == 3
    settle(shop)
    assert addresses(shop) == []


def test_doubt_upon_doubt_is_settled_in_the_order_of_the_attempts(shop: Shop) -> None:
    """Each address was perhaps given to the contact by an attempt that was not answered."""
    shop.sandbox.faults.add(Fault(behaviour="lost_answer", method="POST", times=1))
    shop.sandbox.faults.add(Fault(behaviour="lost_answer", method="PUT", times=2))
    shop.sent("created", **A)
    for data in (B, C):
        shop.later(seconds=20)
        shop.sent("updated", **data)
    settle(shop)
    assert addresses(shop) == ["cleo@example.com"]


@pytest.mark.parametrize("customers", [1, 9], ids=["one", "so many that the lane stops"])
def test_without_update_enabled_what_we_made_ourselves_is_no_clash(
    make_shop: MakeShop, customers: int
) -> None:
    """The answers to our own creations were lost: the contacts that are in the way are ours."""
    shop = make_shop(options={"update_enabled": False})
    shop.sandbox.faults.add(Fault(behaviour="lost_answer", method="POST", times=customers))
    ids = [
        shop.enqueue("created", id=number, email=f"ann{number}@example.com", firstName="Ann")
        for number in range(customers)
    ]
    settle(shop)
    events = [shop.event(event_id) for event_id in ids]
    assert {event["status"] for event in events} == {"delivered"}
    assert events[0]["last_error"] == "the contact existed already: updated"


def test_what_an_earlier_life_perhaps_left_in_brevo_is_cleared(make_shop: MakeShop) -> None:
    shop = make_shop(options={"delete_behavior": "hard"})
    shop.sandbox.faults.add(LOST)
    shop.sent("created", **A, phone="+4915112345678")
    shop.later(seconds=1)
    shop.enqueue("deleted", id=7)
    shop.later(seconds=1)
    shop.enqueue("created", **A)
    settle(shop)
    assert shop.contact("ann@example.com")["attributes"] == {"FIRSTNAME": "Ann"}


def test_a_value_that_was_perhaps_delivered_is_cleared(shop: Shop) -> None:
    shop.sandbox.faults.add(LOST)
    shop.sent("created", **A, phone="+4915112345678")
    shop.later(seconds=1)
    shop.enqueue("updated", **A, phone=None)
    settle(shop)
    assert shop.contact("ann@example.com")["attributes"] == {"FIRSTNAME": "Ann"}


def test_a_value_that_was_perhaps_overwritten_is_sent_again(shop: Shop) -> None:
    """It is what was last known to be delivered, and not what Brevo has."""
    shop.sent("created", **A)
    shop.sandbox.faults.add(LOST)
    shop.later(seconds=1)
    shop.sent("updated", **(A | {"firstName": "Anna"}))
    shop.later(seconds=1)
    shop.enqueue("updated", **A)
    settle(shop)
    assert shop.contact("ann@example.com")["attributes"] == {"FIRSTNAME": "Ann"}


def test_an_opt_out_is_said_again_after_an_opt_in_that_was_perhaps_delivered(shop: Shop) -> None:
    shop.sent("created", **A, acceptsMarketing=False)
    shop.sandbox.faults.add(LOST)
    shop.later(seconds=1)
    shop.sent("updated", **A, acceptsMarketing=True)
    assert not shop.contact("ann@example.com")["emailBlacklisted"]
    shop.later(seconds=1)
    shop.enqueue("updated", **A, acceptsMarketing=False)
    settle(shop)
    assert shop.contact("ann@example.com")["emailBlacklisted"]


def test_whoever_was_perhaps_taken_off_the_list_and_is_back_joins_it_again(make_shop: MakeShop) -> None:
    shop = make_shop(options={"list_id": 5})
    shop.sent("created", **A)
    shop.sandbox.faults.add(LOST)
    shop.later(seconds=1)
    shop.sent("deleted", id=7)
    assert shop.contact("ann@example.com")["listIds"] == []
    shop.later(seconds=1)
    shop.enqueue("created", **A)
    settle(shop)
    assert shop.contact("ann@example.com")["listIds"] == [5]


def test_late_old_news_stays_old_where_a_move_was_perhaps_delivered(shop: Shop) -> None:
    """The move is found done, and the version of what it did not say is remembered."""
    shop.sent("created", **(A | {"lastName": "Archer"}), updatedAt="2026-01-02T00:00:00Z")
    shop.sandbox.faults.add(LOST_MOVE)
    shop.sent("updated", id=7, email="bea@example.com", updatedAt="2026-01-03T00:00:00Z")
    settle(shop)
    shop.sent("updated", id=7, lastName="Former", updatedAt="2026-01-01T00:00:00Z")
    assert shop.contact("bea@example.com")["attributes"] == {"FIRSTNAME": "Ann", "LASTNAME": "Archer"}


@pytest.mark.parametrize("end", ["deleted", "redacted"])
@pytest.mark.parametrize("behavior", ["soft", "hard"])
def test_whoever_was_perhaps_made_anew_after_a_deletion_and_leaves_again_is_gone(
    make_shop: MakeShop, behavior: str, end: str
) -> None:
    shop = make_shop(options={"delete_behavior": behavior})
    shop.sent("created", **A)
    shop.later(seconds=1)
    shop.sent("deleted", id=7)
    shop.later(seconds=1)
    shop.sandbox.faults.add(LOST)
    shop.sent("created", **A, acceptsMarketing=True)
    shop.later(seconds=1)
    shop.enqueue(end, id=7)
    settle(shop)
    left = [contact["emailBlacklisted"] for contact in shop.sandbox.contacts]
    assert left == ([True] if (behavior, end) == ("soft", "deleted") else [])
