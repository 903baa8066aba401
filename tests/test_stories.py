"""A customer's story on each platform ends the same in Brevo, however its events are delivered."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shop import MakeShop, Shop
from tests.stories import META_KEY, PLATFORMS, Story, Told, address, as_brevo_has_it, story

LIST = 3

ENDINGS = ("alive", "gone", "back")

MAPPING = {"email": "email", "firstName": "FIRSTNAME", "lastName": "LASTNAME", "phone": "SMS"}


@dataclass(frozen=True)
class Way:
    """How a story's events arrive: in which order, which ones twice, and after which of them is drained."""

    order: tuple[int, ...]
    drained_after: frozenset[int]

    def deliver(self, shop: Shop, platform: str, events: Sequence[Told]) -> list[int]:
        ids = []
        for place, number in enumerate(self.order):
            ids.append(events[number % len(events)].enqueue(platform, shop.path))
            if place in self.drained_after:
                shop.drain()
        shop.drain()
        return ids


def in_order(events: int, *, drains: bool) -> Way:
    return Way(tuple(range(events)), frozenset(range(events)) if drains else frozenset())


LONGEST = 10


@st.composite
def ways(draw: st.DrawFn) -> Way:
    """Every event once or twice, in any order, drained in between anywhere."""
    doubled = draw(st.sets(st.integers(0, LONGEST - 1)))
    order = draw(st.permutations([*range(LONGEST), *doubled]))
    return Way(tuple(order), frozenset(draw(st.sets(st.integers(0, len(order) - 1)))))


def opened(make_shop: MakeShop, behavior: str) -> Shop:
    options = {"delete_behavior": behavior, "list_id": LIST, "consent_meta_key": META_KEY}
    return make_shop(options=options, mapping=MAPPING)


def assert_end(shop: Shop, told: Story, number: int, ids: Sequence[int], ending: str, behavior: str) -> None:
    """The one contact that there must be; of somebody gone none, or at most one that nobody will write to."""
    theirs = {address(number, 0), address(number, 1)}
    found = [contact for contact in shop.sandbox.contacts if contact["email"] in theirs]
    assert shop.status()["pending"] == 0
    if ending == "gone":
        assert behavior == "soft" or not found
        assert all(contact["emailBlacklisted"] and not contact["listIds"] for contact in found)
        return
    assert len(found) == 1, found
    [contact] = found
    expected: dict[str, Any] = {"FIRSTNAME": told.last.first_name, "LASTNAME": told.last.last_name}
    if told.last.phone:
        expected["SMS"] = as_brevo_has_it(told.last.phone)
    assert contact["email"] == told.last.email
    assert contact["attributes"] == expected
    assert (contact["emailBlacklisted"], contact["listIds"]) == (False, [LIST])
    assert {shop.event(event_id)["status"] for event_id in ids} == {"delivered"}


@pytest.mark.parametrize("drains", [True, False], ids=["drained-each", "drained-once"])
@pytest.mark.parametrize("behavior", ["soft", "hard"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_story_that_is_told_in_order_ends_as_it_must(
    make_shop: MakeShop, platform: str, behavior: str, drains: bool
) -> None:
    shop = opened(make_shop, behavior)
    for number, ending in enumerate(ENDINGS):
        told = story(platform, number, ending)
        ids = in_order(len(told.events), drains=drains).deliver(shop, platform, told.events)
        assert_end(shop, told, number, ids, ending, behavior)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_neither_order_nor_doubles_nor_drains_change_how_a_story_ends(
    make_shop: MakeShop, platform: str
) -> None:
    shops = {behavior: opened(make_shop, behavior) for behavior in ("soft", "hard")}
    numbers = count()

    @settings(max_examples=15, derandomize=True, database=None)
    @given(st.sampled_from(ENDINGS), st.sampled_from(sorted(shops)), ways())
    def holds(ending: str, behavior: str, way: Way) -> None:
        number, shop = next(numbers), shops[behavior]
        told = story(platform, number, ending)
        ids = way.deliver(shop, platform, told.events)
        assert_end(shop, told, number, ids, ending, behavior)

    holds()


@pytest.mark.parametrize("behavior", ["soft", "hard"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_late_copy_of_any_event_never_brings_somebody_gone_back(
    make_shop: MakeShop, platform: str, behavior: str
) -> None:
    shop = opened(make_shop, behavior)
    told = story(platform, 1, "gone")
    in_order(len(told.events), drains=True).deliver(shop, platform, told.events)
    before = shop.sandbox.contacts
    calls = len(shop.calls)
    for event in told.events:
        event.enqueue(platform, shop.path)
        shop.drain()
    assert shop.sandbox.contacts == before
    assert len(shop.calls) == calls


def test_a_merge_of_two_shopify_customers_takes_the_one_that_is_gone(make_shop: MakeShop) -> None:
    """The intake lets it in, though it names customers by nothing but its own keys."""
    shop = opened(make_shop, "hard")
    for number in (1, 2):
        story("shopify", number, "alive").events[0].enqueue("shopify", shop.path)
    shop.drain()
    gone, kept = (story("shopify", number, "alive").events[0].body for number in (1, 2))
    merge = {
        "admin_graphql_api_customer_kept_id": kept["admin_graphql_api_id"],
        "admin_graphql_api_customer_deleted_id": gone["admin_graphql_api_id"],
        "status": "in_progress",
    }
    for status, left in (("in_progress", 2), ("completed", 1)):
        Told("customers/merge", {**merge, "status": status}).enqueue("shopify", shop.path)
        shop.drain()
        assert len(shop.sandbox.contacts) == left
    assert shop.sandbox.contacts[0]["email"] == kept["email"]


@pytest.mark.parametrize(
    ("platform", "topic", "body", "note"),
    [
        ("woocommerce", "customer.updated", {"webhook_id": 12}, "only tried whether its webhook is heard"),
        (
            "shopify",
            "customers/data_request",
            {"shop_id": 31, "customer": {"id": 7}},
            "a person must answer that",
        ),
        ("shopify", "shop/redact", {"shop_id": 31}, "a person must decide that"),
    ],
)
def test_what_asks_for_nothing_is_acknowledged_and_noted(
    shop: Shop, platform: str, topic: str, body: dict[str, Any], note: str
) -> None:
    event_id = Told(topic, body).enqueue(platform, shop.path)
    shop.drain()
    event = shop.event(event_id)
    assert (event["status"], shop.calls) == ("delivered", [])
    assert note in event["last_error"]
