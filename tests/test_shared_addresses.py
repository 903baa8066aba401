"""Customers who meet at an address: their deliveries take turns, and each contact ends as the shop has it."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from outboxd import app, clock
from outboxd.brevo.paths import contact_path
from outboxd.brevo.sandbox import Fault
from tests.shop import KEY, MakeShop, Shop

ANN = {"id": 1, "email": "ann@example.com", "firstName": "Ann"}
BOB = {"id": 2, "email": "bob@example.com", "firstName": "Bob"}


@pytest.fixture
def slow(make_shop: MakeShop) -> Shop:
    """A Brevo that takes its time, so that deliveries would overlap."""
    return make_shop({"latency": timedelta(milliseconds=10)}, options={"delete_behavior": "hard"})


def people(shop: Shop) -> dict[str, Any]:
    return {each["email"]: each["attributes"].get("FIRSTNAME") for each in shop.sandbox.contacts}


def test_two_customers_who_swap_addresses_keep_their_names(slow: Shop) -> None:
    for data in (ANN, BOB):
        slow.sent("created", **data)
    slow.later(seconds=1)
    slow.enqueue("updated", **{**ANN, "email": BOB["email"]})
    slow.enqueue("updated", **{**BOB, "email": ANN["email"]})
    slow.drain()
    assert people(slow) == {"bob@example.com": "Ann", "ann@example.com": "Bob"}
    assert slow.status()["dead"] == 0


def test_whoever_registers_at_an_address_that_is_just_left_is_not_removed(slow: Shop) -> None:
    slow.sent("created", **ANN)
    slow.later(seconds=1)
    slow.enqueue("deleted", id=1)
    slow.enqueue("created", **{**ANN, "id": 3, "firstName": "Anna"})
    slow.drain()
    assert people(slow) == {"ann@example.com": "Anna"}


def test_whoever_takes_the_address_of_one_who_moves_gets_a_contact_of_their_own(slow: Shop) -> None:
    slow.sent("created", **ANN)
    slow.later(seconds=1)
    slow.enqueue("updated", **{**ANN, "email": "new@example.com"})
    slow.enqueue("created", **{**BOB, "email": ANN["email"]})
    slow.drain()
    assert people(slow) == {"new@example.com": "Ann", "ann@example.com": "Bob"}


@pytest.mark.parametrize("behavior", ["soft", "hard"])
def test_the_last_of_two_customers_with_one_contact_takes_it_along(
    make_shop: MakeShop, behavior: str
) -> None:
    shop = make_shop(options={"delete_behavior": behavior, "list_id": 5})
    for customer_id in (1, 2):
        shop.sent("created", **{**ANN, "id": customer_id})
    shop.later(seconds=1)
    for customer_id in (1, 2):
        shop.enqueue("deleted", id=customer_id)
    shop.drain()
    left = [(each["emailBlacklisted"], each["listIds"]) for each in shop.sandbox.contacts]
    assert left == ([(True, [])] if behavior == "soft" else [])


BOTH = {"email": "ann@example.com", "firstName": "Ann"}


def is_out(shop: Shop) -> Any:
    return shop.contact(BOTH["email"])["emailBlacklisted"]


def test_an_opt_out_is_told_after_another_customer_with_the_contact_opted_in(shop: Shop) -> None:
    for customer_id in (1, 2):
        shop.sent("created", id=customer_id, **BOTH, acceptsMarketing=False)
        shop.later(seconds=1)
    shop.sent("updated", id=2, acceptsMarketing=True)
    assert not is_out(shop)
    shop.later(seconds=1)
    shop.sent("updated", id=1, firstName="Ann")
    shop.later(seconds=1)
    event = shop.sent("updated", id=1, **BOTH, acceptsMarketing=False)
    assert event["attempts_made"][0]["verdict"] == "delivered"
    assert is_out(shop)


def test_an_opt_in_that_comes_late_lifts_no_opt_out_that_another_customer_said_since(shop: Shop) -> None:
    for customer_id in (1, 2):
        shop.sent("created", id=customer_id, **BOTH, acceptsMarketing=False)
    before = clock.to_text(shop.clock())
    shop.later(minutes=1)
    shop.sent("updated", id=2, **BOTH, acceptsMarketing=False)
    shop.sent("updated", id=1, **BOTH, acceptsMarketing=True, updatedAt=before)
    assert is_out(shop)
    shop.later(minutes=1)
    shop.sent("updated", id=2, acceptsMarketing=True)
    assert not is_out(shop), "that is the last word"


@pytest.mark.parametrize("end", [("deleted", {}), ("updated", {"email": "new@example.com"})])
def test_what_one_said_who_left_is_not_believed_of_whoever_stays(
    shop: Shop, end: tuple[str, dict[str, str]]
) -> None:
    """Neither the name nor the opt-in, though nobody shares the contact any more."""
    for customer_id in (1, 2):
        shop.sent("created", id=customer_id, **BOTH, acceptsMarketing=False)
        shop.later(seconds=1)
    shop.sent("updated", id=2, firstName="Anne", acceptsMarketing=True)
    shop.later(seconds=1)
    shop.sent(end[0], id=2, **end[1])
    shop.later(seconds=1)
    shop.sent("updated", id=1, **BOTH, acceptsMarketing=False)
    assert people(shop)[BOTH["email"]] == "Ann"
    assert is_out(shop)


@pytest.mark.parametrize("at_once", [False, True])
def test_an_opt_in_that_is_brought_along_lifts_no_opt_out_at_the_new_address(
    shop: Shop, at_once: bool
) -> None:
    """Whoever moves there and wants news says so there; told at once it ends as told piece by piece."""
    shop.sent("created", **BOB, acceptsMarketing=False)
    shop.sent("created", **ANN, acceptsMarketing=False)
    shop.later(seconds=1)
    shop.enqueue("updated", **BOB, acceptsMarketing=True)
    shop.later(seconds=1)
    if not at_once:
        shop.drain()
    shop.enqueue("updated", **{**BOB, "email": ANN["email"]}, acceptsMarketing=True)
    shop.drain()
    assert is_out(shop)
    shop.later(seconds=1)
    shop.enqueue("updated", id=2, acceptsMarketing=False)
    shop.later(seconds=1)
    shop.sent("updated", id=2, acceptsMarketing=True)
    assert not is_out(shop)


@pytest.mark.parametrize("end", [("updated", {"email": "new@example.com"}), ("deleted", {})])
def test_an_opt_out_is_told_where_it_was_said_though_the_customer_has_left_since(
    shop: Shop, end: tuple[str, dict[str, str]]
) -> None:
    for customer_id in (1, 2):
        shop.sent("created", id=customer_id, **BOTH, acceptsMarketing=False)
        shop.later(seconds=1)
    shop.sent("updated", id=1, acceptsMarketing=True)
    assert not is_out(shop)
    shop.later(seconds=1)
    shop.enqueue("updated", id=1, acceptsMarketing=False)
    shop.later(seconds=1)
    shop.enqueue(end[0], id=1, **end[1])
    shop.drain()
    assert is_out(shop)


@pytest.mark.parametrize("at_once", [False, True])
def test_an_opt_in_that_is_said_again_after_anothers_opt_out_lifts_it_not(shop: Shop, at_once: bool) -> None:
    for customer_id in (1, 2):
        shop.sent("created", id=customer_id, **BOTH, acceptsMarketing=False)
        shop.later(seconds=1)
    before = clock.to_text(shop.clock())
    shop.later(seconds=1)
    shop.sent("updated", id=2, **BOTH, acceptsMarketing=False)
    shop.later(seconds=1)
    shop.enqueue("updated", id=1, acceptsMarketing=True, updatedAt=before)
    if not at_once:
        shop.drain()
    shop.sent("updated", id=1, acceptsMarketing=True, updatedAt=clock.to_text(shop.clock()))
    assert is_out(shop)


@pytest.mark.parametrize("at_once", [False, True])
def test_a_soft_deletion_that_leaves_the_contact_to_another_customer_is_no_opt_out(
    make_shop: MakeShop, at_once: bool
) -> None:
    """Nobody was told of it, so whoever comes back and opts in lifts what they did not do."""
    shop = make_shop(options={"delete_behavior": "soft"})
    for customer_id in (1, 2):
        shop.sent("created", id=customer_id, **BOTH)
        shop.later(seconds=1)
    shop.sent("updated", id=2, acceptsMarketing=False)
    shop.later(seconds=1)
    shop.enqueue("deleted", id=1)
    if not at_once:
        shop.drain()
    shop.later(seconds=1)
    shop.enqueue("created", id=1, **BOTH, acceptsMarketing=True)
    shop.drain()
    assert is_out(shop)


def test_a_soft_deletion_that_leaves_the_contact_keeps_nobody_from_opting_in(make_shop: MakeShop) -> None:
    shop = make_shop(options={"delete_behavior": "soft"})
    for customer_id in (1, 2):
        shop.sent("created", id=customer_id, **BOTH, acceptsMarketing=False if customer_id == 2 else None)
        shop.later(seconds=1)
    before = clock.to_text(shop.clock())
    shop.later(seconds=1)
    shop.sent("deleted", id=1)
    shop.sent("updated", id=2, acceptsMarketing=True, updatedAt=before)
    assert not is_out(shop)


PHONED = {"firstName": "FIRSTNAME", "lastName": "LASTNAME", "phone": "SMS"}


def lee_and(shop: Shop, name: str) -> None:
    """Two customers with one contact; only the first one has a phone."""
    shop.sent("created", id=1, **BOTH, lastName="Lee", phone="+4915112345678")
    shop.later(seconds=1)
    shop.sent("created", id=2, **BOTH, lastName=name)
    shop.later(seconds=1)


@pytest.mark.parametrize("behavior", ["soft", "hard"])
@pytest.mark.parametrize("is_deleted_first", [False, True])
def test_of_whoever_is_forgotten_nothing_stays_in_a_contact_that_another_customer_has(
    make_shop: MakeShop, behavior: str, is_deleted_first: bool
) -> None:
    """What both said alike stays, and what the other one said since. Shops delete, and then redact."""
    shop = make_shop(mapping=PHONED, options={"delete_behavior": behavior})
    lee_and(shop, "Bee")
    shop.sent("updated", id=1, lastName="Leigh")
    shop.later(seconds=1)
    first, *others = ("deleted", "redacted") if is_deleted_first else ("redacted",)
    assert shop.sent(first, id=1)["attempts_made"][0]["verdict"] == "delivered"
    for event in others:
        shop.later(seconds=1)
        shop.sent(event, id=1)
    assert shop.contact(BOTH["email"])["attributes"] == {"FIRSTNAME": "Ann"}
    shop.later(seconds=1)
    shop.sent("updated", id=2, lastName="Bee")
    assert shop.contact(BOTH["email"])["attributes"] == {"FIRSTNAME": "Ann", "LASTNAME": "Bee"}


@pytest.mark.parametrize("behavior", ["soft", "hard"])
@pytest.mark.parametrize("name", ["Bee", "Lee"])
def test_a_new_life_does_not_empty_what_another_customer_has_said_since_or_alike(
    make_shop: MakeShop, name: str, behavior: str
) -> None:
    shop = make_shop(mapping=PHONED, options={"delete_behavior": behavior})
    lee_and(shop, name)
    shop.sent("deleted", id=1)
    shop.later(seconds=1)
    shop.sent("created", id=1, **BOTH)
    assert shop.contact(BOTH["email"])["attributes"] == {"FIRSTNAME": "Ann", "LASTNAME": name}


def test_what_is_emptied_of_a_missing_contact_subscribes_nobody(shop: Shop) -> None:
    shop.sent("created", id=2, **BOTH, acceptsMarketing=False)
    shop.later(seconds=1)
    shop.sent("created", id=1, **{**BOTH, "firstName": "Anne"})
    shop.later(seconds=1)
    app.brevo(shop.settings, KEY).call("DELETE", contact_path(BOTH["email"]))
    shop.sent("redacted", id=1)
    assert is_out(shop)


def test_a_missing_contact_is_made_anew_with_the_opt_out_of_whoever_has_it_too(shop: Shop) -> None:
    for customer_id in (1, 2):
        shop.sent("created", id=customer_id, **BOTH, acceptsMarketing=False if customer_id == 2 else None)
    app.brevo(shop.settings, KEY).call("DELETE", contact_path(BOTH["email"]))
    shop.later(seconds=1)
    shop.sent("updated", id=1, firstName="Anne")
    assert people(shop) == {BOTH["email"]: "Anne"}
    assert is_out(shop)


def test_older_news_of_what_a_customer_never_said_before_is_not_told_over_anothers(shop: Shop) -> None:
    before = clock.to_text(shop.clock())
    shop.later(seconds=1)
    shop.sent("created", id=1, **BOTH, lastName="Lee")
    shop.later(seconds=1)
    shop.sent("created", id=2, **BOTH)
    shop.sent("updated", id=2, lastName="Bee", updatedAt=before)
    assert shop.contact(BOTH["email"])["attributes"]["LASTNAME"] == "Lee"


def test_older_news_of_another_source_is_not_told_over_newer_news(shop: Shop) -> None:
    before = (shop.clock() - timedelta(days=1)).isoformat()[:19]
    shop.sent("created", **ANN)
    body = {"id": 1, "email": ANN["email"], "first_name": "Anna", "date_modified_gmt": before}
    shop.insert("customer_created", body, "woocommerce")
    shop.drain()
    assert people(shop) == {ANN["email"]: "Ann"}


def test_a_creation_that_waited_is_not_told_over_what_another_customer_said_meanwhile(shop: Shop) -> None:
    shop.sent("created", **BOB)
    shop.sandbox.faults.add(Fault(status=503, method="POST", times=1))
    shop.sent("created", **ANN)
    shop.later(seconds=1)
    shop.sent("updated", **{**BOB, "email": ANN["email"]})
    shop.later(minutes=5)
    shop.drain()
    assert people(shop) == {ANN["email"]: "Bob"}


def test_a_move_that_waited_brings_no_older_name_over_what_another_customer_said_meanwhile(
    shop: Shop,
) -> None:
    shop.sent("created", **BOB)
    shop.later(seconds=1)
    shop.sandbox.faults.add(Fault(status=503, times=1))
    shop.sent("updated", **{**BOB, "email": ANN["email"], "firstName": "Bobby"})
    shop.later(seconds=1)
    shop.sent("created", **ANN)
    shop.later(minutes=5)
    shop.drain()
    assert people(shop) == {ANN["email"]: "Ann"}


def test_whoever_moves_away_from_a_shared_contact_takes_their_attributes_along(shop: Shop) -> None:
    """As far as it is sure that they are theirs: who was overtaken cannot know, and is told so."""
    shop.sent("created", **ANN)
    shop.later(seconds=1)
    shop.sent("created", **{**BOB, "email": ANN["email"]})
    shop.later(seconds=1)
    assert shop.sent("updated", id=2, email=BOB["email"])["last_error"] is None
    assert people(shop) == {ANN["email"]: None, BOB["email"]: "Bob"}
    shop.later(seconds=1)
    shop.sent("created", **{**BOB, "id": 3, "email": ANN["email"]})
    shop.later(seconds=1)
    assert "may be missing" in shop.sent("updated", id=1, email="new@example.com")["last_error"]
    assert people(shop) == {ANN["email"]: "Bob", BOB["email"]: "Bob", "new@example.com": None}


@pytest.mark.parametrize("is_lost", [False, True])
def test_whoever_moves_away_from_a_shared_contact_leaves_nothing_there_that_they_alone_said(
    make_shop: MakeShop, is_lost: bool
) -> None:
    """Their phone goes along, which no two contacts can have; said again even if an answer was lost there."""
    shop = make_shop(mapping=PHONED)
    phone = {"phone": "+4915112345678"}
    shop.sent("created", id=1, **BOTH, lastName="Lee")
    shop.later(seconds=1)
    shop.sent("created", id=2, **BOTH, lastName="Bee", **phone)
    shop.later(seconds=1)
    if is_lost:
        shop.sandbox.faults.add(Fault(behaviour="lost_answer", method="PUT", times=1))
    shop.sent("updated", id=2, email=BOB["email"], **(phone if is_lost else {}))
    shop.later(minutes=5)
    shop.drain()
    assert shop.contact(BOTH["email"])["attributes"] == {"FIRSTNAME": "Ann"}
    theirs = {"FIRSTNAME": "Ann", "LASTNAME": "Bee", "SMS": "4915112345678"}
    assert shop.contact("bob@example.com")["attributes"] == theirs


@pytest.mark.parametrize("behavior", ["soft", "hard"])
def test_whoever_is_deleted_leaves_nothing_that_another_customer_could_take_along(
    make_shop: MakeShop, behavior: str
) -> None:
    shop = make_shop(mapping=PHONED, options={"delete_behavior": behavior})
    shop.sent("created", id=1, email=BOTH["email"], firstName="Bob")
    shop.later(seconds=1)
    shop.sent("created", id=2, email=BOTH["email"], lastName="Lee", phone="+4915112345678")
    shop.later(seconds=1)
    shop.sent("deleted", id=2)
    shop.later(seconds=1)
    shop.sent("updated", id=1, email=BOB["email"])
    assert shop.contact("bob@example.com")["attributes"] == {"FIRSTNAME": "Bob"}


@pytest.mark.parametrize(
    "end", [("redacted", {}), ("deleted", {}), ("updated", {"email": "new@example.com"})]
)
def test_what_was_brought_to_a_shared_contact_goes_with_who_brought_it(
    shop: Shop, end: tuple[str, dict[str, str]]
) -> None:
    """Though the other one had said something else, after it was said and before it was brought."""
    shop.sent("created", **BOB)
    shop.later(seconds=1)
    shop.sent("created", **ANN)
    shop.later(seconds=1)
    shop.sent("updated", id=2, email=ANN["email"])
    assert people(shop) == {ANN["email"]: "Bob"}
    shop.later(seconds=1)
    shop.sent(end[0], id=2, **end[1])
    assert people(shop)["ann@example.com"] is None


def test_whoever_was_overtaken_takes_along_what_they_alone_had_said(make_shop: MakeShop) -> None:
    shop = make_shop(mapping=PHONED)
    shop.sent("created", **BOB, lastName="Bee", phone="+4915112345678")
    shop.later(seconds=1)
    shop.sent("created", **{**ANN, "email": BOB["email"]})
    shop.later(seconds=1)
    shop.sent("updated", id=2, email="new@example.com")
    assert people(shop) == {BOB["email"]: "Ann", "new@example.com": None}
    theirs = {"LASTNAME": "Bee", "SMS": "4915112345678"}
    assert shop.contact("new@example.com")["attributes"] == theirs
    assert shop.contact("bob@example.com")["attributes"] == {"FIRSTNAME": "Ann"}


@pytest.mark.parametrize("is_out", [False, True])
def test_a_contact_that_cannot_be_emptied_keeps_nobody_from_being_deleted(shop: Shop, is_out: bool) -> None:
    """Nor from being told of their opt-out; and if it is missing, none is made of what is empty."""
    choice = {"acceptsMarketing": False} if is_out else {}
    for status in (400, 404):
        shop.sent("created", **ANN)
        shop.later(seconds=1)
        shop.sent("created", **{**BOB, "email": ANN["email"]})
        shop.later(seconds=1)
        if status == 404:
            app.brevo(shop.settings, KEY).call("DELETE", contact_path(str(ANN["email"])))
        else:
            shop.sandbox.faults.add(Fault(status=status, method="PUT", identifier=str(ANN["email"]), times=1))
        if is_out:
            shop.sandbox.faults.clear()
            shop.enqueue("updated", id=2, **choice)
            shop.later(seconds=1)
        event = shop.sent("deleted", id=2)
        assert event["status"] == "delivered"
        blocked = [each["emailBlacklisted"] for each in shop.sandbox.contacts]
        assert blocked == ([] if status == 404 and not is_out else [is_out])
        shop.sent("redacted", id=1)


def test_what_was_said_at_one_time_is_the_last_ones(shop: Shop) -> None:
    """Who was told first takes nothing of it out, or along."""
    at = clock.to_text(shop.clock())
    for customer in (BOB, ANN):
        shop.sent("created", **{**customer, "email": ANN["email"]}, updatedAt=at)
    shop.later(seconds=1)
    shop.sent("updated", id=2, email=BOB["email"])
    assert people(shop) == {ANN["email"]: "Ann", BOB["email"]: None}


@pytest.mark.parametrize("status", [400, 405, 422])
def test_a_contact_that_cannot_be_emptied_keeps_nobody_from_moving(shop: Shop, status: int) -> None:
    shop.sent("created", **ANN)
    shop.later(seconds=1)
    shop.sent("created", **{**BOB, "email": ANN["email"]})
    shop.later(seconds=1)
    shop.sandbox.faults.add(Fault(status=status, method="PUT", identifier=str(ANN["email"]), times=1))
    event = shop.sent("updated", id=2, email=BOB["email"])
    assert (event["status"], "would not empty it" in event["last_error"]) == ("delivered", True)
    assert people(shop) == {ANN["email"]: "Bob", BOB["email"]: "Bob"}
    shop.later(seconds=1)
    shop.sent("redacted", id=2)
    assert people(shop) == {ANN["email"]: "Bob"}


def test_a_blank_takes_nothing_of_another_customer_along(make_shop: MakeShop) -> None:
    shop = make_shop(mapping=PHONED)
    shop.sent("created", **ANN, lastName="Lee", phone="+4915112345678")
    shop.later(seconds=1)
    shop.sent("created", **{**BOB, "email": ANN["email"]}, lastName="", phone="")
    shop.later(seconds=1)
    shop.sent("updated", id=2, email=BOB["email"])
    assert shop.contact("bob@example.com")["attributes"] == {"FIRSTNAME": "Bob"}


@pytest.mark.parametrize("behavior", ["soft", "hard"])
@pytest.mark.parametrize("late", ["updated", "deleted"])
def test_late_news_of_the_deleted_takes_no_guests_contact(
    make_shop: MakeShop, behavior: str, late: str
) -> None:
    shop = make_shop(options={"delete_behavior": behavior})
    shop.sent("created", email=ANN["email"], firstName="Ann")
    shop.later(seconds=1)
    shop.sent("created", **BOB)
    shop.later(seconds=1)
    shop.sent("updated", id=2, email=ANN["email"])
    shop.later(seconds=1)
    shop.sent("deleted", id=2)
    shop.later(seconds=1)
    shop.sent(late, id=2, email=ANN["email"])
    shop.later(seconds=1)
    shop.sent("updated", email=ANN["email"], firstName="Anna")
    assert people(shop) == {ANN["email"]: "Anna"}


def test_what_was_perhaps_delivered_of_one_customer_is_not_believed_of_another(shop: Shop) -> None:
    for customer_id in (1, 2):
        shop.sent("created", id=customer_id, **BOTH)
        shop.later(seconds=1)
    shop.sandbox.faults.add(Fault(behaviour="lost_answer", method="PUT", times=1))
    assert shop.sent("updated", id=1, firstName="Anne")["status"] == "pending"
    shop.sent("updated", id=2, firstName="Ann")
    assert people(shop) == {BOTH["email"]: "Ann"}


def test_of_many_customers_with_one_contact_a_record_touches_only_who_was_told_last(shop: Shop) -> None:
    shop.sent("created", id=1, **BOTH)
    row = "'custom:t' || ?1, 'custom', 't' || ?1, ?2, ?2, 1"
    with closing(sqlite3.connect(shop.path)) as connection, connection:
        connection.executemany(
            "INSERT INTO contacts (customer_key, source, customer_id, email, synced_email, is_overtaken)"
            f" VALUES ({row})",
            [(number, BOTH["email"]) for number in range(100)],
        )
        connection.execute("CREATE TABLE touched (customer_key TEXT)")
        connection.execute(
            "CREATE TRIGGER touch AFTER UPDATE ON contacts BEGIN"
            " INSERT INTO touched VALUES (NEW.customer_key); END"
        )
    shop.later(seconds=1)
    shop.sent("updated", id="t7", firstName="Tom")
    assert shop.rows("SELECT DISTINCT * FROM touched ORDER BY 1") == [("custom:1",), ("custom:t7",)]
    assert shop.rows("SELECT customer_key FROM contacts WHERE NOT is_overtaken") == [("custom:t7",)]


def test_what_a_contact_lost_in_brevo_is_sent_again_when_it_is_told_again(shop: Shop) -> None:
    """Made anew from one field, it must not count as having the others."""
    shop.sent("created", **ANN, lastName="Lee")
    shop.sandbox.faults.add(Fault(status=404, method="PUT", times=1))
    shop.later(seconds=1)
    shop.sent("updated", id=1, lastName="Lind")
    shop.later(seconds=1)
    calls = len(shop.calls)
    shop.sent("updated", **ANN, lastName="Lind")
    assert shop.calls[calls].body == {"attributes": {"FIRSTNAME": "Ann"}}


def test_a_move_to_a_taken_address_takes_the_attributes_along(shop: Shop) -> None:
    for data in (ANN, {**BOB, "id": None}):
        shop.sent("created", **data)
    shop.later(seconds=1)
    shop.sent("updated", id=1, email=BOB["email"])
    assert people(shop) == {"bob@example.com": "Ann"}


def test_nothing_is_sent_before_the_attributes_are_known(make_shop: MakeShop) -> None:
    """A number written as text would be dropped by Brevo without a word."""
    mapping = {"email": "email", "totalSpent": "SPENT"}
    shop = make_shop({"attributes": {"SPENT": "float"}}, mapping=mapping)
    shop.sandbox.faults.add(Fault(status=500, path="/contacts/attributes", times=1))
    shop.reopen(mapping=mapping)
    event = shop.sent("created", id=1, email="ann@example.com", totalSpent="99.50")
    assert event["status"] == "pending"
    assert shop.sandbox.contacts == []
    shop.later(minutes=5)
    shop.reopen(mapping=mapping)
    shop.drain()
    assert shop.contact("ann@example.com")["attributes"]["SPENT"] == 99.5


def test_a_path_that_fails_leaves_out_its_own_attribute_alone(make_shop: MakeShop) -> None:
    mapping = {"email": "email", "firstName": "FIRSTNAME", "join(', ', labels)": "LASTNAME"}
    shop = make_shop(mapping=mapping)
    event = shop.sent("created", **ANN)
    assert event["status"] == "delivered"
    assert "cannot be applied" in event["last_error"]
    assert people(shop) == {"ann@example.com": "Ann"}
