"""What goes wrong with one event: tried again with backoff, refused with a reason, and never lost."""

from datetime import timedelta

import pytest

from outboxd.brevo.sandbox import Fault, Sandbox
from outboxd.clock import from_text
from tests.shop import MakeShop, Shop

UNWANTED = Fault(
    status=400,
    body={"code": "invalid_parameter", "message": "email is not valid"},
    identifier="unwanted@example.com",
)
"""An address that Brevo does not take."""

ANN = {"id": 7, "email": "ann@example.com", "firstName": "Ann", "lastName": "Archer"}

UNKNOWN_PATH = {"code": "not_found", "message": "Invalid route/ method passed"}
"""What Brevo says where its API is not."""

TRANSIENT = {
    "408": (Fault(status=408, times=1), "Something went wrong"),
    "425": (Fault(status=425, times=1), "Too early"),
    "500": (Fault(status=500, times=1), "Something went wrong"),
    "503": (Fault(status=503, times=1), "Something went wrong"),
    "502 in HTML": (Fault(behaviour="html", times=1), "HTTP 502 without a JSON body"),
    "200 in HTML": (Fault(behaviour="html", status=200, times=1), "not Brevo's API: something that is not"),
    "a redirect": (Fault(behaviour="redirect", times=1), "not Brevo's API: a redirect came back"),
    "404 in HTML": (Fault(status=404, body="<html>Not here</html>", times=1), "not Brevo's API: the 404"),
    "404 of a path": (Fault(status=404, body=UNKNOWN_PATH, times=1), "not Brevo's API: the 404"),
    "a reset": (Fault(behaviour="reset", times=1), "Brevo cannot be reached"),
    "no HTTP": (Fault(behaviour="garbage", times=1), "Brevo cannot be reached"),
    "half an answer": (Fault(behaviour="half", times=1), ""),
    "a huge answer": (Fault(behaviour="huge", times=1), ""),
    "no answer": (Fault(behaviour="hang", times=1), "no answer within 0.4 seconds"),
    "a drip": (Fault(behaviour="drip", times=1), "no answer within 0.4 seconds"),
    "dripping headers": (Fault(behaviour="drip_headers", times=1), "no answer within 0.4 seconds"),
    "a lost answer": (Fault(behaviour="lost_answer", times=1), "Brevo cannot be reached"),
}


@pytest.mark.parametrize(("fault", "reason"), TRANSIENT.values(), ids=TRANSIENT.keys())
def test_trouble_that_may_pass_is_tried_again_after_a_while(
    make_shop: MakeShop, fault: Fault, reason: str
) -> None:
    is_slow = fault.behaviour in ("hang", "drip", "drip_headers")
    shop = make_shop(brevo={"timeout_seconds": 0.4 if is_slow else 5})
    shop.sandbox.faults.add(fault)
    event = shop.sent("created", **ANN)
    assert (event["status"], event["attempts"]) == ("pending", 1)
    assert event["last_error"]
    assert reason in event["last_error"]
    assert shop.status()["retrying"] == 1
    assert len(shop.calls) == 1

    if is_slow:
        shop.reopen()  # to be answered in less than that is another matter
    shop.later(seconds=6)
    shop.drain()
    event = shop.event(event["id"])
    assert event["status"] == "delivered"
    assert [attempt["verdict"] for attempt in event["attempts_made"]] == ["retry", "delivered"]
    assert shop.contact("ann@example.com")["attributes"] == {"FIRSTNAME": "Ann", "LASTNAME": "Archer"}


@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_redirect_to_another_host_is_not_followed_and_does_not_carry_the_key_there(
    shop: Shop, status: int
) -> None:
    with Sandbox() as stranger:
        location = {"location": f"{stranger.url}/contacts"}
        shop.sandbox.faults.add(Fault(status=status, headers=location, body={}, times=1))
        assert shop.sent("created", **ANN)["status"] == "pending"
        assert list(stranger.calls) == []


@pytest.mark.parametrize("jitter", [0.0, 0.5])
def test_the_pauses_double_up_to_the_cap(make_shop: MakeShop, jitter: float) -> None:
    shop = make_shop(retry={"first_seconds": 10, "cap_seconds": 60, "jitter": jitter})
    shop.chance = 1.0
    shop.sandbox.faults.add(Fault(status=503))
    event_id = shop.enqueue("created", **ANN)
    pauses = []
    for _ in range(5):
        shop.drain()
        event = shop.event(event_id)
        last = event["attempts_made"][-1]
        next_at = from_text(event["next_attempt_at"])
        pauses.append((next_at - from_text(last["finished_at"])) / timedelta(seconds=1 - jitter))
        shop.clock.ahead += next_at - shop.clock()
    assert pauses == [10, 20, 40, 60, 60]


