"""The specification's own words for a customer, which every preset reads beside its platform's.

The canonical names of fields, in camelCase or snake_case, and `changes: {field: {old, new}}`. This room
knows no platform.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from outboxd.errors import EventError
from outboxd.event import Kind, Reading
from outboxd.rules import CANONICAL
from outboxd.sources import words
from outboxd.sources.envelope import Letter
from outboxd.sources.words import Fields, Record

_CONSENTS = frozenset({"acceptsMarketing", "acceptsSms"})

_READERS: Mapping[str, Callable[[Any], Any]] = {
    "firstName": words.text,
    "lastName": words.text,
    "phone": words.text,
    "country": words.country,
    "tags": words.tags,
    "tagsAdded": words.tags,
    "tagsRemoved": words.tags,
    **dict.fromkeys(_CONSENTS, words.flag),
}

_SPELLINGS = {re.sub("[A-Z]", lambda capital: "_" + capital[0].lower(), name): name for name in CANONICAL}

# They say who, when and what, but not what the customer is like.
_NO_FIELDS = frozenset(
    {"id", "customerId", "customer_id", "email", "event", "timestamp", "changes"}
    | {"updatedAt", "updated_at", "deletedAt", "deleted_at"}
)

_SECRET = re.compile("passw|passphrase|token|secret|hash|private|apikey|credential|signature")

DEPTH = 8
"""How deep a value may be nested; what lies deeper is left out."""

_PAGES = ("items", "customers")


def complete(
    letter: Letter,
    *,
    customer_id: str | None,
    kind: Kind | None = None,
    email: str | None = None,
    former_email: str | None = None,
    fields: Fields | None = None,
    version_at: datetime | None = None,
    platform_keys: frozenset[str] = frozenset(),
    keeps_all: bool = False,
) -> Reading:
    """What the platform's words say, completed by the specification's where those may be expected.

    `platform_keys` mean to the platform something else than here; `keeps_all` takes fields of every
    name, not the canonical ones only. Raises EventError if nobody is named.
    """
    kind, data = kind or letter.kind, letter.data
    changes = _changes(data) if letter.is_ours else {}
    after = {name: change["new"] for name, change in changes.items()}
    email = words.email(after.get("email")) or email or words.email(data.get("email"))
    former_email = former_email or words.email(changes.get("email", {}).get("old"))
    if customer_id is None and email is None:
        raise _nobody(data)
    if kind in (Kind.DELETED, Kind.REDACTED):
        fields = {}  # nothing is to be kept of somebody who is to go
    elif letter.is_ours:
        before = {key: value for key, value in data.items() if key not in platform_keys}
        fields = _fields(before, keeps_all) | (fields or {}) | _fields(after, keeps_all)
    return Reading(
        kind=kind,
        customer_id=customer_id,
        email=email,
        fields=fields or {},
        version_at=_version(letter, kind, version_at),
        former_email=former_email if _differs(former_email, email) else None,
    )


def _differs(former_email: str | None, email: str | None) -> bool:
    return former_email is not None and (email is None or former_email.lower() != email.lower())


def nothing(note: str) -> Reading:
    """The reading of an event that is understood and asks for nothing."""
    return Reading(Kind.NOTHING, None, None, note=note)


def is_secret(key: str) -> bool:
    """True for the name of something that must not travel, such as `password_hash` or `apiKey`."""
    return _SECRET.search(re.sub("[^a-z]", "", key.lower())) is not None


def _changes(data: Record) -> dict[str, Record]:
    changes = data.get("changes") or {}
    if not isinstance(changes, Mapping) or not all(
        isinstance(change, Mapping) and "new" in change for change in changes.values()
    ):
        raise EventError(
            "the payload's `changes` cannot be read",
            hint='write {"phone": {"old": …, "new": …}}, with "new": null for a field that was cleared',
        )
    return dict(changes)


def _fields(data: Record, keeps_all: bool) -> Fields:
    fields: Fields = {}
    for key, value in data.items():
        name = _SPELLINGS.get(key, key)
        if name != key and name in data:
            continue  # written in both spellings: camelCase is the specification's
        if name in CANONICAL:
            fields |= _canonical(name, value)
        elif keeps_all and key not in _NO_FIELDS and words.is_unicode(key) and not is_secret(key):
            fields |= words.stated(key, data, key, without_secrets)
    return fields


def _canonical(name: str, value: Any) -> Fields:
    if name in _CONSENTS:
        return words.known(name, words.flag(value))
    read = _READERS.get(name, without_secrets)
    if value is None or (read is words.text and words.is_blank(value)):
        return {name: None}
    return words.known(name, read(value))


def without_secrets(value: Any, depth: int = DEPTH) -> Any:
    """A value as sent, without secrets, without what JSON or UTF-8 cannot carry, and not too deep."""
    if isinstance(value, str):
        return value if words.is_unicode(value) else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        members = value.items() if depth else ()
        return {
            key: without_secrets(member, depth - 1)
            for key, member in members
            if words.is_unicode(key) and not is_secret(key)
        }
    if isinstance(value, list):
        return [without_secrets(member, depth - 1) for member in value] if depth else []
    return value


def _version(letter: Letter, kind: Kind, platform: datetime | None) -> datetime | None:
    updated_at = platform or words.first_instant(letter.data, "updatedAt", "updated_at")
    if kind is Kind.DELETED:
        # The last update came before the end: by its time, a late copy of it would outlive the tombstone.
        deleted_at = words.first_instant(letter.data, "deletedAt", "deleted_at")
        return deleted_at or letter.sent_at or updated_at
    return updated_at or letter.sent_at


def _nobody(data: Record) -> EventError:
    if any(isinstance(data.get(key), list) for key in _PAGES):
        return EventError(
            "the payload is a page of search results, not one event",
            hint="import customers in bulk with `outboxd backfill`",
        )
    return EventError(
        "the payload names no customer: it has neither an id nor an email address",
        hint="write the customer's id, email or both into the payload",
    )
