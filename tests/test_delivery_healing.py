"""What can be healed on the way is healed, and told as a warning."""

from typing import Any

import pytest

from outboxd.brevo.sandbox import Fault
from tests.shop import MakeShop, Shop, elsewhere

ANN = {"id": 7, "email": "ann@example.com", "firstName": "Ann", "lastName": "Archer"}
PHONE = "+33612345678"

ADDRESS_TAKEN = "Unable to create contact, email is already associated with another Contact"


def test_a_contact_that_was_removed_inside_brevo_is_made_anew_and_joins_its_list(make_shop: MakeShop) -> None:
    shop = make_shop(options={"list_id": 3})
    shop.sent("created", **ANN)
    elsewhere(shop, "DELETE", "/contacts/ann%40example.com?identifierType=email_id")
    event = shop.sent("updated", **{**ANN, "lastName": "Baker"})
    assert event["status"] == "delivered"
    assert event["last_error"] == "Brevo did not have the contact any more: made anew"
    again = shop.contact("ann@example.com")
    assert again["attributes"] == {"FIRSTNAME": "Ann", "LASTNAME": "Baker"}
    assert again["listIds"] == [3]


def test_an_opt_out_is_said_again_to_a_contact_made_anew(shop: Shop) -> None:
    shop.sent("created", **ANN, acceptsMarketing=False)
    elsewhere(shop, "DELETE", "/contacts/ann%40example.com?identifierType=email_id")
    shop.sent("updated", **{**ANN, "lastName": "Baker"})
    assert shop.contact("ann@example.com")["emailBlacklisted"] is True


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (409, {"code": "conflict", "message": "Contact already exists"}),
        (
            400,
            {
                "code": "duplicate_parameter",
                "message": ADDRESS_TAKEN,
                "metadata": {"duplicate_identifiers": ["email"]},
            },
        ),
        (
            400,
            {
                "code": "invalid_parameter",
                "message": ADDRESS_TAKEN,
                "metadata": {"duplicate_identifiers": ["email"]},
            },
        ),
        (400, {"code": "duplicate_parameter", "message": ADDRESS_TAKEN}),
        (400, {"code": "duplicate_parameter", "message": "Contact already exist"}),
    ],
    ids=["409", "400-duplicate", "400-invalid", "400-by-message", "400-by-older-message"],
)
def test_a_contact_that_exists_is_updated_whatever_the_clash_is_called(
    shop: Shop, status: int, body: dict[str, Any]
) -> None:
    elsewhere(shop, "POST", "/contacts", {"email": "ann@example.com", "attributes": {"LASTNAME": "Old"}})
    shop.sandbox.faults.add(Fault(status=status, body=body, method="POST", times=1))
    event = shop.sent("created", **ANN)
    assert event["status"] == "delivered"
    assert event["last_error"] == "the contact existed already: updated"
    assert shop.contact("ann@example.com")["attributes"] == {"FIRSTNAME": "Ann", "LASTNAME": "Archer"}


@pytest.mark.parametrize("status", [400, 500])
def test_a_contact_that_exists_and_cannot_be_updated_is_not_said_to_be(shop: Shop, status: int) -> None:
    shop.sandbox.faults.add(
        Fault(status=409, method="POST", times=1),
        Fault(status=status, body={"code": "invalid", "message": "No luck"}, method="PUT", times=1),
    )
    assert shop.sent("created", **ANN)["last_error"] == "No luck"


@pytest.mark.parametrize("status", [400, 500])
def test_a_contact_that_is_gone_and_cannot_be_made_is_not_said_to_be(shop: Shop, status: int) -> None:
    shop.sent("created", **ANN)
    shop.sandbox.faults.add(
        Fault(status=404, method="PUT", times=1),
        Fault(status=status, body={"code": "invalid", "message": "No luck"}, method="POST", times=1),
    )
    assert shop.sent("updated", **{**ANN, "lastName": "Baker"})["last_error"] == "No luck"


@pytest.mark.parametrize("newer_clash_code", [False, True])
@pytest.mark.parametrize("conflict_status", [400, 409])
def test_a_phone_that_another_contact_has_is_left_out_with_a_warning(
    make_shop: MakeShop, conflict_status: int, newer_clash_code: bool
) -> None:
    shop = make_shop({"conflict_status": conflict_status, "newer_clash_code": newer_clash_code})
    shop.sent("created", id=8, email="bob@example.com", phone=PHONE)
    event = shop.sent("created", **ANN, phone=PHONE)
    assert event["status"] == "delivered", event["last_error"]
    assert event["last_error"] == "phone left out: another contact has it"
    assert event["attempts_made"][0]["detail"] == event["last_error"]
    assert shop.contact("ann@example.com")["attributes"] == {"FIRSTNAME": "Ann", "LASTNAME": "Archer"}


