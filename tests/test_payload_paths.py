"""Rules that are paths into the payload, and phones that a country places: what leaves, and what not."""

from typing import Any

import pytest

import outboxd
from tests.shop import MakeShop, Shop

EMAIL = "mira@example.com"

WOOCOMMERCE = {
    "id": 58,
    "email": EMAIL,
    "date_modified_gmt": "2025-06-03T07:20:30",
    "first_name": "Mira",
    "billing": {"city": "Malmö", "country": "SE", "phone": ""},
    "meta_data": [
        {"id": 1, "key": "tier", "value": "gold"},
        {"id": 2, "key": "tier", "value": "silver"},
        {"id": 3, "key": "session_tokens", "value": "kept-away"},
    ],
    "password_hash": "kept-away",
    "rp_token": "kept-away",
    "private": {"deep": "kept-away"},
    "shipping": {"api_key": "kept-away", "city": "Lund"},
}

PATHS: dict[str, tuple[str, Any]] = {
    "billing.city": ("text", "Malmö"),
    "meta_data[?key=='tier'].value | [0]": ("text", "gold"),
    "meta_data[?key=='tier'].value | [-1]": ("text", "silver"),
    "meta_data[?key=='tier'].value": ("text", "gold, silver"),
    "length(meta_data)": ("float", 3),
    "billing.country == 'SE'": ("boolean", True),
    "date_modified_gmt | @": ("date", "2025-06-03"),
}


def sent(shop: Shop, source: str, topic: str, body: dict[str, Any]) -> dict[str, Any]:
    event_id = outboxd.enqueue(topic, body, source=source, db=shop.path)
    shop.drain()
    event = shop.event(event_id)
    assert event["status"] == "delivered", event["last_error"]
    return event


@pytest.mark.parametrize(("path", "expected"), PATHS.items())
def test_a_path_finds_its_value_in_what_the_shop_sent(
    make_shop: MakeShop, path: str, expected: tuple[str, Any]
) -> None:
    shop = make_shop({"attributes": {"THING": expected[0]}}, mapping={"email": "email", path: "THING"})
    event = sent(shop, "woocommerce", "customer.updated", WOOCOMMERCE)
    assert shop.contact(EMAIL)["attributes"] == {"THING": expected[1]}
    assert event["last_error"] is None


def test_a_path_that_finds_nothing_says_nothing(make_shop: MakeShop) -> None:
    """Absent is not cleared."""
    mapping = {"email": "email", "billing.city": "CITY"}
    shop = make_shop({"attributes": {"CITY": "text"}}, mapping=mapping)
    sent(shop, "woocommerce", "customer.updated", WOOCOMMERCE)
    later = {**WOOCOMMERCE, "billing": {}, "date_modified_gmt": "2025-06-04T07:20:30"}
    event = sent(shop, "woocommerce", "customer.updated", later)
    assert shop.contact(EMAIL)["attributes"] == {"CITY": "Malmö"}
    assert event["last_error"] is None


@pytest.mark.parametrize("source", ["custom", "magento"])
def test_a_path_begins_at_the_customer_out_of_its_envelope(make_shop: MakeShop, source: str) -> None:
    mapping = {"email": "email", "billing.city": "CITY"}
    shop = make_shop({"attributes": {"CITY": "text"}}, mapping=mapping)
    customer = {"id": 58, "email": EMAIL, "billing": {"city": "Malmö"}}
    if source == "custom":
        sent(shop, source, "customer_created", {"event": "customer_created", "data": customer})
    else:
        envelope = {"specversion": "1.0", "id": "e-1", "data": {"value": customer}}
        sent(shop, source, "observer.customer_save_commit_after", envelope)
    assert shop.contact(EMAIL)["attributes"] == {"CITY": "Malmö"}


SECRET_PATHS = [
    "password_hash",
    "passwordHash",
    "rp_token",
    "private.deep",
    "shipping.api_key",
    "[password_hash, rp_token]",
    "values(@)",
    "to_string(@)",
    "join(',', keys(@))",
    "@.password_hash",
    '"password_hash"',
    "*.api_key | [0]",
]


@pytest.mark.parametrize("source", ["woocommerce", "custom", "magento", "shopify"])
@pytest.mark.parametrize("path", SECRET_PATHS)
def test_a_secret_cannot_be_mapped_even_by_a_path(make_shop: MakeShop, source: str, path: str) -> None:
    shop = make_shop({"attributes": {"THING": "text"}}, mapping={"email": "email", path: "THING"})
    body = {**WOOCOMMERCE, "meta_data": []}
    sent(shop, source, "customer_updated", body)
    told = str([call.body for call in shop.sandbox.calls])
    assert EMAIL in told
    assert "kept-away" not in told
    assert "password" not in told


PHONES = [
    ("2025550100", "US", "12025550100"),
    ("(202) 555-0100", "US", "12025550100"),
    ("020 7946 0958", "GB", "442079460958"),
    ("+44 20 7946 0958", None, "442079460958"),
    ("0044 20 7946 0958", None, "442079460958"),
    ("+44 20 7946 0958", "US", "442079460958"),
]

NO_PHONES = [
    ("not-a-number", "US", "is not a phone number"),
    ("not-a-number", None, "is not a phone number"),
    ("123", "US", "is not a phone number of its country"),
    ("2025550100", None, "neither the payload nor default_country says which nation's"),
]


def phoned(
    make_shop: MakeShop, phone: Any, country: str | None, default: str | None
) -> tuple[Shop, dict[str, Any]]:
    shop = make_shop(options={"default_country": default} if default else {})
    body = {
        "id": 58,
        "email": EMAIL,
        "first_name": "Mira",
        "billing": {"phone": phone, **({"country": country} if country else {})},
    }
    return shop, sent(shop, "woocommerce", "customer.created", body)


@pytest.mark.parametrize("is_default", [True, False], ids=["default-country", "of-the-address"])
@pytest.mark.parametrize(("phone", "country", "expected"), PHONES)
def test_a_phone_is_placed_by_its_address_or_by_the_default_country(
    make_shop: MakeShop, phone: str, country: str | None, expected: str, is_default: bool
) -> None:
    place = (None, country) if is_default else (country, None)
    shop, event = phoned(make_shop, phone, *place)
    assert shop.contact(EMAIL)["attributes"] == {"FIRSTNAME": "Mira", "SMS": expected}
    assert event["last_error"] is None


def test_the_country_of_the_address_comes_before_the_default_one(make_shop: MakeShop) -> None:
    shop, _ = phoned(make_shop, "020 7946 0958", "GB", "US")
    assert shop.contact(EMAIL)["attributes"]["SMS"] == "442079460958"


@pytest.mark.parametrize(("phone", "country", "reason"), NO_PHONES)
def test_a_phone_that_is_none_is_left_out_and_the_rest_is_synced(
    make_shop: MakeShop, phone: str, country: str | None, reason: str
) -> None:
    shop, event = phoned(make_shop, phone, country, None)
    assert shop.contact(EMAIL)["attributes"] == {"FIRSTNAME": "Mira"}
    assert event["last_error"].startswith("SMS left out: phone ")
    assert reason in event["last_error"]
    assert phone not in event["last_error"]
    [warning] = shop.status()["warnings"]
    assert warning["warning"] == event["last_error"]


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_no_phone_is_no_fault(make_shop: MakeShop, blank: Any) -> None:
    shop, event = phoned(make_shop, blank, "US", None)
    assert shop.contact(EMAIL)["attributes"] == {"FIRSTNAME": "Mira"}
    assert event["last_error"] is None
