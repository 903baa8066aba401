"""A payload as text: what every way in asks of it before the shop is known. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping

from outboxd.errors import EventError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMIT = 256 * 1024
"""Bytes of a payload as UTF-8. A customer of a large shop is a tenth of it."""

DEPTH = 32

IDENTIFIERS = frozenset(
    {
        "id",
        "customer_id",
        "customerid",
        "entity_id",
        "entityid",
        "email",
        "email_address",
        "emailaddress",
        "recipient_email",
        "subscriber_email",
        "parent_id",  # of an address: the customer
        "admin_graphql_api_id",
        "admin_graphql_api_customer_deleted_id",  # all that a merge of two customers says
        "shop_id",  # of the whole shop, as Shopify's shop/redact is
        "webhook_id",  # WooCommerce's ping
    }
)
"""Keys, in small letters, by which some shop says whose event it is, or that it is nobody's."""


def parse(text: str) -> Mapping[str, Any]:
    """The payload's JSON object. Raises EventError; its text names no value of the payload."""
    if len(text) > LIMIT or len(text.encode("utf-8", "surrogatepass")) > LIMIT:
        raise EventError(f"the payload is larger than {LIMIT // 1024} KiB", hint="send the customer alone")
    try:
        data = json.loads(text)
    except RecursionError:
        raise EventError("the payload is nested too deeply") from None
    except json.JSONDecodeError as error:
        if text.startswith("\\x", error.pos):  # no escape of JSON's, but how bytes that are no UTF-8 are read
            raise EventError("the payload is not JSON in UTF-8", hint="write it as UTF-8 text") from None
        place = f"{error.msg}, line {error.lineno} column {error.colno}"
        raise EventError(f"the payload is not JSON ({place})") from None
    except ValueError:
        raise EventError("the payload is not JSON (a number is too long)") from None
    if not isinstance(data, dict):
        raise EventError("the payload is not a JSON object", hint='write {"id": …, "email": …, …}')
    return data


def check(data: object) -> Mapping[str, Any]:
    """`data` if some shop could mean a customer by it. Raises EventError."""
    if not isinstance(data, dict):
        raise EventError("the payload is not a JSON object", hint='write {"id": …, "email": …, …}')
    if not _names_somebody(data, DEPTH):
        raise EventError(
            "the payload has neither a customer id nor an address",
            hint='add "id" or "email"',
        )
    return data


def _names_somebody(data: object, depth: int) -> bool:
    if depth == 0:
        return False
    if isinstance(data, dict):
        for key, value in data.items():
            if isinstance(value, (dict, list)):
                if _names_somebody(value, depth - 1):
                    return True
            elif str(key).lower() in IDENTIFIERS and value not in (None, ""):
                return True
        return False
    return isinstance(data, list) and any(_names_somebody(item, depth - 1) for item in data)
