"""Mapping: a customer's fields become Brevo's attributes.

Pure, and an allow-list: a field without a rule never leaves. Consent and the address are no attributes;
they are read from their canonical names whatever the rules say.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from outboxd.errors import EventError
from outboxd.event import PHONES, Attribute, Event, Kind, Labels, Reading, Stamp, Statement
from outboxd.rules import CANONICAL, canonical, is_path, path
from outboxd.sources import words
from outboxd.values import Misfit, fit, fits_in_part, phone, plain

SKEW = timedelta(days=1)
"""How far a shop's clock may run ahead before its times are not believed."""

HEARD = frozenset({"acceptsMarketing", "country", "tagsAdded", "tagsRemoved"})
"""Fields that are heeded though they need no rule of their own."""

TYPES = {
    "acceptsMarketing": "boolean",
    "acceptsSms": "boolean",
    "totalOrders": "float",
    "totalSpent": "float",
    "createdAt": "date",
    "lastOrderDate": "date",
}
"""The types of canonical fields, for attributes that are yet to be made; every other one is text."""

_PLAIN = re.compile(
    r"[a-z0-9_+-]+(\.[a-z0-9_+-]+)*@"
    r"([a-z0-9]+(-[a-z0-9]+)*\.)+([a-z]{2}|com|net|org)"  # others may be reserved: .test, .local, .onion
)


def type_of(name: str) -> str:
    """The type that an attribute for this field should have."""
    return TYPES.get(canonical(name), "text")


def needs_document(rules: Mapping[str, str]) -> bool:
    """Whether some rule asks for more than the canonical fields that every source reads."""
    return any(canonical(name) not in CANONICAL for name in rules if name != "email")


def statement(
    event: Event,
    reading: Reading,
    rules: Mapping[str, str],
    *,
    document: Mapping[str, Any] | None = None,
    catalogue: Mapping[str, Attribute] | None = None,
    region: str | None = None,
) -> Statement:
    """What `event` says, by `rules` {field or path: attribute}; raises EventError for a bad address.

    `document` is the customer as the shop sent it, for rules that are paths. `catalogue` is what the
    account has (None: unknown, values go as they are); what does not fit there is left out and told.
    `region` places phone numbers that have no country of their own.
    """
    fields = {canonical(name): value for name, value in reading.fields.items()}
    region = fields.get("country") or region
    attributes: dict[str, Any] = {}
    left_out: list[str] = []
    for name, attribute in rules.items():
        if name in ("email", "tags"):
            continue
        found = _found(name, fields, document or {})
        if found is _ABSENT:
            continue
        value = found if isinstance(found, Misfit) else _fitted(found, attribute, catalogue, region)
        if isinstance(value, Misfit):
            left_out.append(f"{attribute} left out: {name} {value.reason}")
        else:
            attributes[attribute] = value
            left_out += _in_part(name, found, attribute, catalogue)
    labels = _labels(fields, rules["tags"], catalogue) if "tags" in rules else None
    if isinstance(labels, Misfit):
        left_out.append(f"{rules['tags']} left out: tags {labels.reason}")
    elif labels is not None:
        left_out += _in_part("tags", fields.get("tags", fields.get("tagsAdded")), rules["tags"], catalogue)
    consent = fields.get("acceptsMarketing")
    return Statement(
        stamp=Stamp(version(event, reading), event.id),
        kind=reading.kind,
        email=address(reading),
        attributes=attributes,
        accepts_marketing=consent if isinstance(consent, bool) else None,
        names_address=reading.customer_id is not None or reading.former_email is not None,
        labels=labels if isinstance(labels, Labels) else None,
        left_out=tuple(left_out),
        unmapped=_unmapped(fields, rules),
    )


def _unmapped(fields: Mapping[str, Any], rules: Mapping[str, str]) -> tuple[str, ...]:
    """The fields that no rule names, be it within a path; consent is no attribute, and always heard."""
    return tuple(sorted(fields.keys() - _asked(tuple(rules)) - HEARD))


@lru_cache(maxsize=16)
def _asked(names: tuple[str, ...]) -> frozenset[str]:
    """The fields that rules ask for."""
    return frozenset(canonical(word) for name in names for word in re.findall(r"[A-Za-z_]\w*", name))


_ABSENT = object()


def _found(name: str, fields: Mapping[str, Any], document: Mapping[str, Any]) -> Any:
    """The value a rule asks for: a field by its name, or whatever its path finds in the payload."""
    if not is_path(name):
        return fields.get(canonical(name), document.get(name, _ABSENT))
    from jmespath.exceptions import JMESPathError

    try:
        found = path(name).search(document)
    except JMESPathError:
        return Misfit("cannot be applied to this payload")
    return _ABSENT if found is None else found


def _labels(
    fields: Mapping[str, Any], attribute: str, catalogue: Mapping[str, Attribute] | None
) -> Labels | Misfit | None:
    """The tags, or those that came and went, as `attribute` takes them; None where none are told of."""
    told = [fields.get(name) for name in ("tags", "tagsAdded", "tagsRemoved")]
    is_whole = "tags" in fields
    if not is_whole and not any(isinstance(labels, list) for labels in told):
        return None
    sets: list[frozenset[str]] = []
    is_list = False
    for labels in told:
        value = _fitted(labels, attribute, catalogue, None) if labels else ""
        if isinstance(value, Misfit):
            return value
        is_list = is_list or isinstance(value, list)
        sets.append(frozenset(words.tags(value) or ()))
    whole, added, removed = sets
    return Labels(attribute, is_whole, whole | added, removed, is_list)


def _in_part(
    name: str, value: Any, attribute: str, catalogue: Mapping[str, Attribute] | None
) -> Iterator[str]:
    """What is to be told of a value of which only a part fits; nothing, if all of it does."""
    if catalogue is not None and attribute in catalogue and fits_in_part(value, catalogue[attribute]):
        yield f"{attribute} left out in part: {name} names some that are none of the attribute's options"


def _fitted(value: Any, attribute: str, catalogue: Mapping[str, Attribute] | None, region: str | None) -> Any:
    if catalogue is None:
        return phone(value, region) if attribute in PHONES else plain(value)
    if attribute not in catalogue:
        return Misfit(f"has nowhere to go: Brevo has no attribute {attribute}; see outboxd attributes")
    return fit(value, catalogue[attribute], region)


def address(reading: Reading) -> str | None:
    """The customer's address in small letters. Raises EventError for what is none, unless somebody leaves."""
    if reading.email is None:
        return None
    email = reading.email.strip().lower()
    if is_plain(email) or _is_valid(email):
        return email
    if reading.kind in (Kind.DELETED, Kind.REDACTED):
        return None
    raise EventError("the email address is not valid", hint="correct it in the shop")


def is_plain(email: str) -> bool:
    """Whether nobody could object to it. Most addresses are plain, and asking takes 50 times as long."""
    return len(email) <= 64 and _PLAIN.fullmatch(email) is not None


@lru_cache(maxsize=1024)
def _is_valid(email: str) -> bool:
    from email_validator import EmailNotValidError, validate_email

    try:
        validate_email(email, check_deliverability=False)
    except EmailNotValidError:
        return False
    return True


def version(event: Event, reading: Reading) -> datetime:
    """When the event happened: by its writer, else by its payload, else when it was written.

    A time well after the row itself was written is a broken clock's; it would win for ever.
    """
    stated = event.occurred_at or reading.version_at
    if stated is None or stated - event.created_at > SKEW:
        return event.created_at
    return stated
