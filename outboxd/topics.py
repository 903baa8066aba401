"""The names an event and its source can have: the specification's, and those the platforms send themselves.

Kept apart and tiny, because the intake must know them without loading anything else.
"""

EVENTS = ("customer_created", "customer_updated", "customer_deleted")

REDACTED = "customer_redacted"
"""Erase this customer for good, in Brevo and here; outboxd writes it itself, and any shop may."""

SHOPIFY = (
    "customers/create",
    "customers/update",
    "customers/enable",
    "customers/disable",
    "customers/delete",
    "customers/redact",
    "customers/data_request",
    "customers/merge",
    "customers/purchasing_summary",
    "customers_email_marketing_consent/update",
    "customers_marketing_consent/update",  # about SMS, whatever the name suggests
    "customer/tags_added",
    "customer/tags_removed",
    "orders/create",
    "orders/updated",
    "shop/redact",
)

WOOCOMMERCE = (
    "customer/created",
    "customer/updated",
    "customer/deleted",
    "order/created",
    "order/updated",
)

MAGENTO = (
    "customer_save_commit_after",
    "customer_delete_commit_after",
    "customer_address_save_commit_after",
    "newsletter_subscriber_save_commit_after",
    "customer/api/customer_repository/save",
    "customer/api/customer_repository/delete",
)

_MAGENTO_PREFIXES = ("com.adobe.commerce.", "observer.", "plugin.", "magento.")

PLATFORMS = {"shopify": SHOPIFY, "woocommerce": WOOCOMMERCE, "magento": MAGENTO}

PRESETS = (*PLATFORMS, "custom")
"""The platforms whose payloads are understood."""

KNOWN = frozenset(
    [
        *EVENTS,
        REDACTED,
        *(spelling for name in SHOPIFY + WOOCOMMERCE for spelling in (name, name.replace("/", "."))),
        *(
            vendor + origin + name.replace("/", ".")
            for vendor in ("", "com.adobe.commerce.")
            for name in MAGENTO
            for origin in (("plugin.", "plugin.magento.") if "/" in name else ("", "observer."))
        ),
    ]
)


def is_source(name: str) -> bool:
    """Whether it is a platform's name or, for one shop of several, `platform:shop`."""
    preset, colon, shop = name.partition(":")
    return preset in PRESETS and (not colon or is_shop(shop))


def is_shop(name: str) -> bool:
    """Whether one shop of several can have this name, as in `shopify:second-shop`; it stands in keys, and
    those in logs.
    """
    return 0 < len(name) <= 40 and name.isascii() and all(sign.isalnum() or sign in "_.-" for sign in name)


def plain(topic: str) -> str:
    """The one spelling that the tables above use: slashes for dots, Magento's without its prefixes."""
    for prefix in _MAGENTO_PREFIXES:
        topic = topic.removeprefix(prefix)
    return topic.replace(".", "/")
