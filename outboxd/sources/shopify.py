"""Shopify: customer and order webhooks of any API version.

Every key but the id may be missing: newer versions dropped consent, tags and totals, and a subscription
can drop the rest. What is not stated stays absent.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

from outboxd.clock import to_text
from outboxd.event import Kind, Reading
from outboxd.sources import envelope, words
from outboxd.sources.envelope import Letter, open_letter
from outboxd.sources.specification import complete, nothing
from outboxd.sources.words import Fields, Record

KINDS = {
    **envelope.KINDS,
    "customers/create": Kind.CREATED,
    "customers/update": Kind.UPDATED,
    "customers/enable": Kind.UPDATED,
    "customers/disable": Kind.UPDATED,
    "customers/delete": Kind.DELETED,
    "customers/redact": Kind.REDACTED,
    "customers/data_request": Kind.NOTHING,
    "customers/merge": Kind.DELETED,
    "customers/purchasing_summary": Kind.UPDATED,
    "customers_email_marketing_consent/update": Kind.UPDATED,
    "customers_marketing_consent/update": Kind.UPDATED,
    "customer/tags_added": Kind.UPDATED,
    "customer/tags_removed": Kind.UPDATED,
    "orders/create": Kind.UPDATED,
    "orders/updated": Kind.UPDATED,
    "shop/redact": Kind.NOTHING,
}

_NOTES = {
    "customers/data_request": "Shopify asks what is kept of a customer: a person must answer that",
    "shop/redact": "Shopify asks for the whole shop to be forgotten: a person must decide that",
}

_DELTAS = {"customer/tags_added": "tagsAdded", "customer/tags_removed": "tagsRemoved"}

_STATES = {"subscribed": True, "unsubscribed": False, "redacted": False}  # every other one means: unknown

# A false `accepts_marketing` said "never asked" as often as "no", and `tags` can be a mere difference.
_OWN_MEANING = frozenset({"accepts_marketing", "tags"})

_MERGED = frozenset({"completed", "succeeded", "success"})


def read(topic: str, payload: Record) -> Reading:
    """Understand one Shopify event."""
    letter = open_letter(topic, payload, KINDS)
    if letter.kind is Kind.NOTHING:
        return nothing(_NOTES[letter.topic])
    if letter.topic == "customers/merge":
        return _merge(letter)
    if letter.topic in ("orders/create", "orders/updated"):
        return _order(letter)
    delta = _DELTAS.get(letter.topic)
    fields = words.stated(delta, letter.data, "tags", words.tags) if delta else _fields(letter.data)
    return complete(
        letter,
        customer_id=_customer_id(letter.data),
        email=_email(letter.data),
        fields=fields,
        version_at=_version(letter.data, fields),
        platform_keys=_OWN_MEANING,
    )


def _customer_id(data: Record) -> str | None:
    return words.first_identifier(data, "id", "customer_id", "customerId", "admin_graphql_api_id")


def _email(data: Record) -> str | None:
    return words.email(data.get("email")) or words.email(data.get("email_address"))


def _fields(data: Record) -> Fields:
    address = words.record(data.get("default_address"))
    money = words.record(data.get("amountSpent"))
    return {
        **words.said("firstName", (data, "first_name"), (address, "first_name")),
        **words.said("lastName", (data, "last_name"), (address, "last_name")),
        **_phone(data, address),
        **words.known("country", words.country(address.get("country_code"))),
        **words.known("acceptsMarketing", _accepts_marketing(data)),
        **words.known("acceptsSms", _state(data.get("sms_marketing_consent"))),
        **words.stated("createdAt", data, "created_at", _time),
        **words.stated("totalOrders", data, "orders_count", words.number),
        **words.stated("totalOrders", data, "numberOfOrders", words.number),
        **words.stated("totalSpent", data, "total_spent", words.number),
        **words.stated("totalSpent", money, "amount", words.number),
        **words.stated("tags", data, "tags", words.tags),
    }


def _phone(data: Record, address: Record) -> Fields:
    phone = words.said("phone", (data, "phone"), (address, "phone"))
    if phone == {"phone": None} and "default_address" not in data and "addresses" not in data:
        return {}  # only a part of the customer: the phone that is known may be an address's
    return phone


def _accepts_marketing(data: Record) -> bool | None:
    consent = words.record(data.get("email_marketing_consent"))
    if words.text(consent.get("state")):
        return _state(consent)
    return True if data.get("accepts_marketing") is True else None


def _state(consent: Any) -> bool | None:
    return _STATES.get((words.text(words.record(consent).get("state")) or "").lower())


def _time(value: Any) -> str | None:
    at = words.instant(value)
    return to_text(at) if at else None


def _version(data: Record, fields: Fields) -> datetime | None:
    stated = words.first_instant(data, "updated_at", "occurredAt")
    if stated or not fields.get("acceptsMarketing"):
        return stated
    # An event of consent alone has no time but this one. An opt-in counts from when it was given, so that
    # a late copy of it cannot undo an opt-out; an opt-out must never look older than it is.
    return words.first_instant(words.record(data.get("email_marketing_consent")), "consent_updated_at")


def _merge(letter: Letter) -> Reading:
    """The customer who was merged into another one is gone; the other one has events of its own."""
    if (words.text(letter.data.get("status")) or "").lower() not in _MERGED:
        return nothing("Shopify did not complete this merge of two customers: both are as they were")
    gone = words.first_identifier(letter.data, "admin_graphql_api_customer_deleted_id")
    return complete(letter, customer_id=gone)


def _order(letter: Letter) -> Reading:
    order = letter.data
    customer = words.record(order.get("customer"))
    customer_id = _customer_id(customer)
    email = _email(customer) or _email(order) or words.email(order.get("contact_email"))
    if customer_id is None and email is None:
        return nothing("this order was sold to nobody that Shopify knows")
    fields = _fields(customer) if customer else _guest(order)
    # Later events of the order repeat what was ticked at the checkout, also after an opt-out.
    if letter.topic == "orders/create" and order.get("buyer_accepts_marketing") is True:
        fields.setdefault("acceptsMarketing", True)
    return complete(
        replace(letter, data=customer, is_ours=False),
        # No other event will ever make a guest's contact anew, so a new order may; what becomes of an old
        # one later, when it is sent or paid, brings nobody back.
        kind=Kind.CREATED if customer_id is None and letter.topic == "orders/create" else Kind.UPDATED,
        customer_id=customer_id,
        email=email,
        fields=fields,
        version_at=words.first_instant(order, "updated_at"),
    )


def _guest(order: Record) -> Fields:
    billing, shipping = (
        words.record(order.get("billing_address")),
        words.record(order.get("shipping_address")),
    )
    return {
        **words.said("firstName", (billing, "first_name"), (shipping, "first_name")),
        **words.said("lastName", (billing, "last_name"), (shipping, "last_name")),
        **words.phone_in((billing, shipping), "country_code"),
        **words.known("phone", words.text(order.get("phone"))),
    }
