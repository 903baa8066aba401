"""Bodies that the platforms' own documents, sources and users show, each to the end that it must come to.

They lie beside the checkout and are read where they are present.
"""

import json
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import outboxd
from outboxd.errors import EventError
from tests.shop import MakeShop, Shop

BODIES = Path(__file__).parents[2] / "shared" / "payloads"

pytestmark = pytest.mark.skipif(not BODIES.is_dir(), reason="the sample bodies are not beside the checkout")

SECRETS = ("254fa3b17945d571dc5f82ccfa1b91ca", "password_hash", "rp_token", "ajcvzr-47f32f211ae984939a5f7ce")

MAPPING = {
    "email": "email",
    "firstName": "FIRSTNAME",
    "lastName": "LASTNAME",
    "phone": "SMS",
    "totalOrders": "ORDERS",
    "totalSpent": "SPENT",
    "createdAt": "SINCE",
    "customerTier": "TIER",
    "tags": "TAGS",
}

ATTRIBUTES = {"ORDERS": "float", "SPENT": "float", "SINCE": "date", "TIER": "text", "TAGS": "text"}

SHADY = {
    **MAPPING,
    "password_hash": "STOLEN",
    "token": "TOKEN",
    "customer.password_hash": "DEEP",
    "values(@)[0]": "FIRST",
    "to_string(@)": "WHOLE",
}
"""What a careless or a cunning operator might ask for."""


@dataclass(frozen=True)
class End:
    """What must become of an event: its status, what it says, and the contact that Brevo has then."""

    status: str
    told: str | None = None
    email: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    is_opted_out: bool = False
    refusal: str | None = None


NO_ADDRESS = "no address is known for customer"
BAD_PHONE = "SMS left out: phone is not a phone number of its country"

JOHN = {"FIRSTNAME": "John", "LASTNAME": "Doe", "SINCE": "2017-03-21", "TIER": "customer"}
BOB = {"FIRSTNAME": "Bob", "LASTNAME": "Biller", "SINCE": "2022-01-01"}
JANE = {"FIRSTNAME": "Jane", "LASTNAME": "Doe", "TIER": "1"}

