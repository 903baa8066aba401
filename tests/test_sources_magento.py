"""Magento's events beside those of the customer: the newsletter, and single addresses."""

from typing import Any

import pytest

from outboxd import sources
from outboxd.event import Kind, Reading
from tests.shop import MakeShop

NEWSLETTER = "com.adobe.commerce.observer.newsletter_subscriber_save_commit_after"
ADDRESS = "observer.customer_address_save_commit_after"


def subscriber(**said: Any) -> dict[str, Any]:
    value = {
        "subscriber_id": "31",
        "store_id": "1",
        "change_status_at": "2026-11-23 09:00:00",
        "customer_id": "7",
        "subscriber_email": "mara@example.com",
        "subscriber_status": "1",
        **said,
    }
    return {"specversion": "1.0", "id": "e-1", "time": "2026-11-23T09:00:01Z", "data": {"value": value}}


def read(topic: str, payload: dict[str, Any]) -> Reading:
    return sources.read("magento", topic, payload)


@pytest.mark.parametrize(
    ("status", "consent"),
    [("1", True), (1, True), ("3", False), (3, False), ("2", None), ("4", None), (None, None)],
)
def test_the_newsletter_tells_of_consent_in_three_states(status: object, consent: bool | None) -> None:
    told = read(NEWSLETTER, subscriber(subscriber_status=status))
    assert (told.kind, told.customer_id, told.email) == (Kind.UPDATED, "7", "mara@example.com")
    assert told.fields.get("acceptsMarketing") is consent
    assert told.version_at is not None
    assert told.version_at.isoformat() == "2026-11-23T09:00:00+00:00"


@pytest.mark.parametrize("customer_id", [0, "0", None])
def test_a_guest_who_subscribes_is_known_by_the_address(customer_id: object) -> None:
    told = read(NEWSLETTER, subscriber(customer_id=customer_id))
    assert (told.customer_id, told.email) == (None, "mara@example.com")


def test_the_phone_of_the_billing_address_is_the_customers() -> None:
    value = {"entity_id": "12", "parent_id": "7", "telephone": "512-555-1111", "country_id": "US"}
    told = read(ADDRESS, {"value": {**value, "is_default_billing": True, "firstname": "Other"}})
    assert told.customer_id == "7"
    assert told.fields == {"phone": "512-555-1111", "country": "US"}
    assert read(ADDRESS, {"value": value}).kind is Kind.NOTHING


def test_unsubscribing_from_the_newsletter_reaches_the_contact(make_shop: MakeShop) -> None:
    shop = make_shop()
    body = {"id": 7, "email": "mara@example.com", "firstname": "Mara", "updated_at": "2026-11-23 08:00:00"}
    shop.insert("customer_save_commit_after", {"value": body}, "magento")
    shop.drain()
    for status, hour, is_out in (("3", "09", True), ("1", "10", False)):
        told = subscriber(subscriber_status=status, change_status_at=f"2026-11-23 {hour}:00:00")
        shop.insert(NEWSLETTER, told, "magento")
        shop.drain()
        assert shop.contact("mara@example.com")["emailBlacklisted"] is is_out
    assert shop.contact("mara@example.com")["attributes"]["FIRSTNAME"] == "Mara"
