"""Customers with one contact, delivered side by side: whoever is late looks again before anything is told."""

from datetime import timedelta
from typing import Any

import pytest

from tests.by_hand import ByHand
from tests.shop import MakeShop, Shop

ANN = {"email": "ann@example.com", "firstName": "Ann"}


@pytest.fixture
def shop(make_shop: MakeShop) -> Shop:
    return make_shop(options={"delete_behavior": "hard"})


def there(shop: Shop) -> list[Any]:
    return [(each["email"], each["attributes"]) for each in shop.sandbox.contacts]


def two(shop: Shop) -> None:
    """Two customers with one contact."""
    for customer_id in (1, 2):
        shop.sent("created", id=customer_id, **ANN)
        shop.later(seconds=1)


def test_a_claim_that_was_made_before_the_others_record_is_made_anew(shop: Shop) -> None:
    """It knows of no other name there, and would take the one that it brings for no news."""
    two(shop)
    for customer_id, name in ((1, "Anne"), (2, "Ann")):
        shop.enqueue("updated", id=customer_id, firstName=name)
        shop.later(seconds=1)
    with ByHand.of(shop) as by_hand:
        first, second = by_hand.claim()
        assert by_hand.deliver(first) == {"delivered"}
        assert by_hand.deliver(second) == {"blocked"}
        shop.later(seconds=1)
        assert [by_hand.deliver(claim) for claim in by_hand.claim()] == [{"delivered"}]
    assert there(shop) == [(ANN["email"], {"FIRSTNAME": "Ann"})]
    assert shop.rows("SELECT sum(attempts) FROM outbox WHERE id > 2") == [(2,)], (
        "to step aside spends nothing"
    )


def test_a_deletion_that_was_claimed_before_removes_no_contact_that_another_customer_has_by_now(
    shop: Shop,
) -> None:
    shop.sent("created", id=1, **ANN)
    shop.later(seconds=1)
    with ByHand.of(shop) as by_hand:
        shop.enqueue("created", id=3, **{**ANN, "firstName": "Anna"})
        shop.later(seconds=1)
        shop.enqueue("deleted", id=1)
        creation, deletion = by_hand.claim()
        assert by_hand.deliver(creation) == {"delivered"}
        assert by_hand.deliver(deletion) == {"blocked"}
    shop.later(seconds=1)
    shop.drain()
    assert there(shop) == [(ANN["email"], {"FIRSTNAME": "Anna"})]


def test_a_move_that_was_claimed_before_takes_no_contact_along_that_another_customer_has_by_now(
    shop: Shop,
) -> None:
    shop.sent("created", id=1, **ANN)
    shop.later(seconds=1)
    with ByHand.of(shop) as by_hand:
        shop.enqueue("created", id=3, **{**ANN, "firstName": "Anna"})
        [creation] = by_hand.claim()
        result = by_hand.carry(creation)
        shop.enqueue("updated", id=1, email="new@example.com", firstName="Ann")
        [move] = by_hand.claim()
        by_hand.record(result)
        assert by_hand.deliver(move) == {"blocked"}
    shop.later(seconds=1)
    shop.drain()
    assert there(shop) == [(ANN["email"], {"FIRSTNAME": "Anna"}), ("new@example.com", {"FIRSTNAME": "Ann"})]


def test_of_two_claims_of_one_contact_the_older_one_goes_first(shop: Shop) -> None:
    """Whichever a thread happens to begin first."""
    two(shop)
    for customer_id, name in ((1, "Anne"), (2, "Anna")):
        shop.enqueue("updated", id=customer_id, firstName=name)
        shop.later(seconds=1)
    with ByHand.of(shop) as by_hand:
        older, newer = by_hand.claim()
        assert by_hand.deliver(newer) == {"blocked"}
        assert by_hand.deliver(older) == {"delivered"}
    shop.later(seconds=1)
    shop.drain()
    assert there(shop) == [(ANN["email"], {"FIRSTNAME": "Anna"})]


def test_a_claim_that_comes_to_nothing_keeps_nobody_waiting(shop: Shop) -> None:
    two(shop)
    for customer_id, name in ((1, "Anne"), (2, "Anna")):
        shop.enqueue("updated", id=customer_id, firstName=name)
        shop.later(seconds=1)
    with ByHand.of(shop) as by_hand:
        older, newer = by_hand.claim()
        by_hand.record(by_hand.untried(older))
        assert by_hand.deliver(newer) == {"delivered"}


@pytest.mark.parametrize("workers", [1, 8])
def test_what_is_claimed_ahead_is_told_in_the_order_in_which_it_was_said(
    make_shop: MakeShop, workers: int
) -> None:
    shop = make_shop({"latency": timedelta(milliseconds=4)}, brevo={"workers": workers})
    pairs = range(8)
    for who in "ab":
        shop.fill("created", [told(who, number, "Ann") for number in pairs])
        shop.drain()
        shop.later(seconds=1)
    bystanders = ({"id": f"c{number}", "email": f"c{number}@example.com"} for number in range(100))
    for number in pairs:
        shop.fill("updated", [told("a", number, "Anne"), *(next(bystanders) for _ in range(3))])
        shop.later(milliseconds=5)
        shop.fill("updated", [told("b", number, "Ann")])
        shop.later(milliseconds=5)
    shop.later(seconds=1)
    shop.drain()
    assert {shop.contact(f"ann{number}@example.com")["attributes"]["FIRSTNAME"] for number in pairs} == {
        "Ann"
    }


def told(who: str, number: int, name: str) -> dict[str, str]:
    return {"id": f"{who}{number}", "email": f"ann{number}@example.com", "firstName": name}