def test_a_phone_that_is_taken_does_not_stop_an_update(shop: Shop) -> None:
    shop.sent("created", id=8, email="bob@example.com", phone=PHONE)
    shop.sent("created", **ANN)
    event = shop.sent("updated", **{**ANN, "lastName": "Baker"}, phone=PHONE)
    assert (event["status"], event["last_error"]) == ("delivered", "phone left out: another contact has it")
    assert shop.contact("ann@example.com")["attributes"]["LASTNAME"] == "Baker"


def test_an_update_of_nothing_but_a_phone_that_is_taken_is_done(shop: Shop) -> None:
    shop.sent("created", id=8, email="bob@example.com", phone=PHONE)
    shop.sent("created", **ANN)
    event = shop.sent("updated", **ANN, phone=PHONE)
    assert (event["status"], event["last_error"]) == ("delivered", "phone left out: another contact has it")


def test_a_phone_that_brevo_refuses_is_left_out_with_a_warning(shop: Shop) -> None:
    refusal = {"code": "invalid_parameter", "message": "Invalid phone number"}
    shop.sandbox.faults.add(Fault(status=400, body=refusal, times=1))
    event = shop.sent("created", **ANN, phone=PHONE)
    assert event["status"] == "delivered"
    assert event["last_error"] == "phone left out: Brevo does not take it as valid"
    assert shop.contact("ann@example.com")["attributes"]["FIRSTNAME"] == "Ann"


def test_a_new_address_moves_the_contact(shop: Shop) -> None:
    shop.sent("created", **ANN)
    before = shop.contact("ann@example.com")["id"]
    event = shop.sent("updated", **{**ANN, "email": "ann.archer@example.com"})
    assert event["status"] == "delivered"
    assert [contact["email"] for contact in shop.sandbox.contacts] == ["ann.archer@example.com"]
    assert shop.contact("ann.archer@example.com")["id"] == before


def test_an_opt_out_made_inside_brevo_survives_a_move(shop: Shop) -> None:
    """Brevo forgets it when an address changes, unless it is told again."""
    shop.sent("created", **ANN)
    shop.sandbox.unsubscribe("ann@example.com")
    shop.sent("updated", **{**ANN, "email": "ann.archer@example.com"})
    assert shop.contact("ann.archer@example.com")["emailBlacklisted"] is True


def test_a_move_keeps_everybody_else_opted_in(shop: Shop) -> None:
    shop.sent("created", **ANN)
    shop.sent("updated", **{**ANN, "email": "ann.archer@example.com"})
    assert shop.contact("ann.archer@example.com")["emailBlacklisted"] is False


def test_a_new_address_that_is_taken_merges_into_that_contact(make_shop: MakeShop) -> None:
    shop = make_shop(options={"list_id": 3})
    shop.sent("created", **ANN)
    shop.sandbox.unsubscribe("ann@example.com")
    new = {"email": "ann.archer@example.com", "attributes": {"LASTNAME": "Old"}}
    elsewhere(shop, "POST", "/contacts", new)
    event = shop.sent("updated", **{**ANN, "email": "ann.archer@example.com", "lastName": "Baker"})
    assert event["status"] == "delivered"
    assert "the new address was a contact already" in event["last_error"]
    [left] = shop.sandbox.contacts
    assert left["email"] == "ann.archer@example.com"
    assert left["attributes"] == {"FIRSTNAME": "Ann", "LASTNAME": "Baker"}
    assert left["listIds"] == [3]
    assert left["emailBlacklisted"] is True


@pytest.mark.parametrize("says_it_again", [True, False])
def test_a_phone_moves_along_to_an_address_that_is_taken(shop: Shop, says_it_again: bool) -> None:
    """No two contacts can have it, and it is the old one's until that is gone."""
    elsewhere(shop, "POST", "/contacts", {"email": "new@example.com"})
    shop.sent("created", id=1, email="old@example.com", firstName="Ada", phone="+4915112345678")
    phone = {"phone": "+4915112345678"} if says_it_again else {}
    moved = shop.sent("updated", id=1, email="new@example.com", firstName="Ada", **phone)
    [left] = shop.sandbox.contacts
    assert left["email"] == "new@example.com"
    assert left["attributes"] == {"FIRSTNAME": "Ada", "SMS": "4915112345678"}
    assert "phone left out" not in moved["last_error"]


def test_a_contact_is_said_to_be_removed_only_once_it_is(shop: Shop) -> None:
    elsewhere(shop, "POST", "/contacts", {"email": "new@example.com"})
    shop.sent("created", id=1, email="old@example.com", firstName="Ada")
    shop.sandbox.faults.add(Fault(status=400, method="DELETE"))
    event = shop.sent("updated", id=1, email="new@example.com", firstName="Ada")
    assert event["status"] == "dead"
    assert "removed" not in event["last_error"]
    assert shop.contact("old@example.com")


