"""What is not an event's fault stops the lane, spends no attempt, and says why."""

from datetime import timedelta
from itertools import pairwise
from time import monotonic

import pytest

from outboxd.brevo.sandbox import Fault
from outboxd.clock import from_text
from tests.conftest import until
from tests.shop import MakeShop, Shop

UNAUTHORISED = {"code": "unauthorized", "message": "authentication not found in headers"}


def customers(shop: Shop, count: int) -> list[int]:
    """That many new customers in the outbox; the events' ids."""
    return [shop.enqueue("created", id=number, email=f"ann{number}@example.com") for number in range(count)]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=401, body=UNAUTHORISED, times=1), "Brevo got no API key"),
        (Fault(status=401, times=1), "Brevo does not know this API key"),
        (Fault(behaviour="unrecognised_ip", times=1), "does not accept this host's IP address"),
        (Fault(status=402, times=1), "no credit left"),
        (Fault(status=403, times=1), "forbids this account the contacts API"),
    ],
    ids=["no key", "unknown key", "unknown IP", "402", "403"],
)
def test_a_refusal_of_the_account_stops_the_lane_until_a_probe_finds_it_well(
    make_shop: MakeShop, fault: Fault, reason: str
) -> None:
    shop = make_shop(brevo={"workers": 1})
    shop.sandbox.faults.add(fault)
    first, second = customers(shop, 2)
    shop.drain()
    assert len(shop.calls) == 1
    assert (shop.event(first)["status"], shop.event(first)["attempts"]) == ("pending", 0)
    assert reason in shop.event(first)["last_error"]
    assert shop.event(first)["attempts_made"][0]["verdict"] == "blocked"
    lane = shop.status()["lane"]
    assert lane["state"] == "blocked"
    assert reason in lane["reason"]
    assert from_text(lane["until"]) > shop.clock()
    shop.drain()
    assert len(shop.calls) == 1, "nothing goes before the probe's time"

    shop.later(seconds=6)
    shop.drain()
    assert [shop.event(each)["status"] for each in (first, second)] == ["delivered", "delivered"]
    assert shop.event(first)["attempts"] == 1
    assert shop.status()["lane"] == {"state": "running", "reason": None, "until": None}


def test_a_wrong_key_spends_nothing_and_the_right_one_delivers(make_shop: MakeShop) -> None:
    shop = make_shop(key="xkeysib-revoked")
    ids = customers(shop, 3)
    for _ in range(5):
        shop.drain()
        shop.later(minutes=3)
    assert {shop.event(each)["attempts"] for each in ids} == {0}
    assert shop.status()["lane"]["state"] == "blocked"
    shop.reopen().drain()
    assert {shop.event(each)["status"] for each in ids} == {"delivered"}


def test_a_probe_is_one_call_and_probes_become_rarer(shop: Shop) -> None:
    shop.sandbox.faults.add(Fault(status=401))
    customers(shop, 20)
    shop.drain()
    pauses = []
    for _ in range(7):
        until_ = from_text(shop.status()["lane"]["until"])
        pauses.append(until_ - shop.clock())
        shop.clock.ahead += until_ - shop.clock()
        before = len(shop.calls)
        shop.drain()
        assert len(shop.calls) == before + 1
    assert timedelta(seconds=4) < pauses[0] <= timedelta(seconds=5)
    assert all(later > earlier for earlier, later in pairwise(pauses[:5]))
    assert pauses[-1] <= timedelta(minutes=2)


@pytest.mark.parametrize("header", ["x-sib-ratelimit-reset", "Retry-After"])
def test_a_429_waits_for_the_headers_time_and_spends_no_attempt(make_shop: MakeShop, header: str) -> None:
    shop = make_shop(brevo={"workers": 1})
    shop.sandbox.faults.add(Fault(status=429, headers={header: "1"}, times=1))
    ids = customers(shop, 3)
    shop.drain()
    first, second = shop.calls[:2]
    assert (first.status, second.status) == (429, 201)
    assert second.started_at - first.ended_at >= 1.0
    assert {shop.event(each)["attempts"] for each in ids} == {1}
    assert [attempt["verdict"] for attempt in shop.event(ids[0])["attempts_made"]] == ["blocked", "delivered"]


