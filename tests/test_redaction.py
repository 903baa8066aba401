"""A redaction erases: the contact in Brevo, whatever deletions do otherwise, and all that is stored here."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

import outboxd
from outboxd import pool
from outboxd.brevo.sandbox import Fault
from tests.shop import MakeShop, Shop

ANN = "ann.archer@example.com"
MOVED = "ann.baker@example.org"
PHONE = "+12025550117"

BODY = {"id": 4711, "email": ANN, "first_name": "Annabel", "last_name": "Archer", "phone": PHONE}

BEHAVIORS = pytest.mark.parametrize("behavior", ["soft", "hard"])


def tell(shop: Shop, topic: str, **body: Any) -> int:
    event_id = outboxd.enqueue(topic, body, source="shopify", db=shop.path, now=shop.clock)
    shop.drain()
    return event_id


def redact(shop: Shop, **customer: Any) -> int:
    """As Shopify asks for it; by id and address unless told otherwise."""
    shop.later(seconds=1)
    whom = customer or {"id": 4711, "email": ANN, "phone": PHONE}
    shops = {"shop_id": 31, "shop_domain": "lantern-shop.example.net"}
    event_id = tell(shop, "customers/redact", **shops, customer=whom, orders_to_redact=[40])
    event = shop.event(event_id)
    assert event["status"] == "delivered", event["last_error"]
    return event_id


def everything_stored(shop: Shop) -> str:
    """Every cell of every table."""
    with closing(sqlite3.connect(shop.path)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [str(row) for name in names for row in connection.execute(f'SELECT * FROM "{name}"')]
    assert len(names) > 5
    return "\n".join(rows)


def assert_forgotten(shop: Shop, *said: str) -> None:
    stored = everything_stored(shop)
    for text in said or (ANN, "Annabel", "Archer", PHONE, PHONE[1:]):
        assert text.lower() not in stored.lower(), [row for row in stored.splitlines() if text in row]


@BEHAVIORS
def test_a_redaction_removes_the_contact_whatever_deletions_do(make_shop: MakeShop, behavior: str) -> None:
    shop = make_shop(options={"delete_behavior": behavior})
    tell(shop, "customers/create", **BODY)
    redact(shop)
    assert shop.sandbox.contacts == []
    assert_forgotten(shop)


@pytest.mark.parametrize("whom", [{"id": 4711}, {"email": ANN}, {"email": ANN.upper(), "phone": PHONE}])
@BEHAVIORS
def test_it_finds_the_customer_by_id_or_by_address(
    make_shop: MakeShop, behavior: str, whom: dict[str, Any]
) -> None:
    shop = make_shop(options={"delete_behavior": behavior})
    tell(shop, "customers/create", **BODY)
    redact(shop, **whom)
    assert shop.sandbox.contacts == []
    assert_forgotten(shop)


@BEHAVIORS
def test_it_finds_the_customer_by_a_former_address(make_shop: MakeShop, behavior: str) -> None:
    shop = make_shop(options={"delete_behavior": behavior})
    tell(shop, "customers/create", **BODY)
    shop.later(minutes=1)
    tell(shop, "customers/update", **{**BODY, "email": MOVED})
    redact(shop, email=ANN)
    assert shop.sandbox.contacts == []
    assert_forgotten(shop, ANN, MOVED, "Annabel", PHONE)


def test_it_removes_what_a_soft_deletion_left(make_shop: MakeShop) -> None:
    shop = make_shop(options={"delete_behavior": "soft", "list_id": 3})
    tell(shop, "customers/create", **BODY)
    shop.later(minutes=1)
    tell(shop, "customers/delete", id=4711)
    assert [contact["emailBlacklisted"] for contact in shop.sandbox.contacts] == [True]
    redact(shop)
    assert shop.sandbox.contacts == []
    assert_forgotten(shop)


@BEHAVIORS
def test_it_removes_a_contact_that_nobody_here_knows(make_shop: MakeShop, behavior: str) -> None:
    """Brevo may have it from elsewhere: the address in the request says whom to remove."""
    shop = make_shop(options={"delete_behavior": behavior})
    shop.sent("created", id=9, email="bob@example.com")
    redact(shop, id=4711, email=ANN)
    assert [contact["email"] for contact in shop.sandbox.contacts] == ["bob@example.com"]
    assert_forgotten(shop)


@BEHAVIORS
def test_it_erases_every_event_that_the_customer_ever_had(make_shop: MakeShop, behavior: str) -> None:
    """Those of former addresses, of troubles, of an end, and those that the redaction finds still waiting."""
    shop = make_shop({"attributes": {"TIER": "float"}}, options={"delete_behavior": behavior})
    tell(shop, "customers/create", **BODY)
    shop.later(minutes=1)
    shop.sandbox.faults.add(Fault(status=422, times=1, method="PUT"))
    tell(shop, "customers/update", **{**BODY, "first_name": "Annie"})
    shop.later(minutes=1)
    tell(shop, "customers/update", **{**BODY, "email": MOVED, "last_name": "Baker"})
    shop.later(minutes=1)
    tell(shop, "customers/update", **{**BODY, "email": "no address of anybody"})
    shop.sandbox.faults.add(Fault(status=503, times=1))
    waiting = tell(shop, "customers/update", **{**BODY, "email": MOVED, "first_name": "Anna"})
    assert shop.event(waiting)["status"] == "pending"
    shop.later(hours=1)
    redact(shop, id=4711, email=MOVED)
    assert shop.status()["pending"] == 0
    assert shop.sandbox.contacts == []
    assert_forgotten(shop, ANN, MOVED, "Annabel", "Annie", "Anna", "Archer", "Baker", "no address", PHONE)
    assert {payload for (payload,) in shop.rows("SELECT payload FROM outbox")} == {"{}"}


def test_of_a_large_payload_nothing_is_left_in_pages_that_are_free(shop: Shop) -> None:
    """Each write of a row of several pages lets some of them go."""
    for version in range(3):
        orders = [{"number": number, "note": f"for Annabel Archer, {version}"} for number in range(50)]
        tell(shop, "customers/update", **BODY, orders=orders)
        shop.later(seconds=1)
    redact(shop)
    shop.close()
    pool.close()  # with the last one the log is carried into the file
    left = shop.path.read_bytes()
    assert [word for word in (b"Annabel", b"Archer", ANN.encode(), PHONE.encode()) if word in left] == []


@BEHAVIORS
def test_it_empties_the_details_of_attempts_and_the_state_of_the_contact(
    make_shop: MakeShop, behavior: str
) -> None:
    shop = make_shop(options={"delete_behavior": behavior})
    shop.sandbox.faults.add(Fault(status=503, times=2))
    tell(shop, "customers/create", **BODY)
    shop.later(hours=1)
    shop.drain()
    waiting = tell(shop, "customers/update", **{**BODY, "first_name": "Anna"})
    shop.later(hours=1)
    shop.drain()
    assert shop.event(waiting)["status"] == "delivered"
    assert shop.rows("SELECT count(*) FROM attempts WHERE detail IS NOT NULL") != [(0,)]
    redacted = redact(shop)
    assert (
        shop.rows("SELECT event_id FROM attempts WHERE detail IS NOT NULL AND event_id <> ?", redacted) == []
    )
    [(email, synced, fields)] = shop.rows("SELECT email, synced_email, fields FROM contacts")
    assert (email, synced, fields) == (None, None, "{}")


def test_details_of_attempts_at_an_event_that_waited_are_emptied_too(shop: Shop) -> None:
    """The redaction and what was to be retried end in one delivery."""
    shop.sandbox.faults.add(Fault(status=503, times=1))
    waiting = tell(shop, "customers/create", **BODY)
    assert shop.event(waiting)["attempts_made"][0]["detail"]
    shop.later(hours=1)
    redact(shop)
    first, *_ = shop.event(waiting)["attempts_made"]
    assert (first["http_status"], first["detail"]) == (503, None)
    assert_forgotten(shop)


@BEHAVIORS
def test_a_late_update_never_brings_anybody_back(make_shop: MakeShop, behavior: str) -> None:
    shop = make_shop(options={"delete_behavior": behavior})
    before = shop.clock().isoformat()
    tell(shop, "customers/create", **BODY, updated_at=before)
    redact(shop)
    for topic in ("customers/update", "customers/create"):
        event_id = tell(shop, topic, **BODY, updated_at=before)
        assert shop.event(event_id)["status"] == "delivered"
    shop.later(minutes=5)
    event_id = tell(shop, "customers/update", **BODY, updated_at=shop.clock().isoformat())
    assert shop.event(event_id)["attempts_made"][0]["verdict"] == "superseded"
    assert shop.sandbox.contacts == []


@pytest.mark.parametrize(
    ("source", "order", "fields"),
    [
        ("shopify", "orders/", {"customer": None, "email": ANN}),
        ("woocommerce", "order.", {"customer_id": 0, "billing": {"email": ANN, "first_name": "Annabel"}}),
    ],
)
def test_what_becomes_of_a_guests_old_order_brings_nobody_back_and_a_new_one_does(
    shop: Shop, source: str, order: str, fields: dict[str, Any]
) -> None:
    """An order is sent, paid, refunded after its guest was redacted; only buying again is a new beginning."""

    def tell_order(number: int, what: str) -> None:
        shop.later(minutes=1)
        at = shop.clock()
        times = {"updated_at": at.isoformat(), "date_modified_gmt": at.strftime("%Y-%m-%dT%H:%M:%S")}
        body = {"id": number, **times, **fields}
        outboxd.enqueue(order + what, body, source=source, db=shop.path, now=shop.clock)
        shop.drain()

    created = "create" if source == "shopify" else "created"
    tell_order(70, created)
    assert [contact["email"] for contact in shop.sandbox.contacts] == [ANN]
    shop.later(minutes=1)
    shop.reopen(options={"delete_behavior": "hard"})
    topic = "customers/redact" if source == "shopify" else "customer_deleted"
    gone = {"email": ANN, "customer": {"email": ANN}}
    outboxd.enqueue(topic, gone, source=source, db=shop.path, now=shop.clock)
    shop.drain()
    assert shop.sandbox.contacts == []
    tell_order(70, "updated")
    assert shop.sandbox.contacts == []
    tell_order(71, created)
    assert [contact["email"] for contact in shop.sandbox.contacts] == [ANN]


@BEHAVIORS
def test_a_late_update_leaves_nothing_behind_either(make_shop: MakeShop, behavior: str) -> None:
    shop = make_shop(options={"delete_behavior": behavior})
    before = shop.clock().isoformat()
    tell(shop, "customers/create", **BODY, updated_at=before)
    redact(shop)
    tell(shop, "customers/update", **BODY, updated_at=before)
    assert_forgotten(shop)


@BEHAVIORS
def test_a_contact_that_another_living_customer_has_is_not_removed(
    make_shop: MakeShop, behavior: str
) -> None:
    shop = make_shop(options={"delete_behavior": behavior})
    tell(shop, "customers/create", **BODY)
    tell(shop, "customers/create", **{**BODY, "id": 4712, "first_name": "Other"})
    redacted = redact(shop, id=4711, email=ANN)
    [left] = shop.sandbox.contacts
    assert (left["email"], left["emailBlacklisted"]) == (ANN, False)
    kept = shop.rows("SELECT payload FROM outbox WHERE customer_key = 'shopify:4711'")
    assert kept == [("{}",), ("{}",)]
    assert shop.event(redacted)["customer_key"] == "shopify:4711"
    shop.later(minutes=1)
    redact(shop, id=4712, email=ANN)
    assert shop.sandbox.contacts == []
    assert_forgotten(shop)


@BEHAVIORS
def test_what_was_written_of_a_guest_before_the_account_was_known_goes_too(
    make_shop: MakeShop, behavior: str
) -> None:
    """An order of a guest, news of an id without an address, then of both: one person's, all of it."""
    shop = make_shop(options={"delete_behavior": behavior})
    order = {"id": 70, "email": ANN, "customer": None, "billing_address": {"first_name": "Annabel"}}
    tell(shop, "orders/create", **order)
    partial = tell(shop, "customers/update", id=4711, first_name="Annabel")
    assert shop.event(partial)["status"] == "dead"
    tell(shop, "customers/update", **BODY)
    assert shop.event(partial)["status"] == "delivered"
    assert [contact["email"] for contact in shop.sandbox.contacts] == [ANN]
    redact(shop)
    assert shop.sandbox.contacts == []
    assert_forgotten(shop)


