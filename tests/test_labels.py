"""Labels come and go one by one or as a whole, in whatever order, and end as the same set."""

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from outboxd.event import Labels, Stamp
from outboxd.labels import Known
from tests.shop import MakeShop

START = datetime(2026, 11, 23, tzinfo=UTC)
WORDS = st.frozensets(st.sampled_from(["vip", "tea", "coffee", "b2b"]))


@st.composite
def news(draw: st.DrawFn) -> Labels:
    here = draw(WORDS)
    return Labels("TAGS", draw(st.booleans()), here, draw(WORDS) - here)


def ended(told: list[tuple[Stamp, Labels]]) -> str:
    known = Known({})
    for stamp, labels in told:
        known = known.told(stamp, labels)
    return str(known.value(is_list=False))


@given(st.lists(news(), min_size=1, max_size=6), st.randoms())
def test_any_order_and_any_doubles_end_as_the_same_set(story: list[Labels], chance: random.Random) -> None:
    told = [(Stamp(START + timedelta(minutes=n), n), labels) for n, labels in enumerate(story)]
    shuffled = told + chance.choices(told, k=2)
    chance.shuffle(shuffled)
    assert ended(shuffled) == ended(told)


def test_shopifys_changes_of_tags_reach_the_contact(make_shop: MakeShop) -> None:
    shop = make_shop(sandbox={"attributes": {"TAGS": "text"}}, mapping={"email": "email", "tags": "TAGS"})

    def tell(topic: str, second: int, **payload: object) -> None:
        at = f"2026-11-23T10:00:{second:02d}Z"
        shop.insert(topic, {"occurredAt": at, "customerId": "gid://shopify/Customer/7", **payload}, "shopify")
        shop.drain()

    body = {"id": 7, "email": "mara@example.com", "updated_at": "2026-11-23T10:00:00Z", "tags": "tea, vip"}
    shop.insert("customers/create", body, "shopify")
    shop.drain()
    assert shop.contact("mara@example.com")["attributes"]["TAGS"] == "tea, vip"
    tell("customer.tags_added", 2, tags=["b2b"])
    assert shop.contact("mara@example.com")["attributes"]["TAGS"] == "b2b, tea, vip"
    tell("customer.tags_removed", 3, tags=["vip"])
    assert shop.contact("mara@example.com")["attributes"]["TAGS"] == "b2b, tea"
    tell("customer.tags_added", 1, tags=["vip"])  # late: it was taken away since
    assert shop.contact("mara@example.com")["attributes"]["TAGS"] == "b2b, tea"
    tell("customer.tags_removed", 4, tags=["tea", "b2b"])
    assert not shop.contact("mara@example.com")["attributes"].get("TAGS")
