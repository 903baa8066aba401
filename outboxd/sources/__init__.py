"""Presets: what a shop's payload says, one pure module a platform.

A preset turns an event's name and payload into a Reading and knows nothing of what follows. It reads its
platform's shapes and, whatever the platform, those of the specification.
"""

from collections.abc import Mapping
from typing import Any

from outboxd.errors import EventError
from outboxd.event import Reading
from outboxd.rules import Options
from outboxd.sources import custom, magento, shopify, woocommerce
from outboxd.sources.envelope import unwrapped
from outboxd.sources.specification import without_secrets
from outboxd.sources.woocommerce import DEFAULTS
from outboxd.topics import PRESETS, REDACTED, is_source

__all__ = ["DEFAULTS", "PRESETS", "Options", "document", "read"]


def document(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """The customer in `payload` as the shop sent it, out of its envelope and without secrets."""
    found = without_secrets(unwrapped(payload))
    return found if isinstance(found, Mapping) else {}


def read(source: str, topic: str, payload: Mapping[str, Any], options: Options = DEFAULTS) -> Reading:
    """Understand one event of `source`, a preset's name or, for one shop of several, `preset:shop`.

    Raises EventError for what can never be read; it never repeats anything of the payload.
    """
    preset = source.partition(":")[0]
    if topic == REDACTED and preset in PRESETS:
        preset = "custom"  # our own event, in our own words, whatever the shop's are
    match preset if is_source(source) else None:
        case "shopify":
            return shopify.read(topic, payload)
        case "woocommerce":
            return woocommerce.read(topic, payload, options)
        case "magento":
            return magento.read(topic, payload)
        case "custom":
            return custom.read(topic, payload)
    raise EventError(
        "the event's source is none of the platforms that outboxd reads",
        hint=f"use {', '.join(PRESETS)}; a shop's own name may follow, as in shopify:second-shop",
    )