def test_a_redaction_that_brevo_puts_off_erases_when_it_is_done(shop: Shop) -> None:
    tell(shop, "customers/create", **BODY)
    shop.later(seconds=1)
    shop.sandbox.faults.add(Fault(status=503, times=1, method="DELETE"))
    event_id = tell(shop, "customers/redact", customer={"id": 4711, "email": ANN})
    assert shop.event(event_id)["status"] == "pending"
    assert ANN in everything_stored(shop)
    shop.later(hours=1)
    shop.drain()
    assert shop.event(event_id)["status"] == "delivered"
    assert shop.sandbox.contacts == []
    assert_forgotten(shop)


def test_it_erases_more_events_than_one_delivery_takes(shop: Shop) -> None:
    for number in range(450):
        body = {**BODY, "first_name": f"Annabel the {number}th"}
        outboxd.enqueue("customers/update", body, source="shopify", db=shop.path)
    redact(shop)
    assert shop.status()["pending"] == 0
    assert shop.sandbox.contacts == []
    assert_forgotten(shop)


def test_a_guest_who_is_in_an_import_meanwhile_is_forgotten_with_the_account(make_shop: MakeShop) -> None:
    """Who is in flight cannot be taken over by the account that has the same address."""
    shop = make_shop({"import_delay": timedelta(seconds=40)}, options={"list_id": 5})
    others = [{"email": f"bea{number}@example.com", "firstName": "Bea"} for number in range(60)]
    shop.fill("updated", [{"email": ANN, "firstName": "Annabel"}, *others], is_backfill=True)
    shop.run_until(lambda: any(each["process_id"] for each in shop.status()["imports"]))
    shop.later(seconds=1)
    shop.enqueue("redacted", id=4711, email=ANN)
    shop.settle()
    assert len(shop.sandbox.contacts) == len(others)
    assert_forgotten(shop, ANN, "Annabel")
