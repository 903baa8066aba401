"""How single values are read, whichever shop wrote them.

Every reader answers None for what it cannot read and never raises: a payload comes from outside, and one
bad value must not cost the rest of the customer. This room knows no shop and no shape of a payload.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from outboxd.clock import floor

Record = Mapping[str, Any]
Fields = dict[str, Any]

_YES = frozenset({"1", "yes", "true", "on"})
_NO = frozenset({"0", "no", "false", "off"})
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_COUNTRY = re.compile(r"[A-Za-z]{2}")
_EXACT = 2**53  # beyond it a float no longer tells neighbouring integers apart
_LONGEST = 256  # bits: no shop's id is longer, and Python refuses to write out very long integers
_MILLISECONDS = 10**11  # as seconds this is the year 5138, so a greater number counts milliseconds


def text(value: Any) -> str | None:
    """Text without the blanks around it; numbers become text, blank or broken text nothing."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value) if value.bit_length() <= _LONGEST else None
    if isinstance(value, float):
        return str(value) if math.isfinite(value) else None
    if not isinstance(value, str) or not is_unicode(value):
        return None
    return value.strip() or None


def is_unicode(value: str) -> bool:
    """JSON's escapes can spell half a character, and the NUL at which SQLite ends a text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def is_blank(value: Any) -> bool:
    """True for null and for empty text: ways in which a shop says that there is nothing."""
    return value is None or (isinstance(value, str) and not value.strip())


def identifier(value: Any) -> str | None:
    """A customer's id as text: `7`, `"7"` and `gid://shopify/Customer/7` are one id."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT else None
    found = text(value)
    if found and found.startswith("gid://"):
        return found.rpartition("/")[2] or None
    return found


def email(value: Any) -> str | None:
    """An address as it is written; a number is none."""
    return text(value) if isinstance(value, str) else None


def instant(value: Any, *, naive_is_utc: bool = False) -> datetime | None:
    """A time of day on a date, in UTC: ISO 8601, or seconds (or milliseconds) since 1970.

    Without an offset it could be any hour of the day, unless the platform is known to mean UTC.
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if value >= _MILLISECONDS else value
            return floor(datetime.fromtimestamp(seconds, UTC)) if value > 0 else None
        if not isinstance(value, str) or ":" not in value:
            return None
        moment = datetime.fromisoformat(value.strip())
        if moment.tzinfo is None and naive_is_utc:
            moment = moment.replace(tzinfo=UTC)
        return floor(moment) if moment.tzinfo is not None else None
    except (ValueError, OverflowError, OSError):
        return None


def flag(value: Any) -> bool | None:
    """True or False where one of them is said in so many words (`yes`, `0`, `on`), else None."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, int | str):
        return None
    word = (text(value) or "").lower()
    return True if word in _YES else False if word in _NO else None


def number(value: Any) -> int | float | None:
    """A number, also when it is written as text: `"100.00"`."""
    found = text(value)
    if found is None or not _NUMBER.fullmatch(found):
        return None
    return float(found) if "." in found else int(found)


def tags(value: Any) -> list[str] | None:
    """Labels, from a list or from text with commas between them. No labels is an answer, too."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list):
        return None
    return [label for label in map(text, value) if label]


def country(value: Any) -> str | None:
    """A country's two letters in capitals."""
    found = text(value)
    return found.upper() if found and _COUNTRY.fullmatch(found) else None


def record(value: Any) -> Record:
    """An object, or an empty one for anything else: PHP writes its empty objects as `[]`."""
    return value if isinstance(value, Mapping) else {}


def records(value: Any) -> Iterator[Record]:
    """The objects of a list, or of the object into which PHP turns a list with gaps."""
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return (member for member in members if isinstance(member, Mapping))


def said(name: str, *places: tuple[Record, str]) -> Fields:
    """The first text among `places`; None where the first place is there and blank; else no field at all."""
    for place, key in places:
        if (found := text(place.get(key))) is not None:
            return {name: found}
    place, key = places[0]
    return {name: None} if key in place and is_blank(place[key]) else {}


def stated(name: str, place: Record, key: str, read: Callable[[Any], Any]) -> Fields:
    """The field if `place` states it: null stays None, what cannot be read is as good as absent."""
    if key not in place:
        return {}
    return {name: None} if place[key] is None else known(name, read(place[key]))


def known(name: str, value: Any) -> Fields:
    """The field unless its value is unknown."""
    return {} if value is None else {name: value}


def first_instant(place: Record, *keys: str, naive_is_utc: bool = False) -> datetime | None:
    """The first of `place`'s times that can be read."""
    times = (instant(place.get(key), naive_is_utc=naive_is_utc) for key in keys)
    return next((at for at in times if at), None)


def first_identifier(place: Record, *keys: str) -> str | None:
    """The first of `place`'s ids that can be read."""
    return next((found for found in (identifier(place.get(key)) for key in keys) if found), None)


def phone_in(addresses: Sequence[Record], country_key: str) -> Fields:
    """The first phone among `addresses` and that address's country, by which the phone is to be read."""
    chosen = next((address for address in addresses if text(address.get("phone"))), addresses[0])
    return {
        **said("phone", (chosen, "phone")),
        **known("country", country(chosen.get(country_key))),
    }
