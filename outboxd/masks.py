"""Masks: values as they may be shown where people must not be recognised. Pure.

`shape` is for logs and holds nothing of a value; `masked` is for an operator's eyes and tickets, and leaves
just enough of it to see which value is meant.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"

_DOMAIN = re.compile(r"[\w-]+(\.[\w-]+)+")  # in any other text a name may follow the @


def shape(value: Any) -> str:
    """The kind and the length of a value: `text(4)`, `number`, `flag`, `list(2)`, `object`, `empty`."""
    match value:
        case None | "":
            return "empty"
        case bool():
            return "flag"
        case int() | float():
            return "number"
        case str():
            return f"text({len(value)})"
        case list() | tuple() | frozenset():
            return f"list({len(value)})"
    return "object"


def masked(value: Any) -> Any:
    """The first letter of each text (`J***`, `j***@example.com`), of a number nothing; flags, and what is
    empty, as they are.
    """
    match value:
        case None | "" | bool():
            return value
        case str():
            name, _, domain = value.rpartition("@")
            is_address = name and _DOMAIN.fullmatch(domain)
            return f"{name[0]}{HIDDEN}@{domain}" if is_address else f"{value[0]}{HIDDEN}"
        case list() | tuple() | frozenset():
            return [masked(each) for each in value]
        case Mapping():
            return {name: masked(each) for name, each in value.items()}
    return HIDDEN


def masked_path(path: str) -> str:
    """A path of Brevo's API without the address of the contact that it names."""
    return re.sub(r"(?<=/contacts/)[^/?]*%40[^/?]*", lambda found: _masked_part(found[0]), path)


def _masked_part(part: str) -> str:
    return quote(str(masked(unquote(part))), safe=HIDDEN)


def is_name(key: str) -> bool:
    """Whether a key of a payload looks like a field's name, and not like what somebody is called."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,39}", key) is not None
