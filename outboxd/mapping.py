"""Mapping: a customer's canonical fields become Brevo's attributes.

Pure, and an allow-list: a field without a rule never leaves. Consent and the address are no attributes;
they are read from their canonical names whatever the rules say.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from outboxd.event import Event, Reading, Stamp, Statement

DEFAULT = {"email": "email", "firstName": "FIRSTNAME", "lastName": "LASTNAME", "phone": "SMS"}
"""What is sent where the configuration has no `field_mapping`."""

SKEW = timedelta(days=1)
"""How far a shop's clock may run ahead before its times are not believed."""


def canonical(name: str) -> str:
    """The camelCase form of a field's name: `first_name` and `firstName` are one field."""
    return re.sub(r"(?<=[a-zA-Z0-9])_+([a-zA-Z0-9])", lambda match: match.group(1).upper(), name)


def statement(event: Event, reading: Reading, rules: Mapping[str, str]) -> Statement:
    """What `event` says, by `rules` {canonical name: attribute}."""
    fields = {canonical(name): value for name, value in reading.fields.items()}
    consent = fields.get("acceptsMarketing")
    return Statement(
        stamp=Stamp(version(event, reading), event.id),
        kind=reading.kind,
        email=reading.email.strip().lower() if reading.email else None,
        attributes={
            attribute: value_of(fields[name])
            for name, attribute in rules.items()
            if name in fields and name != "email"
        },
        accepts_marketing=consent if isinstance(consent, bool) else None,
        names_address=reading.customer_id is not None or reading.former_email is not None,
    )


def version(event: Event, reading: Reading) -> datetime:
    """When the event happened: by its writer, else by its payload, else when it was written.

    A time well after the row itself was written is a broken clock's; it would win for ever.
    """
    stated = event.occurred_at or reading.version_at
    if stated is None or stated > event.created_at + SKEW:
        return event.created_at
    return stated


def value_of(value: Any) -> Any:
    """A field's value as Brevo takes it: cleared is the empty text, a list of words is one text."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(word, str | int | float) for word in value):
        return ", ".join(str(word) for word in value)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return value
