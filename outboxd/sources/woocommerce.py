"""WooCommerce: customer and order webhooks, REST versions 1 to 3 and the legacy API's wrapped customer.

Its events are about WordPress users of any role, and a validly signed body can be an error message.
Consent is no word of WooCommerce's: plug-ins keep it in meta data, each under its own key.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

from outboxd.clock import to_text
from outboxd.errors import EventError
from outboxd.event import Kind, Reading
from outboxd.rules import Options
from outboxd.sources import envelope, words
from outboxd.sources.envelope import Letter, open_letter
from outboxd.sources.specification import complete, nothing
from outboxd.sources.words import Fields, Record

KINDS = {
    **envelope.KINDS,
    "customer/created": Kind.CREATED,
    "customer/updated": Kind.UPDATED,
    "customer/deleted": Kind.DELETED,
    "order/created": Kind.UPDATED,
    "order/updated": Kind.UPDATED,
}

_ERASED = "deleted@site.invalid"  # what WordPress writes over the address of somebody who had it erased


DEFAULTS = Options()


def read(topic: str, payload: Record, options: Options = DEFAULTS) -> Reading:
    """Understand one WooCommerce event."""
    letter = open_letter(topic, payload, KINDS)
    if set(payload) == {"webhook_id"}:
        return nothing("WooCommerce only tried whether its webhook is heard")
    _refuse_error(payload)
    if letter.topic.startswith("order/"):
        return _order(letter, options)
    role = words.text(letter.data.get("role"))
    # A deletion says no role; one that does may still be of somebody who was a customer before.
    if role and role not in options.roles and letter.kind is not Kind.DELETED:
        return nothing("this WordPress user's role is none of those that count as customers")
    return complete(
        letter,
        customer_id=_customer_id(letter.data, "id"),
        fields=_fields(letter.data, options),
        version_at=_version(letter.data),
    )


def _refuse_error(payload: Record) -> None:
    """WooCommerce signs and sends whatever its own REST API answered, refusals included."""
    code = payload.get("code")
    if isinstance(code, str) and code.startswith(("woocommerce_rest_", "rest_")) and "id" not in payload:
        raise EventError(
            "the payload is an error message of WooCommerce's REST API, not a customer: "
            "the WordPress user who owns the webhook may not view customers",
            hint="save the webhook again as a user who may (WooCommerce, Settings, Advanced, Webhooks), "
            "then fetch what was missed with `outboxd backfill`",
        )


def _customer_id(data: Record, key: str) -> str | None:
    found = words.identifier(data.get(key))
    return found if found != "0" else None  # WordPress's nobody


def _fields(data: Record, options: Options) -> Fields:
    billing, shipping = _address(data, "billing"), _address(data, "shipping")
    last_order = words.record(data.get("last_order"))
    return {
        **words.said("firstName", (data, "first_name"), (billing, "first_name")),
        **words.said("lastName", (data, "last_name"), (billing, "last_name")),
        **words.phone_in((billing, shipping), "country"),
        **words.known("acceptsMarketing", _consent(data, options)),
        **words.stated("createdAt", data, "created_at", _time),
        **words.stated("createdAt", data, "date_created_gmt", _time),
        **words.stated("totalOrders", data, "orders_count", words.number),
        **words.stated("totalSpent", data, "total_spent", words.number),
        **words.stated("lastOrderDate", data, "last_order_date", _time),
        **words.stated("lastOrderDate", last_order, "date", _time),
        **words.known("customerTier", words.text(data.get("role"))),
    }


def _address(data: Record, name: str) -> Record:
    return words.record(data.get(name)) or words.record(data.get(f"{name}_address"))


def _consent(data: Record, options: Options) -> bool | None:
    entries = words.records(data.get("meta_data"))
    values = [entry.get("value") for entry in entries if entry.get("key") == options.consent_meta_key]
    return words.flag(values[-1]) if values and options.consent_meta_key else None


def _time(value: Any) -> str | None:
    at = words.instant(value, naive_is_utc=True)
    return to_text(at) if at else None


def _version(data: Record) -> datetime | None:
    # `date_modified` is no substitute: it is local time of an unknown zone.
    keys = ("date_modified_gmt", "date_created_gmt", "created_at")
    return words.first_instant(data, *keys, naive_is_utc=True)


def _order(letter: Letter, options: Options) -> Reading:
    order = letter.data
    billing, shipping = _address(order, "billing"), _address(order, "shipping")
    customer_id, email = _customer_id(order, "customer_id"), words.email(billing.get("email"))
    if email == _ERASED:
        email = None
    if customer_id is None and email is None:
        return nothing("this order names neither a customer nor an address")
    # A box left unticked at a checkout takes nothing back, and later events of the order repeat a tick
    # also after an opt-out.
    is_opt_in = letter.topic == "order/created" and _consent(order, options) is True
    return complete(
        replace(letter, data={}, is_ours=False),
        # No other event will ever make a guest's contact anew, so a new order may; what becomes of an old
        # one later, when it is sent or paid, brings nobody back.
        kind=Kind.CREATED if customer_id is None and letter.topic == "order/created" else Kind.UPDATED,
        customer_id=customer_id,
        email=email,
        fields={
            **words.said("firstName", (billing, "first_name"), (shipping, "first_name")),
            **words.said("lastName", (billing, "last_name"), (shipping, "last_name")),
            **words.phone_in((billing, shipping), "country"),
            **words.known("acceptsMarketing", is_opt_in or None),
        },
        version_at=_version(order),
    )
