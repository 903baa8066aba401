"""A small storm in every run; `python -m tests.torture` is the large one."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import requests

from outboxd.brevo.sandbox import Call, Sandbox
from tests.processes import KEY
from tests.shop import Shop
from tests.torture.judge import LIST, out_of_order, personal, wrong
from tests.torture.people import Customer, histories, shuffled
from tests.torture.storm import POISON, Plan, run, unsound

SIZE: dict[str, Any] = {
    "events": 400,
    "customers": 120,
    "backfilled": 100,
    "producers": 2,
    "faults": 0.05,
    "seed": 7,
}


@pytest.mark.parametrize(
    "blows",
    [
        {"mode": "realtime", "kills": 2, "producer_kills": 2, "outages": 1, "hastens": True},
        {"mode": "hybrid", "kills": 2, "producer_kills": 2, "outages": 0, "hastens": True},
        {"mode": "realtime", "kills": 0, "producer_kills": 1, "outages": 0, "daemons": 2},
    ],
    ids=["realtime", "hybrid", "two daemons"],
)
def test_kills_faults_doubles_and_disorder_lose_nothing_and_leave_every_contact_right(
    tmp_path: Path, blows: dict[str, Any]
) -> None:
    """And nothing of a customer, and no key, stands in anything that operators are told."""
    plan = Plan(**SIZE, **blows, stops=0)
    figures = run(plan, tmp_path)
    assert unsound(figures) == {}
    assert (figures["acknowledged"], figures["written"]) == (400, 500 + len(POISON))
    assert figures["delivered"] == 500, figures["reasons"]
    assert 10 <= figures["calls"] < 500
    assert figures["notifications"]
    assert plan.kills or not any(figures["events in flight at the kills"])


def test_the_storm_is_of_the_size_that_was_asked_for_and_out_of_order() -> None:
    customers = histories(600, 120, seed=1)
    events = shuffled(customers, Random(1))
    assert len(events) == 600
    assert len({event["data"]["id"] for event in events}) == 120
    assert any(len({event["at"] for event in each.events}) < len(each.events) for each in customers), (
        "doubles"
    )
    of_each = [[event["at"] for event in events if event["data"]["id"] == number] for number in range(120)]
    assert sum(of_one != sorted(of_one) for of_one in of_each) > 60


@pytest.mark.parametrize(
    "line",
    [
        "PUT /contacts/ann12%40example.com",
        "ANN7.1@Example.com",
        "name=F12v3",
        "phone 4915112000012",
        "+15550000010",
        "x-key: xkeysib-sandbox",
        "whsec_c3Rvcm0",
    ],
)
def test_the_storms_judge_sees_what_is_personal_or_secret(line: str) -> None:
    assert personal({"log": f"well\n{line}\nwell"}) == [f"log: {line}"]
    assert personal({"log": "delivered event=12 customer=custom:12 ms=4"}) == []


def test_the_storms_judge_sees_what_is_told_out_of_order(shop: Shop) -> None:
    """Alone or together with others, in whichever kind of call; what nobody answered may be told again."""
    event_id = shop.sent("created", id=1, email="ann1@example.com", firstName="F1v2", lastName="L1v0")["id"]
    recorded = shop.event(event_id)["attempts_made"][0]["request_id"]
    bodies: list[dict[str, Any]] = [
        {"email": "ann1@example.com", "attributes": {"FIRSTNAME": "F1v2", "LASTNAME": "L1v0"}},
        {"contacts": [{"attributes": {"LASTNAME": "L1v1"}}, {"attributes": {"FIRSTNAME": "F12v1"}}]},
        {"attributes": {"FIRSTNAME": "F1v2"}},
        {"jsonBody": [{"attributes": {"FIRSTNAME": "F1v1"}}]},
        {"attributes": {"FIRSTNAME": "F1v3", "LASTNAME": "L1v0"}},
    ]
    calls = [
        Call(number, "PUT", "/contacts", None, 204, number, number, body, recorded if number == 0 else "lost")
        for number, body in enumerate(bodies)
    ]
    assert out_of_order(shop.path, calls) == ["call 3: F1 of version 1 after 2"]
    calls = [replace(call, request_id=recorded) for call in calls]
    assert out_of_order(shop.path, calls)[1:] == ["call 4: L1 of version 0 after 1"]


def test_the_storms_judge_sees_what_is_wrong() -> None:
    """Missing, left behind, different, with the wrong consent or off the list: none of it passes."""
    attributes = {"FIRSTNAME": "Ann"}
    customers = [
        Customer(0, "right@example.com", attributes=attributes),
        Customer(1, "missing@example.com"),
        Customer(2, "gone@example.com", is_gone=True),
        Customer(3, "different@example.com"),
        Customer(4, "out@example.com", attributes=attributes, is_out=True),
        Customer(5, "unlisted@example.com", attributes=attributes),
    ]
    with Sandbox() as sandbox:
        for name in ("right", "gone", "different", "out", "unlisted", "stranger"):
            lists = [] if name == "unlisted" else [LIST]
            body = {"email": f"{name}@example.com", "attributes": attributes, "listIds": lists}
            requests.post(f"{sandbox.url}/contacts", json=body, headers={"api-key": KEY}, timeout=5)
        found = [told.partition(":")[0] for told in wrong(sandbox, customers)]
    assert found == ["1", "2", "3", "4", "5", "stranger@example.com"]
