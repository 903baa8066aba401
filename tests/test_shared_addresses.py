"""Customers who meet at an address: their deliveries take turns, and each contact ends as the shop has it."""

from datetime import timedelta
from typing import Any

import pytest

from outboxd.brevo.sandbox import Fault
from tests.shop import MakeShop, Shop

ANN = {"id": 1, "email": "ann@example.com", "firstName": "Ann"}
BOB = {"id": 2, "email": "bob@example.com", "firstName": "Bob"}


@pytest.fixture
def slow(make_shop: MakeShop) -> Shop:
    """A Brevo that takes its time, so that deliveries would overlap."""
    return make_shop({"latency": timedelta(milliseconds=10)}, options={"delete_behavior": "hard"})


def people(shop: Shop) -> dict[str, Any]:
    return {each["email"]: each["attributes"].get("FIRSTNAME") for each in shop.sandbox.contacts}


def test_two_customers_who_swap_addresses_keep_their_names(slow: Shop) -> None:
    for data in (ANN, BOB):
        slow.sent("created", **data)
    slow.later(seconds=1)
    slow.enqueue("updated", **{**ANN, "email": BOB["email"]})
    slow.enqueue("updated", **{**BOB, "email": ANN["email"]})
    slow.drain()
    assert people(slow) == {"bob@example.com": "Ann", "ann@example.com": "Bob"}
    assert slow.status()["dead"] == 0


def test_whoever_registers_at_an_address_that_is_just_left_is_not_removed(slow: Shop) -> None:
    slow.sent("created", **ANN)
    slow.later(seconds=1)
    slow.enqueue("deleted", id=1)
    slow.enqueue("created", **{**ANN, "id": 3, "firstName": "Anna"})
    slow.drain()
    assert people(slow) == {"ann@example.com": "Anna"}


def test_whoever_takes_the_address_of_one_who_moves_gets_a_contact_of_their_own(slow: Shop) -> None:
    slow.sent("created", **ANN)
    slow.later(seconds=1)
    slow.enqueue("updated", **{**ANN, "email": "new@example.com"})
    slow.enqueue("created", **{**BOB, "email": ANN["email"]})
    slow.drain()
    assert people(slow) == {"new@example.com": "Ann", "ann@example.com": "Bob"}


@pytest.mark.parametrize("behavior", ["soft", "hard"])
def test_the_last_of_two_customers_with_one_contact_takes_it_along(
    make_shop: MakeShop, behavior: str
) -> None:
    shop = make_shop(options={"delete_behavior": behavior, "list_id": 5})
    for customer_id in (1, 2):
        shop.sent("created", **{**ANN, "id": customer_id})
    shop.later(seconds=1)
    for customer_id in (1, 2):
        shop.enqueue("deleted", id=customer_id)
    shop.drain()
    left = [(each["emailBlacklisted"], each["listIds"]) for each in shop.sandbox.contacts]
    assert left == ([(True, [])] if behavior == "soft" else [])


def test_what_a_contact_lost_in_brevo_is_sent_again_when_it_is_told_again(shop: Shop) -> None:
    """Made anew from one field, it must not count as having the others."""
    shop.sent("created", **ANN, lastName="Lee")
    shop.sandbox.faults.add(Fault(status=404, method="PUT", times=1))
    shop.later(seconds=1)
    shop.sent("updated", id=1, lastName="Lind")
    shop.later(seconds=1)
    calls = len(shop.calls)
    shop.sent("updated", **ANN, lastName="Lind")
    assert shop.calls[calls].body == {"attributes": {"FIRSTNAME": "Ann"}}


def test_a_move_to_a_taken_address_takes_the_attributes_along(shop: Shop) -> None:
    for data in (ANN, {**BOB, "id": None}):
        shop.sent("created", **data)
    shop.later(seconds=1)
    shop.sent("updated", id=1, email=BOB["email"])
    assert people(shop) == {"bob@example.com": "Ann"}


def test_nothing_is_sent_before_the_attributes_are_known(make_shop: MakeShop) -> None:
    """A number written as text would be dropped by Brevo without a word."""
    mapping = {"email": "email", "totalSpent": "SPENT"}
    shop = make_shop({"attributes": {"SPENT": "float"}}, mapping=mapping)
    shop.sandbox.faults.add(Fault(status=500, path="/contacts/attributes", times=1))
    shop.reopen(mapping=mapping)
    event = shop.sent("created", id=1, email="ann@example.com", totalSpent="99.50")
    assert event["status"] == "pending"
    assert shop.sandbox.contacts == []
    shop.later(minutes=5)
    shop.reopen(mapping=mapping)
    shop.drain()
    assert shop.contact("ann@example.com")["attributes"]["SPENT"] == 99.5


def test_a_path_that_fails_leaves_out_its_own_attribute_alone(make_shop: MakeShop) -> None:
    mapping = {"email": "email", "firstName": "FIRSTNAME", "join(', ', labels)": "LASTNAME"}
    shop = make_shop(mapping=mapping)
    event = shop.sent("created", **ANN)
    assert event["status"] == "delivered"
    assert "cannot be applied" in event["last_error"]
    assert people(shop) == {"ann@example.com": "Ann"}
