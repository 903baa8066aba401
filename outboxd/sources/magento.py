"""Magento and Adobe Commerce: REST customers, observers' models, and both inside CloudEvents.

One event stands for created and updated alike, times are UTC without saying so, and the model carries
secrets: password hashes and reset tokens, which this room never looks at.
"""

from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import Any

from outboxd.clock import to_text
from outboxd.event import Kind, Reading
from outboxd.sources import envelope, words
from outboxd.sources.envelope import Letter, open_letter
from outboxd.sources.specification import complete, nothing
from outboxd.sources.words import Fields, Record

_SAVES = frozenset({"customer_save_commit_after", "customer/api/customer_repository/save"})

_ADDRESS = "customer_address_save_commit_after"
_NEWSLETTER = "newsletter_subscriber_save_commit_after"

KINDS = {
    **envelope.KINDS,
    _ADDRESS: Kind.UPDATED,
    _NEWSLETTER: Kind.UPDATED,
    **dict.fromkeys(_SAVES, Kind.UPDATED),
    "customer_delete_commit_after": Kind.DELETED,
    "customer/api/customer_repository/delete": Kind.DELETED,
}


_SUBSCRIBED = {"1": True, "3": False}  # 2 and 4 wait to be confirmed: nobody knows yet


def read(topic: str, payload: Record) -> Reading:
    """Understand one Magento event."""
    letter = open_letter(topic, payload, KINDS)
    if letter.topic == _NEWSLETTER:
        return _newsletter(letter)
    if letter.topic == _ADDRESS:
        return _address(letter)
    data = letter.data
    created_at, updated_at = _instant(data.get("created_at")), _instant(data.get("updated_at"))
    if letter.topic in _SAVES and created_at and created_at == updated_at:
        letter = replace(letter, kind=Kind.CREATED)
    return complete(
        letter,
        customer_id=words.first_identifier(data, "id", "entity_id"),
        former_email=words.email(letter.envelope.get("orig_customer_email")),
        fields=_fields(data),
        version_at=updated_at,
    )


def _newsletter(letter: Letter) -> Reading:
    """Somebody subscribed or unsubscribed: a customer, or (customer 0) a guest with an address alone."""
    data = letter.data
    customer_id = words.identifier(data.get("customer_id"))
    choice = _SUBSCRIBED.get(words.text(data.get("subscriber_status")) or "")
    return complete(
        replace(letter, is_ours=False),
        customer_id=customer_id if customer_id != "0" else None,
        email=words.email(data.get("subscriber_email")),
        fields=words.known("acceptsMarketing", choice),
        version_at=_instant(data.get("change_status_at")),
    )


def _address(letter: Letter) -> Reading:
    """A customer's address: its phone counts if it is the one for billing."""
    data = letter.data
    flags = (data.get(key) for key in ("is_default_billing", "default_billing"))
    if not any(words.flag(each) for each in flags):
        return nothing("an address that is not the customer's default one for billing")
    return complete(
        replace(letter, is_ours=False),
        customer_id=words.first_identifier(data, "parent_id", "customer_id"),
        fields=_phone(data),
        version_at=_instant(data.get("updated_at")),
    )


def _phone(address: Record) -> Fields:
    return {
        **words.said("phone", (address, "telephone")),
        **words.known("country", words.country(address.get("country_id"))),
    }


def _instant(value: Any) -> datetime | None:
    return words.instant(value, naive_is_utc=True)


def _time(value: Any) -> str | None:
    at = _instant(value)
    return to_text(at) if at else None


def _fields(data: Record) -> Fields:
    address = _billing(data)
    attributes = words.record(data.get("extension_attributes"))
    return {
        **words.said("firstName", (data, "firstname")),
        **words.said("lastName", (data, "lastname")),
        **_phone(address),
        **words.known("acceptsMarketing", words.flag(attributes.get("is_subscribed"))),
        **words.stated("createdAt", data, "created_at", _time),
        **words.stated("customerTier", data, "group_id", words.text),
    }


def _billing(data: Record) -> Record:
    """The default address for billing: as the customer says, else as it says itself, else the first."""
    addresses = list(words.records(data.get("addresses")))
    default = words.identifier(data.get("default_billing"))
    named = (a for a in addresses if default and words.first_identifier(a, "id", "entity_id") == default)
    flagged = (a for a in addresses if words.flag(a.get("default_billing")))
    return next(chain(named, flagged, addresses), {})