def test_what_a_move_that_broke_off_could_not_take_along_is_told_and_said_again(shop: Shop) -> None:
    """The phone is nowhere, once the old contact is gone and the new one has not been told."""
    elsewhere(shop, "POST", "/contacts", {"email": "new@example.com"})
    phone = "+4915112345678"
    shop.sent("created", id=1, email="old@example.com", firstName="Ada", phone=phone)
    shop.sandbox.faults.add(Fault(status=503, method="PUT", after=2, times=1))
    event = shop.enqueue("updated", id=1, email="new@example.com", firstName="Ada")
    shop.settle()
    told = shop.event(event)
    assert told["status"] == "delivered"
    assert told["last_error"].endswith("what this event does not say again may be missing")
    said_again = shop.sent("updated", id=1, email="new@example.com", firstName="Ada", phone=phone)
    assert said_again["last_error"] is None
    assert shop.contact("new@example.com")["attributes"] == {"FIRSTNAME": "Ada", "SMS": phone[1:]}


def test_a_move_of_a_contact_that_brevo_lost_makes_it_anew(shop: Shop) -> None:
    shop.sent("created", **ANN)
    elsewhere(shop, "DELETE", "/contacts/ann%40example.com?identifierType=email_id")
    event = shop.sent("updated", **{**ANN, "email": "ann.archer@example.com"})
    assert event["status"] == "delivered"
    assert [contact["email"] for contact in shop.sandbox.contacts] == ["ann.archer@example.com"]


def test_a_proxy_that_knows_no_such_page_makes_no_second_contact_of_one_that_moves(shop: Shop) -> None:
    shop.sent("created", **ANN)
    shop.sandbox.faults.add(Fault(status=404, method="GET", times=1, body="<html>Not here</html>"))
    event = shop.sent("updated", **{**ANN, "email": "ann@example.org"})
    assert event["status"] == "pending"
    assert [each["email"] for each in shop.sandbox.contacts] == ["ann@example.com"]
    shop.settle()
    assert (shop.event(event["id"])["status"], shop.event(event["id"])["last_error"]) == ("delivered", None)
    assert [each["email"] for each in shop.sandbox.contacts] == ["ann@example.org"]


@pytest.mark.parametrize("updates", [True, False])
def test_a_proxy_that_knows_no_such_page_makes_no_contact_anew(make_shop: MakeShop, updates: bool) -> None:
    """Nor is a contact that is there said to be missing, or in the way."""
    shop = make_shop(options={"update_enabled": updates})
    shop.sent("created", **ANN)
    shop.sandbox.faults.add(Fault(status=404, method="PUT", times=1, body="<html>Not here</html>"))
    event = shop.enqueue("updated", **{**ANN, "firstName": "Anna"})
    shop.settle()
    assert (shop.event(event)["status"], shop.event(event)["last_error"]) == ("delivered", None)
    assert shop.methods == ["POST", "PUT", "PUT"]
    assert shop.contact("ann@example.com")["attributes"]["FIRSTNAME"] == "Anna"


def test_a_move_whose_answer_was_lost_ends_the_same_when_it_is_tried_again(shop: Shop) -> None:
    shop.sent("created", **ANN)
    shop.sandbox.unsubscribe("ann@example.com")
    shop.sandbox.faults.add(Fault(behaviour="lost_answer", method="PUT", times=1))
    event_id = shop.enqueue("updated", **{**ANN, "email": "ann.archer@example.com"})
    shop.drain()
    shop.later(minutes=1)
    shop.drain()
    assert shop.event(event_id)["status"] == "delivered"
    [left] = shop.sandbox.contacts
    assert (left["email"], left["emailBlacklisted"]) == ("ann.archer@example.com", True)


def test_without_update_enabled_an_existing_contact_is_a_dead_letter_that_names_the_option(
    make_shop: MakeShop,
) -> None:
    shop = make_shop(options={"update_enabled": False})
    elsewhere(shop, "POST", "/contacts", {"email": "ann@example.com", "attributes": {"LASTNAME": "Old"}})
    shop.later(minutes=1)
    event = shop.sent("created", **ANN)
    assert event["status"] == "dead"
    assert "options.update_enabled is false" in event["last_error"]
    assert shop.contact("ann@example.com")["attributes"] == {"LASTNAME": "Old"}


def test_without_update_enabled_a_dead_letter_stays_one_when_it_is_tried_again(make_shop: MakeShop) -> None:
    shop = make_shop(options={"update_enabled": False})
    elsewhere(shop, "POST", "/contacts", {"email": "ann@example.com"})
    shop.later(minutes=1)
    shop.sandbox.faults.add(Fault(status=503, times=1))
    event_id = shop.enqueue("created", **ANN)
    shop.drain()
    shop.later(minutes=1)
    shop.drain()
    assert "options.update_enabled is false" in shop.event(event_id)["last_error"]