def test_a_long_429_is_told_by_status(make_shop: MakeShop) -> None:
    shop = make_shop(brevo={"workers": 1})
    shop.sandbox.faults.add(Fault(status=429, headers={"x-sib-ratelimit-reset": "1800"}, times=1))
    customers(shop, 2)

    def is_waiting() -> bool:
        shop.relay.step()
        return bool(shop.status()["lane"]["state"] == "waiting")

    until(is_waiting)
    lane = shop.status()["lane"]
    assert lane["reason"] == "Brevo's rate limit is used up"
    assert timedelta(minutes=29) < from_text(lane["until"]) - shop.clock() <= timedelta(minutes=30)
    for _ in range(5):
        shop.relay.step()
    assert len(shop.calls) == 1


def test_a_drain_does_not_sit_out_one_short_wait_after_the_other(make_shop: MakeShop) -> None:
    """Without headers a 429 is waited for five seconds, and each probe may find another one, for ever."""
    shop = make_shop(brevo={"workers": 1})
    shop.sandbox.faults.add(Fault(status=429, headers={"x-sib-ratelimit-reset": "10"}))
    [event] = customers(shop, 1)

    def is_waiting() -> bool:
        shop.relay.step()
        return shop.relay.lane.state == "waiting"

    until(is_waiting)
    shop.later(seconds=11)
    shop.drain()
    assert shop.relay.lane.state == "waiting"
    assert not shop.relay.is_drained
    assert (shop.event(event)["status"], shop.event(event)["attempts"]) == ("pending", 0)


def test_a_used_up_budget_is_waited_for_before_it_is_overdrawn(make_shop: MakeShop) -> None:
    """Brevo's own count, which other programs of the shop spend too, is kept to: no call is refused."""
    shop = make_shop({"requests_per_second": 4})
    shop.later(seconds=2)
    customers(shop, 7)
    shop.drain()
    assert shop.status()["delivered"] == 7
    assert shop.sandbox.stats["by_status"].get("429", 0) <= 3, "what was in flight already, at the most"


def test_no_second_holds_more_calls_than_configured(make_shop: MakeShop) -> None:
    shop = make_shop({"requests_per_second": 10}, brevo={"requests_per_second": 10})
    customers(shop, 25)
    shop.drain()
    assert shop.sandbox.stats["by_status"] == {"200": 1, "201": 25}, "and the list of attributes"


def test_a_brevo_out_of_reach_blocks_the_lane_after_a_few_failures(make_shop: MakeShop) -> None:
    """A night without a network must not turn a backlog into dead letters."""
    shop = make_shop(brevo={"workers": 1}, retry={"max_attempts": 2})
    ids = customers(shop, 12)
    shop.sandbox.stop()
    shop.drain()
    assert sorted(shop.event(each)["attempts"] for each in ids) == [0] * 8 + [1] * 4
    lane = shop.status()["lane"]
    assert (lane["state"], lane["reason"]) == ("blocked", "Brevo cannot be reached: Connection refused")
    for _ in range(10):
        shop.later(minutes=5)
        shop.drain()
    assert shop.status()["dead"] == 0
    assert max(shop.event(each)["attempts"] for each in ids) == 1

    shop.sandbox.start()
    shop.later(minutes=5)
    shop.drain()
    assert shop.status()["delivered"] == 12
    assert shop.status()["lane"]["state"] == "running"


def test_a_base_url_that_leads_nowhere_stops_the_lane_and_is_named(make_shop: MakeShop) -> None:
    """No event dies of it, and with the right one all of them go."""
    shop = make_shop()
    shop.reopen(brevo={"base_url": f"{shop.sandbox.url}/v3", "workers": 1}, retry={"max_attempts": 2})
    ids = customers(shop, 12)
    for _ in range(10):
        shop.drain()
        shop.later(minutes=5)
    lane = shop.status()["lane"]
    assert lane["state"] == "blocked"
    assert "check brevo.base_url" in lane["reason"]
    assert {shop.event(each)["attempts"] for each in ids} == {0}
    shop.reopen()
    shop.drain()
    assert shop.status()["delivered"] == 12


