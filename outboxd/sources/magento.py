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
from outboxd.sources.envelope import open_letter
from outboxd.sources.specification import complete
from outboxd.sources.words import Fields, Record

_SAVES = frozenset({"customer_save_commit_after", "customer/api/customer_repository/save"})

KINDS = {
    **envelope.KINDS,
    **dict.fromkeys(_SAVES, Kind.UPDATED),
    "customer_delete_commit_after": Kind.DELETED,
    "customer/api/customer_repository/delete": Kind.DELETED,
}


def read(topic: str, payload: Record) -> Reading:
    """Understand one Magento event."""
    letter = open_letter(topic, payload, KINDS)
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
        **words.said("phone", (address, "telephone")),
        **words.known("country", words.country(address.get("country_id"))),
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
