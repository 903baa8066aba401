"""One customer's story, as each platform would tell it: its topics, its shapes, its spelling of times.

Born, a new phone, opted out, opted in again, a new address, then perhaps gone, perhaps back. `Told` is one
event; the times of a story are all distinct, as a shop's clock makes them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import outboxd

START = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)

Body = dict[str, Any]


@dataclass(frozen=True)
class Person:
    """What the shop knows of a customer at one moment."""

    number: int
    at: datetime
    email: str
    phone: str | None = None
    consent: bool | None = None
    first_name: str = "Mira"
    last_name: str = "Lindqvist"
    created_at: datetime = START


@dataclass(frozen=True)
class Told:
    """One event as it reaches the outbox. `occurred_at` is what a shop's script takes from a header."""

    topic: str
    body: Body
    occurred_at: datetime | None = None

    def enqueue(self, source: str, db: Path) -> int:
        return outboxd.enqueue(self.topic, self.body, source=source, occurred_at=self.occurred_at, db=db)


@dataclass(frozen=True)
class Story:
    """The events in the order in which they happened, and what the customer was like in the end."""

    events: tuple[Told, ...]
    last: Person


def address(number: int, which: int) -> str:
    return f"mira{number}.{'old' if which == 0 else 'new'}@example.com"


def phone(number: int, which: int) -> str:
    """A number of the range that is kept for fiction, as it is dialled in Great Britain."""
    return f"020 7946 0{(2 * number + which) % 1000:03d}"


def as_brevo_has_it(dialled: str) -> str:
    return "44" + dialled.replace(" ", "")[1:]


def story(platform: str, number: int, ending: str) -> Story:
    """The story of customer `number`; `ending` is alive, gone, or back."""
    tell = PLATFORMS[platform]
    at = [START + timedelta(hours=hour) for hour in range(8)]
    born = Person(number, at[0], address(number, 0), phone(number, 0))
    called = replace(born, at=at[1], phone=phone(number, 1))
    out = replace(called, at=at[2], consent=False)
    again = replace(out, at=at[3], consent=True)
    moved = replace(again, at=at[4], email=address(number, 1))
    late = replace(moved, at=at[5], last_name="Lindqvist-Berg")
    anew = Person(number, at[7], late.email, consent=True, created_at=at[7])
    back = replace(anew, first_name="Mirabel", last_name="Ek")
    living = (
        tell.born(born),
        tell.changed(called),
        tell.consented(out),
        tell.consented(again),
        tell.moved(moved, born.email),
        *tell.more(number, at[4] + timedelta(minutes=1)),
    )
    update = tell.changed(late)
    if ending == "alive":
        return Story((*living, update), late)
    end = tell.gone(replace(late, at=at[6]))
    if ending == "gone":
        return Story((*living, end, update), late)
    return Story((*living, end, update, tell.born(back)), back)


@dataclass(frozen=True)
class Teller:
    """How a platform tells of a customer."""

    born: Callable[[Person], Told]
    changed: Callable[[Person], Told]
    consented: Callable[[Person], Told]
    moved: Callable[[Person, str], Told]
    gone: Callable[[Person], Told]
    more: Callable[[int, datetime], tuple[Told, ...]] = lambda _number, _at: ()


# Shopify: an offset in its times; before 2025-01 consent within the customer, later in a topic of its own.

SUMMER = timezone(timedelta(hours=2))

GID = "gid://shopify/Customer/"


def _shopify(person: Person) -> Body:
    local = person.at.astimezone(SUMMER)
    return {
        "id": 706_405_506_930 + person.number,
        "created_at": person.created_at.isoformat(),
        "updated_at": local.isoformat(),
        "first_name": person.first_name,
        "last_name": person.last_name,
        "email": person.email,
        "phone": None,
        "verified_email": True,
        "admin_graphql_api_id": f"{GID}{706_405_506_930 + person.number}",
        "default_address": {"phone": person.phone, "country_code": "GB", "first_name": "Somebody Else"},
    }


def _shopify_born(person: Person) -> Body:
    """As of 2024-10 where consent was given with the account, as of 2026-07 otherwise."""
    consent = {"email_marketing_consent": {"state": "subscribed"}} if person.consent else {}
    return {**_shopify(person), **consent}


def _shopify_consent(person: Person) -> Told:
    """An opt-out as of 2024-10, within the customer; an opt-in as of 2026-07, by address and id."""
    if person.consent is False:
        state: Body = {"state": "unsubscribed", "consent_updated_at": person.at.isoformat()}
        return Told(
            "customers/update", {**_shopify(person), "email_marketing_consent": state, "tags": "a, b"}
        )
    consent = {"state": "subscribed", "opt_in_level": "single_opt_in", "consent_updated_at": None}
    body = {
        "customer_id": 706_405_506_930 + person.number,
        "email_address": person.email,
        "email_marketing_consent": consent,
    }
    return Told("customers_email_marketing_consent/update", body, person.at)


def _shopify_more(number: int, at: datetime) -> tuple[Told, ...]:
    """Events that name an id alone, in camelCase."""
    whom = {"customerId": f"{GID}{706_405_506_930 + number}", "occurredAt": at.isoformat()}
    return (
        Told(
            "customers/purchasing_summary", {**whom, "numberOfOrders": 3, "amountSpent": {"amount": "9.50"}}
        ),
        Told("customer.tags_added", {**whom, "tags": ["vip"]}),
    )