@pytest.mark.parametrize("status", [200, 400, 404, 500, 503])
@pytest.mark.parametrize("mode", ["realtime", "batch"])
def test_a_list_of_attributes_that_does_not_come_is_no_events_fault(
    make_shop: MakeShop, mode: str, status: int
) -> None:
    """Nothing can be sent without it: everybody waits, nobody's attempt is spent, and the lane says why."""
    retry = {"max_attempts": 2, "first_seconds": 1, "cap_seconds": 1}
    options = {"sync_mode": mode, "list_id": 1}
    shop = make_shop()
    shop.sandbox.faults.add(Fault(status=status, body={"code": "some_trouble"}, path="/contacts/attributes"))
    shop.reopen(retry=retry, options=options)
    ids = customers(shop, 3)
    for _ in range(4):
        shop.drain()
        shop.later(minutes=3)
    told = shop.status()
    assert (told["dead"], told["pending"], shop.calls) == (0, 3, [])
    assert {shop.event(each)["attempts"] for each in ids} == {0}
    assert told["lane"]["state"] == "blocked"
    assert told["lane"]["reason"].startswith("Brevo did not list its attributes: ")

    shop.sandbox.faults.clear()
    shop.reopen(retry=retry, options=options)
    shop.drain()
    assert {shop.event(each)["attempts"] for each in ids} == {1}
    assert shop.status()["delivered"] == 3
    assert shop.status()["lane"]["state"] == "running"


def test_one_customer_who_cannot_be_told_keeps_the_others_for_one_probe_at_most(make_shop: MakeShop) -> None:
    """In a quiet shop five failures in a row are one customer's; nobody else is to wait until they end."""
    shop = make_shop(retry={"first_seconds": 1, "cap_seconds": 1})
    shop.sandbox.faults.add(Fault(behaviour="reset", identifier="ann0@example.com"))
    customers(shop, 1)
    for _ in range(9):
        shop.later(seconds=30)
        shop.drain()
    assert shop.status()["lane"]["state"] == "blocked"
    others = [shop.enqueue("created", id=number, email=f"bob{number}@example.com") for number in (7, 8)]
    shop.later(minutes=2)
    shop.drain()
    assert {shop.event(each)["status"] for each in others} == {"delivered"}


def test_failures_of_single_events_between_successes_do_not_stop_the_lane(make_shop: MakeShop) -> None:
    retry = {"first_seconds": 300}  # none comes again within the first drain, however long that takes
    shop = make_shop(brevo={"workers": 1}, retry=retry)
    ids = customers(shop, 20)
    for number in range(0, 20, 2):
        shop.sandbox.faults.add(Fault(behaviour="reset", identifier=f"ann{number}@example.com", times=1))
    shop.drain()
    assert shop.status()["lane"]["state"] == "running"
    assert shop.status()["retrying"] == 10
    shop.later(minutes=10)
    shop.drain()
    assert {shop.event(each)["status"] for each in ids} == {"delivered"}


def test_one_failure_while_the_lane_waits_does_not_block_it(make_shop: MakeShop) -> None:
    """It was under way when Brevo said to wait: the wait stays as long as Brevo said."""
    slow = {"latency": timedelta(milliseconds=200)}  # so that both are under way when the first is answered
    shop = make_shop(slow, brevo={"workers": 2, "timeout_seconds": 0.4})
    shop.sandbox.faults.add(
        Fault(status=429, headers={"x-sib-ratelimit-reset": "1"}, identifier="ann0@example.com", times=1),
        Fault(behaviour="drip", identifier="ann1@example.com", times=1),
    )
    first, second = customers(shop, 2)
    shop.drain()
    assert shop.event(first)["status"] == "delivered"
    assert [attempt["verdict"] for attempt in shop.event(second)["attempts_made"]] == ["retry"]
    assert shop.status()["lane"]["state"] == "running"


def test_an_unbroken_run_of_5xx_is_waited_out_by_each_event_for_itself(shop: Shop) -> None:
    shop.sandbox.faults.add(Fault(status=503, times=3))
    started = monotonic()
    ids = customers(shop, 3)
    shop.drain()
    assert {shop.event(each)["attempts"] for each in ids} == {1}
    assert shop.status()["lane"]["state"] == "running"
    assert monotonic() - started < 4, "no waiting within a drain"
