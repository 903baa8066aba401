"""What Brevo takes as an address, a telephone number, an attribute: one value at a time, without state.

Two ways of saying no, and telling them apart is the point of this room: a bad address or number refuses
the whole request, while an attribute of the wrong type is dropped without a word.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Any

from outboxd.brevo.sandbox.messages import invalid, number
from outboxd.errors import ConfigError

TYPES = frozenset({"text", "float", "boolean", "date", "category", "multiple-choice", "id", "user"})

Value = str | int | float | bool | list[str]

PHONES = frozenset({"SMS", "WHATSAPP", "LANDLINE_NUMBER"})

_ADDRESS = re.compile(r"[^\s@,;<>\"]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\.[A-Za-z]{2,}")
_PHONE = re.compile(r"(?:\+|00)?([1-9][0-9]{6,14})", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute that exists in the account.

    `type` is one of TYPES; None marks a calculated one, which takes no values. `options` are the labels of a
    multiple choice or of a category, whose values are numbered from 1.
    """

    name: str
    type: str | None = "text"
    category: str = "normal"
    options: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """The attribute as GET /contacts/attributes lists it."""
        shown: dict[str, Any] = {"name": self.name, "category": self.category}
        if self.type == "category":
            labels = enumerate(self.options, start=1)
            return shown | {
                "type": "text",
                "enumeration": [{"value": n, "label": label} for n, label in labels],
            }
        if self.type == "multiple-choice":
            return shown | {"type": self.type, "multiCategoryOptions": list(self.options)}
        return shown | ({"type": self.type} if self.type else {"calculatedValue": "COUNT[…]"})


def as_attribute(name: str, given: str | Attribute) -> Attribute:
    """An attribute given as such, or by the name of its type; raises ConfigError."""
    if isinstance(given, Attribute):
        return given
    if given not in (simple := TYPES - {"category", "multiple-choice"}):
        raise ConfigError(
            [f"attribute {name}: {given!r} is no type that can stand alone"],
            hint=f"use {', '.join(sorted(simple))}; a category or a multiple-choice is made in Python alone",
        )
    return Attribute(name, given)


def address(text: str) -> str:
    """The address as Brevo stores it, in lower case; refuses what is none."""
    if len(text) > 254 or not _ADDRESS.fullmatch(text):
        raise invalid("email is not valid in params")
    return text.lower()


def phone(text: str) -> str:
    """`+CC…`, `00CC…` or `CC…` as `CC…`; refuses national numbers, letters, too few or too many digits."""
    match = _PHONE.fullmatch(text)
    if match is None:
        raise invalid("Invalid phone number")
    return match[1]


def accept(attribute: Attribute, value: object) -> Value | None:
    """The value as it will be stored, `""` for "clear it", or None for "drop it silently".

    Raises Refusal for a telephone number that is none: that one rejects the whole contact.
    """
    if attribute.type is None:
        return None
    if attribute.name in PHONES:
        return phone(value) if isinstance(value, str) and value else _text(value)
    if attribute.type == "category":
        return _category(attribute, value)
    if attribute.type == "multiple-choice":
        return _choices(attribute, value)
    return _BY_TYPE.get(attribute.type, _text)(value)


def from_cell(attribute: Attribute, cell: str) -> object:
    """A cell of an imported CSV file as the JSON value it stands for."""
    if attribute.type == "float":
        try:
            return float(cell)
        except ValueError:
            return cell
    return [option.strip() for option in cell.split(",")] if attribute.type == "multiple-choice" else cell


def _text(value: object) -> Value | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> Value | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _boolean(value: object) -> Value | None:
    return value if isinstance(value, bool) else None


def _date(value: object) -> Value | None:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return None
    try:
        date.fromisoformat(value)
    except ValueError:
        return None
    return value


def _category(attribute: Attribute, value: object) -> Value | None:
    """An option by its label or by its number, counted from 1; stored as the label."""
    if isinstance(value, str) and value in attribute.options:
        return value
    place = number(value) if isinstance(value, str) else value
    if isinstance(place, int) and not isinstance(place, bool) and 1 <= place <= len(attribute.options):
        return attribute.options[place - 1]
    return None


def _choices(attribute: Attribute, value: object) -> Value | None:
    if isinstance(value, list) and all(option in attribute.options for option in value):
        return list(value)
    return None


_BY_TYPE = MappingProxyType({"float": _number, "boolean": _boolean, "date": _date})

STANDARD_ATTRIBUTES: Mapping[str, Attribute] = MappingProxyType(
    {
        attribute.name: attribute
        for attribute in (
            Attribute("LASTNAME"),
            Attribute("FIRSTNAME"),
            Attribute("SMS"),
            Attribute("WHATSAPP"),
            Attribute("LANDLINE_NUMBER"),
            Attribute("EXT_ID"),
            Attribute("JOB_TITLE"),
            Attribute("OPT_IN", "boolean"),
            Attribute("DOUBLE_OPT-IN", "category", "category", ("Yes", "No")),
            Attribute("BLACKLIST", None, "global"),
        )
    }
)
