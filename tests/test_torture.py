"""A small storm in every run; `python -m tests.torture` is the large one."""

from pathlib import Path
from random import Random

import pytest
import requests

from outboxd.brevo.sandbox import Sandbox
from tests.processes import KEY
from tests.torture import LIST, Customer, Plan, histories, run, shuffled, wrong


@pytest.mark.parametrize("mode", ["realtime", "hybrid"])
def test_kills_faults_doubles_and_disorder_lose_nothing_and_leave_every_contact_right(
    tmp_path: Path, mode: str
) -> None:
    size = {"events": 400, "customers": 120, "backfilled": 100, "producers": 2}
    figures = run(Plan(**size, mode=mode, faults=0.05, kills=2, seed=7, hastens=True), tmp_path)
    assert (figures["acknowledged"], figures["written"]) == (400, 500)
    assert figures["lost"] == 0
    assert (figures["delivered"], figures["dead"]) == (500, 0), figures["reasons"]
    assert figures["wrong contacts"] == []
    assert figures["largest overlap"] == 1
    assert 10 <= figures["calls"] < 500
    assert figures["producer failures"] == 0
    assert any(figures["events in flight at the kills"])
    assert figures["exit code"] == 0


def test_the_storm_is_of_the_size_that_was_asked_for_and_out_of_order() -> None:
    customers = histories(Plan(events=600, customers=120))
    events = shuffled(customers, Random(1))
    assert len(events) == 600
    assert len({event["data"]["id"] for event in events}) == 120
    assert any(len({event["at"] for event in each.events}) < len(each.events) for each in customers), (
        "doubles"
    )
    of_each = [[event["at"] for event in events if event["data"]["id"] == number] for number in range(120)]
    assert sum(of_one != sorted(of_one) for of_one in of_each) > 60


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