ENDS = {
    # Shopify: the address is null, and nobody has named another one.
    ("shopify/2024-10_customers_create.json", "customers/create"): End("dead", NO_ADDRESS),
    ("shopify/2024-10_customers_update.json", "customers/update"): End("dead", NO_ADDRESS),
    ("shopify/2026-07_customers_create.json", "customers/create"): End(
        "delivered", BAD_PHONE, "bob@biller.com", BOB
    ),
    ("shopify/2026-07_customers_update.json", "customers/update"): End(
        "delivered", BAD_PHONE, "bob@biller.com", BOB
    ),
    ("shopify/2026-07_customers_delete.json", "customers/delete"): End("delivered"),
    (
        "shopify/2026-07_customers_email_marketing_consent_update.json",
        "customers_email_marketing_consent/update",
    ): End("delivered", None, "bob@biller.com"),
    ("shopify/2026-07_customers_marketing_consent_update.json", "customers_marketing_consent/update"): End(
        "dead", NO_ADDRESS
    ),
    ("shopify/2026-07_customers_purchasing_summary.json", "customers/purchasing_summary"): End(
        "dead", NO_ADDRESS
    ),
    ("shopify/2026-07_customer.tags_added.json", "customer.tags_added"): End("dead", NO_ADDRESS),
    ("shopify/customers_redact.json", "customers/redact"): End("delivered"),
    # WooCommerce
    ("woocommerce/docs_v3_create_customer_response.json", "customer.created"): End(
        "delivered", BAD_PHONE, "john.doe@example.com", JOHN
    ),
    ("woocommerce/docs_v3_retrieve_customer_response.json", "customer.updated"): End(
        "delivered", BAD_PHONE, "john.doe@example.com", JOHN
    ),
    ("woocommerce/docs_v3_update_customer_response.json", "customer.updated"): End(
        "delivered", BAD_PHONE, "john.doe@example.com", {**JOHN, "FIRSTNAME": "James"}
    ),
    ("woocommerce/docs_v2_customer.json", "customer.created"): End(
        "delivered", BAD_PHONE, "john.doe@example.com", {**JOHN, "ORDERS": 0, "SPENT": 0.0}
    ),
    ("woocommerce/docs_v3_order_1_customer_id_0.json", "order.created"): End(
        "delivered", BAD_PHONE, "john.doe@example.com", {"FIRSTNAME": "John", "LASTNAME": "Doe"}
    ),
    ("woocommerce/issue37806_webhook_error_body.json", "customer.updated"): End(
        "dead", "error message of WooCommerce's REST API", refusal="neither a customer id nor an address"
    ),
    # Magento
    ("magento/docs_post_customers_response_no_extension_attributes.json", "customer_save_commit_after"): End(
        "delivered", None, "jdoe@example.com", {**JANE, "SMS": "15125551111", "SINCE": "2017-01-31"}
    ),
    ("magento/docs_post_customers_response_is_subscribed_false.json", "customer_save_commit_after"): End(
        "delivered",
        None,
        "jdoe@example.com",
        {**JANE, "SMS": "15165551111", "SINCE": "2020-07-22"},
        is_opted_out=True,
    ),
    ("magento/docs_customers_search_response.json", "customer_save_commit_after"): End(
        "dead", "page of search results"
    ),
    (
        "magento/starterkit_customer_save_commit_after_value.json",
        "com.adobe.commerce.observer.customer_save_commit_after",
    ): End(
        "delivered",
        None,
        "john.doe@fakedomain.com",
        {"FIRSTNAME": "John", "LASTNAME": "Doe", "SINCE": "2024-06-12"},
    ),
    (
        "magento/starterkit_customer_delete_commit_after_value.json",
        "com.adobe.commerce.observer.customer_delete_commit_after",
    ): End("delivered"),
    ("magento/emarsys_customer_email_changed.json", "customer_save_commit_after"): End(
        "delivered",
        None,
        "cypress3@default.com",
        {"FIRSTNAME": "Cypress", "LASTNAME": "Default", "TIER": "0", "SINCE": "2018-10-04"},
    ),
    # A shop of one's own that forwards what another platform sent
    ("custom/bigcommerce_store_customer_created.json", "customer_created"): End("dead", NO_ADDRESS),
    ("custom/saleor_notify_account_delete.json", "customer_deleted"): End("delivered"),
}

NAMES = [pytest.param(name, topic, end, id=name) for (name, topic), end in ENDS.items()]


def body(name: str) -> dict[str, Any]:
    read = json.loads((BODIES / name).read_text())
    assert isinstance(read, dict)
    return read


def sent(shop: Shop, name: str, topic: str) -> dict[str, Any]:
    """Through the intake, or where that refuses it as a shop does that writes SQL."""
    source = name.partition("/")[0]
    try:
        event_id = outboxd.enqueue(topic, body(name), source=source, db=shop.path, now=shop.clock)
    except EventError:
        event_id = shop.insert(topic, body(name), source)
    shop.drain()
    return shop.event(event_id)


def test_every_body_has_its_end() -> None:
    """A body that is added beside the checkout is not passed over in silence."""
    present = {f"{path.parent.name}/{path.name}" for path in BODIES.glob("*/*.json")}
    assert present == {name for name, _ in ENDS}


@pytest.mark.parametrize(("name", "topic", "end"), NAMES)
def test_a_real_body_ends_as_it_must(make_shop: MakeShop, name: str, topic: str, end: End) -> None:
    shop = make_shop({"attributes": ATTRIBUTES}, mapping=MAPPING)
    if end.refusal:
        with pytest.raises(EventError, match=end.refusal):
            outboxd.enqueue(topic, body(name), source=name.partition("/")[0], db=shop.path)
    event = sent(shop, name, topic)
    assert event["status"] == end.status, event["last_error"]
    assert (end.told or "") in (event["last_error"] or ""), event["last_error"]
    if end.status == "delivered" and end.told is None and end.email:
        assert event["last_error"] is None
    found = shop.sandbox.contacts
    assert [contact["email"] for contact in found] == ([end.email] if end.email else [])
    for contact in found:
        assert contact["attributes"] == end.attributes
        assert contact["emailBlacklisted"] is end.is_opted_out


