"""Nobody who said no is written to again, wherever it was said, until the shop tells of a later yes."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import outboxd
from tests.shop import MakeShop, Shop, elsewhere
from tests.stories import META_KEY, PLATFORMS, START, Body, Person, Told, address

BORN = Person(1, START, address(1, 0), "020 7946 0001")
OLD, NEW = BORN.email, address(1, 1)

SUBSCRIBED, UNKNOWN = True, None


def hours(number: int) -> Any:
    return START + timedelta(hours=number)


def opened(make_shop: MakeShop, **options: Any) -> Shop:
    return make_shop(options={"consent_meta_key": META_KEY, "list_id": 3, **options})


def tell(shop: Shop, platform: str, *events: Told) -> None:
    """Deliver one by one."""
    for event in events:
        event.enqueue(platform, shop.path)
        shop.drain()
    assert (shop.status()["pending"], shop.status()["dead"]) == (0, 0)


def update(platform: str, person: Person) -> Told:
    """An ordinary update: whatever is known of consent is repeated."""
    told = PLATFORMS[platform].changed(person)
    if person.consent is None:
        return told
    match platform:
        case "shopify":  # as of 2023-10, and with the object of later versions
            yes: Body = {"accepts_marketing": True, "email_marketing_consent": {"state": "subscribed"}}
        case "custom":
            yes = {}
            told.body["data"]["acceptsMarketing"] = True
        case _:
            yes = {}
    return replace(told, body={**told.body, **yes})


def is_out(shop: Shop, email: str) -> bool:
    found = shop.contact(email)["emailBlacklisted"]
    assert isinstance(found, bool)
    return found


@pytest.mark.parametrize("consent", [SUBSCRIBED, UNKNOWN], ids=["repeated", "absent"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_unsubscribe_inside_brevo_survives_ordinary_updates(
    make_shop: MakeShop, platform: str, consent: bool | None
) -> None:
    shop = opened(make_shop)
    tell(shop, platform, PLATFORMS[platform].born(replace(BORN, consent=consent)))
    shop.sandbox.unsubscribe(OLD)
    for number in range(1, 8):
        changed = replace(BORN, at=hours(number), last_name=f"Number {number}", consent=consent)
        tell(shop, platform, update(platform, changed))
        assert shop.contact(OLD)["attributes"]["LASTNAME"] == f"Number {number}"
        assert is_out(shop, OLD)


@pytest.mark.parametrize("consent", [SUBSCRIBED, UNKNOWN], ids=["repeated", "absent"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_unsubscribe_inside_brevo_survives_a_move_and_what_follows(
    make_shop: MakeShop, platform: str, consent: bool | None
) -> None:
    shop = opened(make_shop)
    tell(shop, platform, PLATFORMS[platform].born(replace(BORN, consent=consent)))
    shop.sandbox.unsubscribe(OLD)
    moved = replace(BORN, at=hours(1), email=NEW, consent=consent)
    tell(shop, platform, PLATFORMS[platform].moved(moved, OLD))
    assert [contact["email"] for contact in shop.sandbox.contacts] == [NEW]
    assert is_out(shop, NEW)
    tell(shop, platform, update(platform, replace(moved, at=hours(2), last_name="Ek")))
    assert is_out(shop, NEW)


@pytest.mark.parametrize("who", [OLD, NEW])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_unsubscribe_of_either_contact_survives_their_merge(
    make_shop: MakeShop, platform: str, who: str
) -> None:
    shop = opened(make_shop)
    tell(shop, platform, PLATFORMS[platform].born(replace(BORN, consent=True)))
    elsewhere(shop, "POST", "/contacts", {"email": NEW, "attributes": {"LASTNAME": "Other"}})
    shop.sandbox.unsubscribe(who)
    tell(shop, platform, PLATFORMS[platform].moved(replace(BORN, at=hours(1), email=NEW, consent=True), OLD))
    assert [contact["email"] for contact in shop.sandbox.contacts] == [NEW]
    assert is_out(shop, NEW)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_unsubscribe_from_before_the_shop_told_of_the_customer_survives(
    make_shop: MakeShop, platform: str
) -> None:
    """A contact that exists is updated; a yes of somebody who never said no to the shop changes nothing."""
    shop = opened(make_shop)
    elsewhere(shop, "POST", "/contacts", {"email": OLD})
    shop.sandbox.unsubscribe(OLD)
    tell(shop, platform, PLATFORMS[platform].born(replace(BORN, consent=True)))
    assert shop.contact(OLD)["attributes"]["FIRSTNAME"] == "Mira"
    assert is_out(shop, OLD)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_opt_out_in_the_shop_survives_the_loss_of_the_contact(make_shop: MakeShop, platform: str) -> None:
    """Made anew after a 404, the contact is told again what the shop had said."""
    shop = opened(make_shop)
    teller = PLATFORMS[platform]
    tell(shop, platform, teller.born(BORN), teller.consented(replace(BORN, at=hours(1), consent=False)))
    elsewhere(shop, "DELETE", f"/contacts/{OLD.replace('@', '%40')}?identifierType=email_id")
    tell(shop, platform, update(platform, replace(BORN, at=hours(2), last_name="Ek")))
    assert is_out(shop, OLD)


@pytest.mark.parametrize("is_folded", [True, False])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_later_opt_in_of_the_shop_subscribes_again(
    make_shop: MakeShop, platform: str, is_folded: bool
) -> None:
    shop = opened(make_shop)
    teller = PLATFORMS[platform]
    out, back = replace(BORN, at=hours(1), consent=False), replace(BORN, at=hours(2), consent=True)
    tell(shop, platform, teller.born(BORN))
    shop.sandbox.unsubscribe(OLD)
    teller.consented(out).enqueue(platform, shop.path)
    if not is_folded:
        shop.drain()
        assert is_out(shop, OLD)
    tell(shop, platform, teller.consented(back))
    assert not is_out(shop, OLD)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_opt_in_from_before_the_opt_out_changes_nothing(make_shop: MakeShop, platform: str) -> None:
    shop = opened(make_shop)
    teller = PLATFORMS[platform]
    early, out = replace(BORN, at=hours(1), consent=True), replace(BORN, at=hours(2), consent=False)
    tell(shop, platform, teller.born(BORN), teller.consented(out), teller.consented(early))
    assert is_out(shop, OLD)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_updates_that_say_nothing_of_consent_keep_an_opt_out(make_shop: MakeShop, platform: str) -> None:
    shop = opened(make_shop)
    teller = PLATFORMS[platform]
    tell(shop, platform, teller.born(BORN), teller.consented(replace(BORN, at=hours(1), consent=False)))
    moved = replace(BORN, at=hours(3), email=NEW)
    tell(shop, platform, update(platform, replace(BORN, at=hours(2), last_name="Ek")))
    assert is_out(shop, OLD)
    tell(shop, platform, teller.moved(moved, OLD), update(platform, replace(moved, at=hours(4))))
    assert is_out(shop, NEW)


Unknown = Callable[[Person], Told]


def _shopify(**fields: Any) -> Unknown:
    def make(person: Person) -> Told:
        told = PLATFORMS["shopify"].changed(person)
        return replace(told, body={**told.body, **fields})

    return make


def _woocommerce(value: Any) -> Unknown:
    def make(person: Person) -> Told:
        told = PLATFORMS["woocommerce"].changed(person)
        meta = [{"key": META_KEY, "value": value}, {"key": "another_opt_in", "value": "yes"}]
        return replace(told, body={**told.body, "meta_data": meta})

    return make


def _magento(value: Any) -> Unknown:
    def make(person: Person) -> Told:
        told = PLATFORMS["magento"].changed(person)
        told.body["data"]["value"]["extension_attributes"] = value
        return told

    return make


def _custom(**fields: Any) -> Unknown:
    def make(person: Person) -> Told:
        told = PLATFORMS["custom"].changed(person)
        told.body["data"].update(fields)
        return told

    return make


UNKNOWNS = {
    "shopify-not-subscribed": ("shopify", _shopify(email_marketing_consent={"state": "not_subscribed"})),
    "shopify-pending": ("shopify", _shopify(email_marketing_consent={"state": "pending"})),
    "shopify-invalid": ("shopify", _shopify(email_marketing_consent={"state": "invalid"})),
    "shopify-null": ("shopify", _shopify(email_marketing_consent=None)),
    "shopify-null-state": ("shopify", _shopify(email_marketing_consent={"state": None})),
    "shopify-never-asked": ("shopify", _shopify(accepts_marketing=False)),
    "shopify-sms": ("shopify", _shopify(sms_marketing_consent={"state": "subscribed"})),
    "woocommerce-blank": ("woocommerce", _woocommerce("")),
    "woocommerce-null": ("woocommerce", _woocommerce(None)),
    "woocommerce-another-word": ("woocommerce", _woocommerce("perhaps")),
    "magento-empty": ("magento", _magento([])),
    "magento-null": ("magento", _magento({"is_subscribed": None})),
    "custom-null": ("custom", _custom(acceptsMarketing=None)),
    "custom-another-word": ("custom", _custom(accepts_marketing="perhaps")),
}


@pytest.mark.parametrize(("platform", "unknown"), UNKNOWNS.values(), ids=UNKNOWNS)
def test_an_unknown_state_neither_opts_out_nor_in(
    make_shop: MakeShop, platform: str, unknown: Unknown
) -> None:
    shop = opened(make_shop)
    teller = PLATFORMS[platform]
    tell(shop, platform, teller.born(BORN), unknown(replace(BORN, at=hours(1))))
    assert not is_out(shop, OLD)
    tell(shop, platform, teller.consented(replace(BORN, at=hours(2), consent=False)))
    tell(shop, platform, unknown(replace(BORN, at=hours(3), last_name="Ek")))
    assert shop.contact(OLD)["attributes"]["LASTNAME"] == "Ek"
    assert is_out(shop, OLD)


@pytest.mark.parametrize("is_out_before", [True, False])
def test_a_shopify_update_of_2026_07_clears_nothing_of_one_of_2024_10(
    make_shop: MakeShop, is_out_before: bool
) -> None:
    """The newer version no longer sends consent, tags, totals: absent, not empty."""
    attributes = {"ORDERS": "float", "SPENT": "float", "TAGS": "text"}
    mapping = {"firstName": "FIRSTNAME", "totalOrders": "ORDERS", "totalSpent": "SPENT", "tags": "TAGS"}
    shop = make_shop({"attributes": attributes}, mapping={"email": "email", "phone": "SMS", **mapping})
    lean = PLATFORMS["shopify"].born(BORN)
    state = "unsubscribed" if is_out_before else "subscribed"
    full = {
        **lean.body,
        "email_marketing_consent": {"state": state, "consent_updated_at": START.isoformat()},
        "tags": "vip, wholesale",
        "orders_count": 4,
        "total_spent": "199.50",
    }
    tell(shop, "shopify", replace(lean, body=full))
    before = shop.contact(OLD)
    assert before["attributes"]["TAGS"] == "vip, wholesale"
    assert before["emailBlacklisted"] is is_out_before
    later = PLATFORMS["shopify"].changed(replace(BORN, at=hours(1), first_name="Mirabel"))
    assert not {"email_marketing_consent", "tags", "orders_count", "total_spent"} & later.body.keys()
    tell(shop, "shopify", later)
    after = shop.contact(OLD)
    assert after["attributes"] == {**before["attributes"], "FIRSTNAME": "Mirabel"}
    assert after["emailBlacklisted"] is is_out_before


def test_whoever_moves_out_of_a_contact_that_two_accounts_share_stays_opted_out(shop: Shop) -> None:
    """The contact stays with the other account, but who unsubscribed there did so for both."""
    both = {"email": OLD, "firstName": "Mira"}
    shop.sent("created", id=1, **both)
    shop.sent("created", id=2, **both)
    shop.sandbox.unsubscribe(OLD)
    shop.later(minutes=1)
    shop.sent("updated", id=1, **{**both, "email": NEW})
    assert is_out(shop, OLD)
    assert is_out(shop, NEW)


def test_a_consent_event_by_address_alone_meets_the_customer_known_by_id(make_shop: MakeShop) -> None:
    shop = opened(make_shop)
    tell(shop, "shopify", PLATFORMS["shopify"].born(BORN))
    body = {"email_address": OLD.upper(), "email_marketing_consent": {"state": "unsubscribed"}}
    outboxd.enqueue("customers_email_marketing_consent/update", body, source="shopify", db=shop.path)
    shop.drain()
    assert len(shop.sandbox.contacts) == 1
    assert is_out(shop, OLD)
