"""What the shop says becomes what Brevo has: created, updated, deleted, and nothing that is not needed."""

import pytest

from outboxd.brevo.sandbox import Fault
from tests.shop import MakeShop, Shop

ANN = {"id": 7, "email": "ann@example.com", "firstName": "Ann", "lastName": "Archer"}


def test_a_new_customer_becomes_a_contact(shop: Shop) -> None:
    event = shop.sent("created", **ANN, phone="+33612345678")
    assert event["status"] == "delivered"
    assert event["last_error"] is None
    assert shop.contact("ann@example.com")["attributes"] == {
        "FIRSTNAME": "Ann",
        "LASTNAME": "Archer",
        "SMS": "33612345678",
    }
    [attempt] = event["attempts_made"]
    assert (attempt["verdict"], attempt["call"], attempt["http_status"]) == (
        "delivered",
        "POST /contacts",
        201,
    )
    assert attempt["request_id"] == shop.calls[0].request_id


def test_an_update_sends_only_what_differs(shop: Shop) -> None:
    shop.sent("created", **ANN)
    shop.sent("updated", **{**ANN, "lastName": "Baker"})
    assert shop.calls[-1].method == "PUT"
    assert shop.calls[-1].body == {"attributes": {"LASTNAME": "Baker"}}
    assert shop.contact("ann@example.com")["attributes"] == {"FIRSTNAME": "Ann", "LASTNAME": "Baker"}


def test_an_update_that_changes_nothing_costs_no_call(shop: Shop) -> None:
    shop.sent("created", **ANN)
    event = shop.sent("updated", **ANN)
    assert event["status"] == "delivered"
    assert event["attempts_made"][0]["verdict"] == "unchanged"
    assert shop.methods == ["POST"]


def test_a_cleared_field_is_cleared_and_an_absent_one_is_left_alone(shop: Shop) -> None:
    shop.sent("created", **ANN)
    shop.sent("updated", id=7, email="ann@example.com", lastName=None)
    assert shop.contact("ann@example.com")["attributes"] == {"FIRSTNAME": "Ann"}


def test_an_update_by_the_id_alone_finds_the_contact(shop: Shop) -> None:
    shop.sent("created", **ANN)
    assert shop.sent("updated", id=7, firstName="Anna")["status"] == "delivered"
    assert shop.contact("ann@example.com")["attributes"]["FIRSTNAME"] == "Anna"


def test_the_specifications_changes_are_understood(shop: Shop) -> None:
    shop.sent("created", **ANN)
    changes = {"lastName": {"old": "Archer", "new": "Cook"}}
    event = shop.sent("updated", id=7, email="ann@example.com", changes=changes)
    assert event["status"] == "delivered"
    assert shop.contact("ann@example.com")["attributes"]["LASTNAME"] == "Cook"


def test_the_list_is_joined_when_a_contact_is_first_synced_and_never_again(make_shop: MakeShop) -> None:
    shop = make_shop(options={"list_id": 3})
    shop.sent("created", **ANN)
    assert shop.contact("ann@example.com")["listIds"] == [3]
    shop.sent("updated", **{**ANN, "firstName": "Anna"})
    assert [call.body and call.body.get("listIds") for call in shop.calls] == [[3], None]


def test_a_contact_that_brevo_had_already_joins_the_list_at_its_first_sync(make_shop: MakeShop) -> None:
    shop = make_shop()
    shop.sent("created", **ANN)
    fresh = shop.path.with_name("other.db")
    other = Shop(fresh, shop.sandbox, shop.clock, options={"list_id": 3})
    assert other.sent("updated", **ANN)["status"] == "delivered"
    other.close()
    assert shop.contact("ann@example.com")["listIds"] == [3]


def test_an_opt_in_is_never_said_of_a_new_contact(shop: Shop) -> None:
    """`emailBlacklisted: false` would re-subscribe somebody who unsubscribed inside Brevo."""
    shop.sent("created", **ANN, acceptsMarketing=True)
    shop.sandbox.unsubscribe("ann@example.com")
    shop.sent("updated", **{**ANN, "firstName": "Anna"}, acceptsMarketing=True)
    assert all("emailBlacklisted" not in (call.body or {}) for call in shop.calls)
    assert shop.contact("ann@example.com")["emailBlacklisted"] is True


def test_an_opt_out_blocklists_and_the_shops_own_later_opt_in_lifts_it(shop: Shop) -> None:
    shop.sent("created", **ANN, acceptsMarketing=False)
    assert shop.contact("ann@example.com")["emailBlacklisted"] is True
    shop.later(minutes=1)
    shop.sent("updated", **ANN, acceptsMarketing=True)
    assert shop.contact("ann@example.com")["emailBlacklisted"] is False


def test_a_soft_deletion_blocklists_and_leaves_the_list(make_shop: MakeShop) -> None:
    shop = make_shop(options={"list_id": 3, "delete_behavior": "soft"})
    shop.sent("created", **ANN)
    event = shop.sent("deleted", id=7)
    assert event["status"] == "delivered"
    gone = shop.contact("ann@example.com")
    assert (gone["emailBlacklisted"], gone["listIds"]) == (True, [])


def test_a_hard_deletion_removes_the_contact(make_shop: MakeShop) -> None:
    shop = make_shop(options={"delete_behavior": "hard"})
    shop.sent("created", **ANN)
    event = shop.sent("deleted", id=7)
    assert event["status"] == "delivered"
    assert shop.sandbox.contacts == []
    assert shop.methods == ["POST", "DELETE"]


