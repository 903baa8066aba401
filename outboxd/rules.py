"""Rules: the words in which an operator says what of a shop goes where. Pure, and small: every command reads
the configuration, and few of them read payloads.
"""

import re
from functools import lru_cache
from typing import Any, NamedTuple

CANONICAL = frozenset(
    {
        "firstName",
        "lastName",
        "phone",
        "country",
        "tags",
        "tagsAdded",
        "tagsRemoved",
        "acceptsMarketing",
        "acceptsSms",
        "createdAt",
        "totalOrders",
        "totalSpent",
        "lastOrderDate",
        "customerTier",
    }
)
"""The fields that every preset reads, whatever its platform calls them."""

DEFAULT = {"email": "email", "firstName": "FIRSTNAME", "lastName": "LASTNAME", "phone": "SMS"}
"""What is sent where the configuration has no `field_mapping`."""


class Options(NamedTuple):
    """What differs between WooCommerce shops: the roles that count, and where a plug-in keeps consent."""

    roles: frozenset[str] = frozenset({"customer", "subscriber"})
    consent_meta_key: str | None = None


_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@lru_cache(maxsize=1024)
def canonical(name: str) -> str:
    """The camelCase form of a field's name: `first_name` and `firstName` are one field."""
    return re.sub(r"(?<=[a-zA-Z0-9])_+([a-zA-Z0-9])", lambda match: match.group(1).upper(), name)


def is_path(name: str) -> bool:
    """Whether a rule's left side is a path into the payload (JMESPath) rather than a field's name."""
    return _FIELD.fullmatch(name) is None


@lru_cache(maxsize=256)
def path(expression: str) -> Any:
    """The compiled JMESPath expression. Raises ValueError for what is none."""
    import jmespath

    return jmespath.compile(expression)