@pytest.mark.parametrize("platform", ["shopify", "woocommerce", "magento", "custom"])
def test_no_secret_of_a_body_gets_anywhere(
    make_shop: MakeShop, caplog: pytest.LogCaptureFixture, platform: str
) -> None:
    """Neither to Brevo, whatever the mapping asks for, nor to logs, attempts, reasons or states."""
    caplog.set_level(logging.DEBUG, logger="outboxd")
    wanted = dict.fromkeys(("STOLEN", "TOKEN", "DEEP", "FIRST", "WHOLE"), "text")
    shop = make_shop({"attributes": {**ATTRIBUTES, **wanted}}, mapping=SHADY)
    names = [(name, topic) for name, topic in ENDS if name.startswith(platform)]
    for name, topic in names:
        sent(shop, name, topic)
        # As another platform's event: what cannot be read is refused in words of our own.
        for other in ("shopify", "woocommerce", "magento", "custom"):
            with suppress(EventError):
                outboxd.enqueue("customer_updated", body(name), source=other, db=shop.path)
    shop.drain()
    assert shop.status()["pending"] == 0
    tables = [row[0] for row in shop.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    said = [str(row) for table in tables if table != "outbox" for row in shop.rows(f"SELECT * FROM {table}")]
    said += [str(row) for row in shop.rows("SELECT event, source, customer_key, last_error FROM outbox")]
    told = [record.getMessage() for record in caplog.records if record.name.startswith("outboxd")]
    said += [_without_rules(text) for text in told]
    sent_to_brevo = [json.dumps(call.body) for call in shop.sandbox.calls]
    assert any("WHOLE" in text for text in sent_to_brevo)
    said += sent_to_brevo
    assert len(said) > 3 * len(names)
    assert not [text for text in said if any(secret in text for secret in SECRETS)]


def test_shopifys_bodies_tell_of_one_customer_from_beginning_to_end(make_shop: MakeShop) -> None:
    """The id and the address meet: what had no address finds the contact, and the deletion removes it."""
    shop = make_shop(options={"delete_behavior": "hard"})
    early = sent(shop, "shopify/2024-10_customers_create.json", "customers/create")
    assert early["status"] == "dead"
    sent(shop, "shopify/2026-07_customers_update.json", "customers/update")
    shop.drain()
    assert shop.event(early["id"])["status"] == "delivered"
    sent(
        shop,
        "shopify/2026-07_customers_email_marketing_consent_update.json",
        "customers_email_marketing_consent/update",
    )
    assert [contact["email"] for contact in shop.sandbox.contacts] == ["bob@biller.com"]
    gone = sent(shop, "shopify/2026-07_customers_delete.json", "customers/delete")
    assert gone["status"] == "delivered"
    assert shop.sandbox.contacts == []
    sent(shop, "shopify/2026-07_customers_update.json", "customers/update")
    assert shop.sandbox.contacts == []


def test_magentos_body_with_a_new_address_moves_the_contact(shop: Shop) -> None:
    former = {"id": 2, "email": "cypress@default.com", "firstname": "Cypress", "lastname": "Default"}
    outboxd.enqueue("customer_save_commit_after", former, source="magento", db=shop.path)
    shop.drain()
    before = shop.contact("cypress@default.com")["id"]
    shop.later(minutes=1)
    event_id = outboxd.enqueue(
        "customer_save_commit_after",
        body("magento/emarsys_customer_email_changed.json"),
        source="magento",
        occurred_at=shop.clock(),
        db=shop.path,
        now=shop.clock,
    )
    shop.drain()
    assert shop.event(event_id)["status"] == "delivered"
    assert [(c["id"], c["email"]) for c in shop.sandbox.contacts] == [(before, "cypress3@default.com")]


def _without_rules(text: str) -> str:
    """A line of the log without the names that rules of the configuration ask for: those are no news."""
    return re.sub(r'absent=(\S+|"[^"]*")', "", text)
