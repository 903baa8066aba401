"""Pace: who goes when, alone or together, live and backfilled; and nobody's news overtakes itself."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboxd.brevo.sandbox import Call
from outboxd.importing import MOST
from outboxd.outbox import CHUNK
from outboxd.relay import CONVOYS
from tests.shop import MakeShop, Shop
from tests.test_relay import backlog

BATCH = "/contacts/batch"

IMPORT = "/contacts/import"

QUICK = {"import_delay": timedelta(milliseconds=1)}

HYBRID: dict[str, Any] = {
    "options": {"sync_mode": "hybrid", "list_id": 5},
    "hybrid": {"threshold_seconds": 1},
    "brevo": {"requests_per_second": 100_000, "requests_per_hour": 36_000},
}
"""Ten calls a second can be had for long: more than ten customers who wait are a crowd."""

MODES = ["realtime", "batch", "hybrid"]


def news(number: int, **data: Any) -> dict[str, Any]:
    return {"id": number, "email": f"ann{number}@example.com", "firstName": "Ann", **data}


def tell(shop: Shop, numbers: Iterable[int], *, is_backfill: bool = False, **data: Any) -> list[int]:
    return shop.fill("updated", [news(number, **data) for number in numbers], is_backfill=is_backfill)


def alone(shop: Shop) -> list[int]:
    """The places, among the calls so far, of those about one contact each."""
    return [place for place, call in enumerate(shop.calls) if "%40" in call.path]


def told(call: Call) -> Iterator[tuple[str, str]]:
    """The address and the first name of everybody that a call brings news of."""
    body = call.body or {}
    rows = body.get("contacts") or body.get("jsonBody") or [{**body, "email": call.identifier}]
    for row in rows:
        if "FIRSTNAME" in row.get("attributes", {}):
            yield row["email"], row["attributes"]["FIRSTNAME"]


# Hybrid.


def test_a_few_go_alone_a_crowd_together_and_then_a_few_alone_again(make_shop: MakeShop) -> None:
    shop = make_shop(**HYBRID)
    shop.know(40)
    tell(shop, range(10))
    shop.settle()
    assert shop.methods == ["PUT"] * 10
    tell(shop, range(11), firstName="Bea")
    shop.settle()
    assert [call.path for call in shop.calls[10:]] == [BATCH]
    tell(shop, range(10), firstName="Cleo")
    shop.settle()
    assert shop.methods[11:] == ["PUT"] * 10
    assert shop.status()["delivered"] == 31


def test_what_is_left_of_a_crowd_goes_together_too(make_shop: MakeShop) -> None:
    """Fewer than make a crowd, but more than half of one: together and alone do not alternate."""
    shop = make_shop({"latency": timedelta(milliseconds=5)}, **HYBRID, batch={"batch_size": 2})
    shop.know(48)
    tell(shop, range(48))
    shop.settle()
    assert {call.path for call in shop.calls} == {BATCH}


def test_the_change_over_lets_nobody_overtake_himself(make_shop: MakeShop) -> None:
    """Whatever the crowd, and whoever is under way when it comes: names arrive in their events' order."""
    shop = make_shop({**QUICK, "latency": timedelta(milliseconds=1)}, **HYBRID)
    shop.know(20)
    names = count(1000)

    @settings(max_examples=8, derandomize=True, database=None)
    @given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=30), min_size=1, max_size=5))
    def holds(waves: list[list[int]]) -> None:
        for wave in waves:
            shop.fill("updated", [news(number, firstName=str(next(names))) for number in wave])
            shop.relay.step()
            shop.relay.step()
        shop.settle()

    holds()
    heard: dict[str, list[str]] = defaultdict(list)
    for call in shop.calls:
        for address, name in told(call):
            heard[address].append(name)
    assert all(each == sorted(each) for each in heard.values())
    there = {
        each["email"]: each["attributes"]["FIRSTNAME"] for each in shop.sandbox.contacts if each["attributes"]
    }
    assert there == {address: each[-1] for address, each in heard.items()}
    assert shop.sandbox.stats["largest_overlap"] == 1
    assert BATCH in {call.path for call in shop.calls}
    assert alone(shop)


# Backfill.


@pytest.mark.parametrize("mode", MODES)
def test_backfilled_events_go_together_in_every_mode_and_wait_for_no_window(
    make_shop: MakeShop, mode: str
) -> None:
    shop = make_shop(options={"sync_mode": mode})
    shop.know(5)
    tell(shop, range(5), is_backfill=True)
    shop.relay.step()
    shop.run_until(lambda: not shop.relay.is_busy)
    assert [call.path for call in shop.calls] == [BATCH]
    shop.settle()


def test_live_events_are_taken_in_and_go_before_backfilled_ones(make_shop: MakeShop) -> None:
    shop = make_shop({"latency": timedelta(milliseconds=2)}, batch={"batch_size": 10})
    shop.know(650)
    tell(shop, range(600), is_backfill=True)
    ids = tell(shop, range(600, 605))
    shop.relay.step()
    admitted = shop.rows("SELECT is_backfill, count(*) FROM outbox WHERE customer_key <> '' GROUP BY 1")
    assert admitted == [(0, 5), (1, CHUNK - 5)]
    shop.settle()
    assert len(alone(shop)) == len(ids)
    assert max(alone(shop)) < 20 < len(shop.calls)


def test_a_live_event_takes_the_backfilled_ones_of_its_customer_with_it(make_shop: MakeShop) -> None:
    """It goes now, alone, and is one call with what waited before it."""
    shop = make_shop({"latency": timedelta(milliseconds=2)}, batch={"batch_size": 10})
    shop.know(600)
    tell(shop, range(600), is_backfill=True, lastName="Ek")
    shop.relay.step()
    [live] = tell(shop, [199], firstName="Bea")
    shop.settle()
    [place] = alone(shop)
    assert place < 20 < len(shop.calls)
    assert list(told(shop.calls[place])) == [("ann199@example.com", "Bea")]
    assert shop.contact("ann199@example.com")["attributes"] == {"FIRSTNAME": "Bea", "LASTNAME": "Ek"}
    assert shop.event(live)["attempts"] == 1


def test_backfill_rests_while_brevo_has_imports_enough_and_live_events_go_on(make_shop: MakeShop) -> None:
    slow, small = {"import_delay": timedelta(minutes=1)}, {"batch_size": 11, "import_size": 55}
    shop = make_shop(slow, options={"list_id": 5}, batch=small)
    tell(shop, range(550), is_backfill=True)
    shop.run_until(lambda: len(shop.status()["imports"]) >= MOST and not shop.relay.is_busy)
    live = shop.enqueue("created", **news(900))
    shop.run_until(lambda: shop.event(live)["status"] == "delivered")
    assert not shop.sandbox.contacts[1:], "no import has ended"
    assert len(shop.calls_of("POST", IMPORT)) <= MOST + CONVOYS
    shop.settle()
    assert len(shop.calls_of("POST", IMPORT)) == 10
    assert len(shop.sandbox.contacts) == 551


# A backlog.


def test_a_backlog_takes_no_more_calls_than_it_has_customers(make_shop: MakeShop) -> None:
    """20,000 events of 500 customers, each with all of its own as one change."""
    shop = make_shop()
    backlog(shop, 20_000, 500)
    shop.drain()
    assert shop.status()["delivered"] == 20_000
    assert len(shop.calls) <= 500