def test_an_event_is_not_tried_before_its_time(shop: Shop) -> None:
    shop.sandbox.faults.add(Fault(status=503, times=1))
    shop.sent("created", **ANN)
    shop.later(seconds=3)
    shop.drain()
    assert len(shop.calls) == 1


def test_after_the_last_attempt_an_event_is_dead_and_says_why(make_shop: MakeShop) -> None:
    shop = make_shop(retry={"max_attempts": 3})
    shop.sandbox.faults.add(Fault(status=503))
    event_id = shop.enqueue("created", **ANN)
    for _ in range(5):
        shop.drain()
        shop.later(hours=2)
    event = shop.event(event_id)
    assert event["status"] == "dead"
    assert event["last_error"] == "gave up after 3 attempts; the last one: Something went wrong"
    assert len(shop.calls) == 3
    assert (shop.status()["dead"], shop.status()["pending"]) == (1, 0)


def test_a_dead_letter_does_not_stand_in_the_way_of_the_customers_next_event(make_shop: MakeShop) -> None:
    shop = make_shop(retry={"max_attempts": 1})
    shop.sandbox.faults.add(Fault(status=503, times=1))
    assert shop.sent("created", **ANN)["status"] == "dead"
    assert shop.sent("updated", **ANN)["status"] == "delivered"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=422, times=1), "Unprocessable entity"),
        (
            Fault(status=400, body={"code": "invalid_parameter", "message": "Invalid list"}, times=1),
            "Invalid list",
        ),
        (Fault(status=406, times=1), "Something went wrong"),
        (Fault(status=413, body="<html>Too large</html>", times=1), "HTTP 413 without a JSON body"),
        (Fault(status=418, body=[], times=1), "HTTP 418"),
        (Fault(status=400, body={"code": {"a": 1}, "message": ["b"], "metadata": 5}, times=1), "HTTP 400"),
    ],
    ids=["422", "400", "406", "413 in HTML", "418 without words", "400 in odd shapes"],
)
def test_another_4xx_is_refused_at_once_with_a_reason(shop: Shop, fault: Fault, reason: str) -> None:
    shop.sandbox.faults.add(fault)
    event = shop.sent("created", **ANN)
    assert (event["status"], event["attempts"]) == ("dead", 1)
    assert reason in event["last_error"]
    assert len(shop.calls) == 1


def test_the_owner_of_the_account_cannot_be_removed_and_the_dead_letter_says_so(make_shop: MakeShop) -> None:
    shop = make_shop({"owner": "owner@example.com"}, options={"delete_behavior": "hard"})
    shop.sent("created", id=1, email="owner@example.com")
    event = shop.sent("deleted", id=1)
    assert event["status"] == "dead"
    assert "account's owner" in event["last_error"]


def test_of_a_refused_backlog_only_the_culprit_is_dead(shop: Shop) -> None:
    shop.sandbox.faults.add(UNWANTED)
    shop.sent("created", **ANN)
    before = shop.enqueue("updated", id=7, lastName="Baker")
    culprit = shop.enqueue("updated", id=7, email="unwanted@example.com", firstName="Anna")
    after = shop.enqueue("updated", id=7, phone="+33612345678")
    shop.drain()
    assert [shop.event(each)["status"] for each in (before, culprit, after)] == [
        "delivered",
        "dead",
        "delivered",
    ]
    assert shop.event(culprit)["last_error"] == "email is not valid"
    assert shop.contact("ann@example.com")["attributes"] == {
        "FIRSTNAME": "Ann",
        "LASTNAME": "Baker",
        "SMS": "33612345678",
    }


def test_a_culprit_among_a_new_customers_events_leaves_the_others_well(shop: Shop) -> None:
    shop.sandbox.faults.add(UNWANTED)
    created = shop.enqueue("created", **ANN)
    culprit = shop.enqueue("updated", id=7, email="unwanted@example.com")
    after = shop.enqueue("updated", id=7, lastName="Baker")
    shop.drain()
    assert [shop.event(each)["status"] for each in (created, culprit, after)] == [
        "delivered",
        "dead",
        "delivered",
    ]
    assert shop.contact("ann@example.com")["attributes"]["LASTNAME"] == "Baker"


def test_taking_a_refused_backlog_apart_stops_at_trouble_that_may_pass(shop: Shop) -> None:
    """What was not tried goes back to the outbox, with its attempt."""
    shop.sent("created", **ANN)
    before = shop.enqueue("updated", id=7, lastName="Baker")
    culprit = shop.enqueue("updated", id=7, email="unwanted@example.com")
    shop.sandbox.faults.add(UNWANTED, Fault(status=503, after=1, times=1))  # a look, the refusal, then this
    shop.drain()
    assert [shop.event(each)["status"] for each in (before, culprit)] == ["pending", "pending"]
    assert shop.event(culprit)["attempts"] == 0
    shop.later(minutes=1)
    shop.drain()
    assert [shop.event(each)["status"] for each in (before, culprit)] == ["delivered", "dead"]