@pytest.mark.parametrize("behaviour", ["soft", "hard"])
def test_a_deletion_of_a_contact_that_brevo_lost_is_done(make_shop: MakeShop, behaviour: str) -> None:
    shop = make_shop(options={"delete_behavior": behaviour})
    shop.sent("created", **ANN)
    shop.sandbox.faults.add(Fault(status=404, times=1))
    event = shop.sent("deleted", id=7)
    assert event["status"] == "delivered"
    assert event["attempts_made"][0]["http_status"] == 404


@pytest.mark.parametrize("body", ["<html>Not here</html>", {"code": "not_found", "message": "Invalid route"}])
@pytest.mark.parametrize("behaviour", ["soft", "hard"])
def test_a_404_that_is_not_about_the_contact_does_not_end_a_deletion(
    make_shop: MakeShop, behaviour: str, body: object
) -> None:
    """Nobody would look for the contact any more, which is there."""
    shop = make_shop(options={"delete_behavior": behaviour})
    shop.sent("created", **ANN)
    shop.sandbox.faults.add(Fault(status=404, times=1, body=body))
    event = shop.sent("deleted", id=7)
    assert event["status"] == "pending"
    assert "check brevo.base_url" in event["last_error"]
    assert shop.contact("ann@example.com")["emailBlacklisted"] is False
    shop.settle()
    assert shop.event(event["id"])["status"] == "delivered"
    assert [each["emailBlacklisted"] for each in shop.sandbox.contacts] == [True] * (behaviour == "soft")


@pytest.mark.parametrize("behaviour", ["soft", "hard"])
def test_a_deletion_of_somebody_unknown_is_done_with_nothing_to_do(
    make_shop: MakeShop, behaviour: str
) -> None:
    shop = make_shop(options={"delete_behavior": behaviour})
    event = shop.sent("deleted", id=404)
    assert event["status"] == "delivered"
    assert "nothing to remove" in event["attempts_made"][0]["detail"]
    assert shop.calls == []


def test_a_late_update_does_not_bring_a_deleted_customer_back(make_shop: MakeShop) -> None:
    shop = make_shop(options={"delete_behavior": "hard"})
    shop.sent("created", **ANN)
    shop.sent("deleted", id=7)
    event = shop.sent("updated", **ANN, updatedAt="2020-01-01T00:00:00Z")
    assert (event["status"], event["attempts_made"][0]["verdict"]) == ("delivered", "superseded")
    assert shop.sandbox.contacts == []


@pytest.mark.parametrize("behaviour", ["soft", "hard"])
def test_a_newer_creation_brings_a_deleted_customer_back(make_shop: MakeShop, behaviour: str) -> None:
    shop = make_shop(options={"delete_behavior": behaviour, "list_id": 3})
    shop.sent("created", **ANN)
    shop.sent("deleted", id=7)
    shop.later(minutes=1)
    assert shop.sent("created", **ANN)["status"] == "delivered"
    assert shop.contact("ann@example.com")["listIds"] == [3]


def test_a_contact_that_two_customers_have_survives_the_deletion_of_one(make_shop: MakeShop) -> None:
    shop = make_shop(options={"delete_behavior": "hard"})
    shop.sent("created", **ANN)
    shop.sent("created", **{**ANN, "id": 8})
    event = shop.sent("deleted", id=8)
    assert event["status"] == "delivered"
    assert shop.contact("ann@example.com")["attributes"]["FIRSTNAME"] == "Ann"


def test_a_contact_that_two_customers_have_is_as_the_last_one_said(make_shop: MakeShop) -> None:
    """What the one has told is no more what the other one has there: that is told again, once."""
    shop = make_shop(options={"delete_behavior": "hard"})
    shop.sent("created", id=7, email="ann@example.com", firstName="Ann", lastName="Archer")
    shop.sent("created", id=70, email="ann@example.com", firstName="Anne", lastName="Archer")
    shop.sent("deleted", id=70)
    calls = len(shop.calls)
    for _ in range(2):
        shop.sent("updated", id=7, firstName="Ann", lastName="Archer")
    attributes = {"FIRSTNAME": "Ann", "LASTNAME": "Archer"}
    assert [call.body for call in shop.calls[calls:]] == [{"attributes": attributes}]
    assert shop.contact("ann@example.com")["attributes"] == attributes


@pytest.mark.parametrize("ids", [("7", "7\0x"), ("7\0x", "7")])
def test_an_id_with_a_nul_is_nobodys_and_keeps_no_other_event_waiting(
    shop: Shop, ids: tuple[str, str]
) -> None:
    """SQLite would end it there, and take one customer for another."""
    for number, customer_id in enumerate(ids):
        address = f"ann{number}@example.com"
        shop.insert("customer_created", {"id": customer_id, "email": address, "firstName": f"Ann {number}"})
        shop.drain()
    shop.sent("created", id=8, email="bea@example.com")
    found = {contact["email"]: contact["attributes"] for contact in shop.sandbox.contacts}
    assert found == {
        "ann0@example.com": {"FIRSTNAME": "Ann 0"},
        "ann1@example.com": {"FIRSTNAME": "Ann 1"},
        "bea@example.com": {},
    }
