"""Values: what a shop's value becomes as an attribute of a certain type. Pure.

Brevo drops a value of the wrong type without a word, and a bad phone rejects the whole contact. So each
value either fits, or is left out with a reason that holds nothing of the value.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

from outboxd.event import PHONES, Attribute
from outboxd.sources import words

CLEARED = ""
"""The value that empties a text or a phone; of other types it is not known that Brevo can empty them."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a value is left out, as a clause: "is not a number"."""

    reason: str


def fit(value: Any, attribute: Attribute, region: str | None) -> Any:
    """`value` as `attribute` takes it, or a Misfit. `region` (two letters) places a national phone number."""
    if attribute.type is None:
        return Misfit("is calculated by Brevo and cannot be set")
    if attribute.name in PHONES:
        return phone(value, region)
    if words.is_blank(value):
        return CLEARED if attribute.can_be_emptied else Misfit("cannot be emptied in Brevo")
    if attribute.type == "category":
        return attribute.options.get(
            str(value).strip().casefold(), Misfit("is none of the category's options")
        )
    if attribute.type == "multiple-choice":
        return _choices(value, attribute.options)
    return _FITTERS.get(attribute.type, text)(value)


def plain(value: Any) -> Any:
    """A value for an attribute whose type is unknown: numbers and flags stay what they are."""
    if value is None:
        return CLEARED
    if isinstance(value, bool | int | float):
        return value
    fitted = text(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True) if isinstance(fitted, Misfit) else fitted


def text(value: Any) -> Any:
    """Numbers, flags and lists of words become text."""
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(_is_word(word) for word in value):
        return ", ".join(map(str, value))
    return Misfit("is not a text")


def _is_word(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def phone(value: Any, region: str | None) -> Any:
    """E.164: `+442079460958`. A number with its country code is left to Brevo to judge: new ranges appear."""
    if words.is_blank(value):
        return CLEARED
    written = words.text(value)
    if written is None or len(written) > 40 or not any(map(str.isdigit, written)):
        return Misfit("is not a phone number")
    if written.startswith("00"):
        written = f"+{written[2:]}"
    if region is None and not written.startswith("+"):
        return Misfit(
            "is a national phone number, and neither the payload nor default_country says which nation's"
        )
    return _e164(written, region)


@lru_cache(maxsize=1024)
def is_certain_phone(written: str) -> bool:
    """Whether an E.164 number belongs to a range that is known to be in use."""
    import phonenumbers

    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(written)))
    except phonenumbers.NumberParseException:
        return False


def is_country(region: str) -> bool:
    """Whether these two capitals are a country's, whose numbers are known."""
    import phonenumbers

    return region in phonenumbers.SUPPORTED_REGIONS


@lru_cache(maxsize=1024)
def _e164(written: str, region: str | None) -> Any:
    import phonenumbers

    try:
        number = phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return Misfit("is not a phone number")
    if not written.startswith("+") and not phonenumbers.is_valid_number(number):
        return Misfit("is not a phone number of its country")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _number(value: Any) -> Any:
    found = words.number(value)
    return Misfit("is not a number") if found is None else found


def _boolean(value: Any) -> Any:
    found = words.flag(value)
    return Misfit("is neither true nor false") if found is None else found


def _date(value: Any) -> Any:
    """The day as it is written, whatever the time and the zone beside it."""
    try:
        return date.fromisoformat(str(value).strip()[:10]).isoformat()
    except ValueError:
        return Misfit("is not a date such as 2026-11-23")


def _choices(value: Any, options: Mapping[str, Any]) -> Any:
    chosen = words.tags(value)
    if chosen is None:
        return Misfit("is not a list of options")
    known = [options[label.casefold()] for label in chosen if label.casefold() in options]
    return known if known or not chosen else Misfit("names none of the attribute's options")


def fits_in_part(value: Any, attribute: Attribute) -> bool:
    """Whether `value`, some of which fits, names labels that are no options of the multiple choice."""
    is_choice = attribute.type == "multiple-choice"
    return is_choice and any(label.casefold() not in attribute.options for label in words.tags(value) or ())


_FITTERS: Mapping[str, Callable[[Any], Any]] = {"float": _number, "boolean": _boolean, "date": _date}