def _shopify_gone(person: Person) -> Told:
    """A deletion carries no time: the webhook's header does (X-Shopify-Triggered-At)."""
    return Told("customers/delete", {"id": 706_405_506_930 + person.number, "tax_exemptions": []}, person.at)


# WooCommerce: UTC without saying so, consent under a plug-in's key, a deletion of an id alone.

META_KEY = "newsletter_opt_in"


def _woocommerce(person: Person) -> Body:
    meta: list[Body] = [{"id": 9, "key": "session_tokens", "value": "kept-away"}]
    if person.consent is not None:
        meta.append({"id": 10, "key": META_KEY, "value": "yes" if person.consent else "no"})
    return {
        "id": 1000 + person.number,
        "date_created": "2024-05-06T09:08:09",
        "date_created_gmt": _naive(person.created_at, "T"),
        "date_modified": "2024-05-06T09:08:09",
        "date_modified_gmt": _naive(person.at, "T"),
        "email": person.email,
        "first_name": "",
        "last_name": person.last_name,
        "role": "customer",
        "billing": {
            "first_name": person.first_name,
            "email": "invoices@example.com",
            "phone": person.phone or "",
            "country": "GB",
        },
        "shipping": {"first_name": "", "country": "SE"},
        "meta_data": meta,
    }


# Magento: one event for created and updated, within a CloudEvent; subscribed is an extension attribute.


def _magento(person: Person) -> Told:
    """As of a save: created and updated at one time, or not."""
    home = {"id": 7, "telephone": "+46 40 555 01 61", "country_id": "SE"}
    billing = {"id": 8, "telephone": person.phone, "country_id": "GB"}
    value = {
        "entity_id": str(5000 + person.number),
        "email": person.email,
        "firstname": person.first_name,
        "lastname": person.last_name,
        "created_at": _naive(person.created_at, " "),
        "updated_at": _naive(person.at, " "),
        "default_billing": "8",
        "addresses": [home, billing],
        "password_hash": "kept-away",
        **({} if person.consent is None else {"extension_attributes": {"is_subscribed": person.consent}}),
    }
    return _cloud("customer_save_commit_after", value, person.at)


def _magento_gone(person: Person) -> Told:
    value = {"id": 5000 + person.number, "email": person.email, "firstname": person.first_name}
    return _cloud("customer_delete_commit_after", value, person.at)


def _cloud(name: str, value: Body, at: datetime) -> Told:
    topic = f"com.adobe.commerce.observer.{name}"
    envelope = {"specversion": "1.0", "id": f"event-{at:%H%M}", "type": topic, "time": at.isoformat()}
    return Told(topic, {**envelope, "data": {"value": value}})


# A shop of one's own: the specification's envelope, and only what changed where something did.


def _custom(event: str, person: Person, **data: Any) -> Told:
    named = {"id": 90 + person.number, "email": person.email, **data}
    return Told(event, {"event": event, "timestamp": person.at.isoformat(), "data": named})


def _custom_born(person: Person) -> Told:
    consent = {} if person.consent is None else {"acceptsMarketing": person.consent}
    names = {"firstName": person.first_name, "lastName": person.last_name}
    phone = {"phone": person.phone} if person.phone else {}
    return _custom("customer_created", person, **names, **phone, **consent, country="GB")


def _custom_changed(person: Person) -> Told:
    changes = {
        "last_name": {"old": None, "new": person.last_name},
        "phone": {"old": None, "new": person.phone},
    }
    return _custom("customer_updated", person, changes=changes, country="GB")


def _custom_moved(person: Person, former: str) -> Told:
    changes = {"email": {"old": former, "new": person.email}}
    return _custom("customer_updated", person, changes=changes)


def _custom_gone(person: Person) -> Told:
    told = _custom("customer_deleted", person)
    del told.body["data"]["email"]
    return told


def _naive(at: datetime, between: str) -> str:
    return at.strftime(f"%Y-%m-%d{between}%H:%M:%S")


def _plain(topic: str, make: Callable[[Person], Body]) -> Callable[..., Told]:
    return lambda person, *_: Told(topic, make(person))


PLATFORMS = {
    "shopify": Teller(
        _plain("customers/create", _shopify_born),
        _plain("customers/update", _shopify),
        _shopify_consent,
        _plain("customers/update", _shopify),
        _shopify_gone,
        _shopify_more,
    ),
    "woocommerce": Teller(
        _plain("customer.created", _woocommerce),
        _plain("customer.updated", _woocommerce),
        _plain("customer.updated", _woocommerce),
        _plain("customer.updated", _woocommerce),
        lambda person: Told("customer.deleted", {"id": 1000 + person.number}, person.at),
    ),
    "magento": Teller(_magento, _magento, _magento, lambda person, _: _magento(person), _magento_gone),
    "custom": Teller(
        _custom_born,
        _custom_changed,
        lambda person: _custom("customer_updated", person, accepts_marketing=person.consent),
        _custom_moved,
        _custom_gone,
    ),
}
