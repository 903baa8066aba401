"""Presets: what a shop's payload says, one pure module a platform.

A preset turns an event's name and payload into a Reading and knows nothing of what follows. It reads its
platform's shapes and, whatever the platform, those of the specification.
"""

from collections.abc import Mapping
from typing import Any

from outboxd.errors import EventError
from outboxd.event import Reading
from outboxd.sources import custom, magento, shopify, woocommerce
from outboxd.sources.woocommerce import DEFAULTS, Options

__all__ = ["PRESETS", "Options", "read"]

PRESETS = ("shopify", "woocommerce", "magento", "custom")


def read(source: str, topic: str, payload: Mapping[str, Any], options: Options = DEFAULTS) -> Reading:
    """Understand one event of `source`, a preset's name or, for one shop of several, `preset:shop`.

    Raises EventError for what can never be read; it never repeats anything of the payload.
    """
    match source.partition(":")[0]:
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
        hint=f"Use {', '.join(PRESETS)}; a shop's own name may follow, as in shopify:second-shop.",
    )
