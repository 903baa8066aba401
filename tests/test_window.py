"""Windows: in batch mode events wait for one, whatever happens to the process meanwhile."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd import app
from outboxd.brevo.sandbox import Fault
from outboxd.clock import from_text, to_text
from outboxd.schedule import Schedule
from outboxd.window import Rules, Window, from_state
from tests.shop import MakeShop, Shop

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)

MINUTE = timedelta(minutes=1)

RULES = Rules(Schedule(["0 3 * * *"], "UTC"), max_wait=timedelta(hours=2), max_events=10)

BATCH = {"sync_mode": "batch"}


def due(window: Window, now: datetime, **told: Any) -> str | None:
    rest: dict[str, Any] = {"oldest": None, "waiting": 0, "flushed_at": None, **told}
    return window.due(RULES, now, **rest)


# Pure.


def test_a_window_opens_by_its_schedule_and_not_before() -> None:
    window = Window(NOON)
    opening = window.next_at(RULES)
    assert opening == NOON + timedelta(hours=15)
    assert due(window, opening - MINUTE) is None
    assert due(window, opening) == "schedule"


def test_a_missed_opening_opens_one_window_however_many_were_missed() -> None:
    late = NOON + timedelta(days=9)
    window = Window(NOON)
    assert due(window, late) == "schedule"
    window = window.opened(late, "schedule").closed(late + MINUTE)
    assert due(window, late + MINUTE) is None
    assert window.next_at(RULES) == datetime(2026, 3, 14, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"oldest": NOON}, "max_wait"),
        ({"oldest": NOON + MINUTE}, None),
        ({"waiting": 10}, "max_events"),
        ({"waiting": 9}, None),
        ({"flushed_at": NOON + MINUTE}, "flush"),
        ({"flushed_at": NOON - MINUTE}, "flush"),
    ],
)
def test_a_window_opens_early_for_whoever_waits_too_long_for_too_many_and_on_demand(
    told: dict[str, Any], reason: str | None
) -> None:
    assert due(Window(NOON), NOON + timedelta(hours=2), **told) == reason


def test_a_flush_is_obeyed_once_also_one_from_before_windows_were_counted() -> None:
    window = Window(NOON).opened(NOON + MINUTE, "flush").closed(NOON + 2 * MINUTE)
    assert due(window, NOON + 3 * MINUTE, flushed_at=NOON + MINUTE) is None


def test_an_open_window_takes_in_what_has_come_by_the_next_opening_and_counts_on() -> None:
    window = Window(NOON, NOON, reason="flush", delivered=3)
    opening = window.next_at(RULES)
    assert opening is not None
    assert due(window, opening - MINUTE, waiting=99) is None, "it does not open early for what is to come"
    assert due(window, opening) == "schedule"
    wider = window.opened(opening, "schedule")
    assert (wider.is_open, wider.opened_at, wider.reason, wider.delivered) == (True, opening, "flush", 3)


MOMENTS = st.integers(0, 10**12).map(lambda number: NOON + timedelta(milliseconds=number))


@given(
    st.builds(
        Window,
        since=MOMENTS,
        opened_at=st.none() | MOMENTS,
        closed_at=st.none() | MOMENTS,
        reason=st.none() | st.text(),
        delivered=st.integers(0),
        dead=st.integers(0),
        calls=st.integers(0),
    )
)
def test_a_window_outlives_the_process(window: Window) -> None:
    """Any window is the same after a trip through the database."""
    assert from_state(json.loads(json.dumps(window.as_state(RULES))), NOON) == window


# In a shop.


def open_next(shop: Shop) -> None:
    """Let the time pass until the next window opens by its schedule."""
    shop.relay.step()
    shop.clock.ahead += from_text(shop.status()["window"]["next_at"]) - shop.clock()


def rounds(shop: Shop) -> None:
    """Run the relay until it rests; no time passes."""
    shop.relay.bell.clear()
    while shop.relay.step() == 0.0 or shop.relay.is_busy:
        shop.relay.bell.wait(0.02)
        shop.relay.bell.clear()


def flush(shop: Shop) -> None:
    """Ask for a window, as another process does."""
    shop.later(seconds=1)
    with closing(app.outbox(shop.settings)) as outbox:
        outbox.save_state({"flush": to_text(shop.clock())}, shop.clock())


def tell(shop: Shop, *numbers: int) -> list[int]:
    bodies = [{"id": number, "email": f"ann{number}@example.com", "firstName": "Ann"} for number in numbers]
    return shop.fill("updated", bodies)


def test_events_wait_for_their_window_and_go_in_it_together(make_shop: MakeShop) -> None:
    shop = make_shop(options=BATCH)
    shop.know(30)
    ids = tell(shop, *range(30))
    rounds(shop)
    assert (shop.calls, shop.status()["due"]) == ([], 30)
    assert shop.status()["window"]["opened_at"] is None
    open_next(shop)
    rounds(shop)
    assert {shop.event(each)["status"] for each in ids} == {"delivered"}
    window = shop.status()["window"]
    told = [window[name] for name in ("is_open", "reason", "delivered", "dead", "calls")]
    assert told == [False, "schedule", 30, 0, 1]
    assert window["opened_at"] < window["closed_at"] < window["next_at"]


def test_what_comes_after_the_opening_waits_for_the_next_window(make_shop: MakeShop) -> None:
    shop = make_shop({"latency": timedelta(milliseconds=20)}, options=BATCH)
    shop.know(2)
    tell(shop, 0)
    open_next(shop)
    while not shop.relay.is_busy:
        shop.relay.step()
    shop.later(seconds=1)
    [late] = tell(shop, 1)
    rounds(shop)
    assert (shop.status()["delivered"], shop.event(late)["status"]) == (1, "pending")
    open_next(shop)
    rounds(shop)
    assert shop.event(late)["status"] == "delivered"


def test_a_window_that_was_missed_while_no_process_ran_opens_at_once(make_shop: MakeShop) -> None:
    shop = make_shop(options=BATCH)
    shop.know(1)
    shop.relay.step()
    [event_id] = tell(shop, 0)
    shop.later(hours=1)
    shop.reopen(options=BATCH)
    rounds(shop)
    assert shop.event(event_id)["status"] == "delivered"
    assert shop.status()["window"]["reason"] == "schedule"


def test_an_open_window_goes_on_after_a_restart(make_shop: MakeShop) -> None:
    shop = make_shop(options=BATCH)
    shop.know(2)
    tell(shop, 0)
    open_next(shop)
    shop.sandbox.faults.add(Fault(status=401))
    rounds(shop)
    assert shop.status()["window"]["is_open"]
    shop.sandbox.faults.clear()
    shop.reopen(options=BATCH)
    shop.later(seconds=1)
    [late] = tell(shop, 1)
    rounds(shop)
    window = shop.status()["window"]
    assert (window["is_open"], window["reason"], window["delivered"]) == (False, "schedule", 1)
    assert shop.event(late)["status"] == "pending"


def test_a_retry_does_not_wait_for_a_window(make_shop: MakeShop) -> None:
    shop = make_shop(options=BATCH)
    shop.know(3)
    ids = tell(shop, 0, 1, 2)
    shop.sandbox.faults.add(Fault(status=503, times=1))
    open_next(shop)
    rounds(shop)
    assert shop.status()["retrying"] == 3
    window = shop.status()["window"]
    shop.later(seconds=6)
    rounds(shop)
    assert {shop.event(each)["status"] for each in ids} == {"delivered"}
    assert shop.status()["window"] == window, "it is closed"


def test_whoever_waits_too_long_opens_the_window_for_all(make_shop: MakeShop) -> None:
    shop = make_shop(options=BATCH, batch={"window": "0 0 1 1 *", "max_wait": "10m"})
    shop.know(2)
    tell(shop, 0)
    rounds(shop)
    shop.later(minutes=9)
    tell(shop, 1)
    rounds(shop)
    assert shop.calls == []
    shop.later(minutes=1)
    rounds(shop)
    assert (shop.status()["delivered"], shop.status()["window"]["reason"]) == (2, "max_wait")


def test_the_relay_rests_until_the_window_opens(make_shop: MakeShop) -> None:
    shop = make_shop(options=BATCH, batch={"window": "0 0 1 1 *", "max_wait": "10s"})
    shop.know(1)
    tell(shop, 0)
    rounds(shop)
    shop.later(seconds=8)
    assert 1.5 < shop.relay.step() <= 2


def test_a_long_wait_is_reckoned_with_while_everybody_is_in_an_import(make_shop: MakeShop) -> None:
    """Those who are barred have no time that they wait for; here the only live news is of one of them."""
    slow = {"import_delay": timedelta(minutes=5)}
    batch = {"window": "@hourly", "max_wait": "30d"}
    shop = make_shop(slow, options={**BATCH, "list_id": 5}, batch=batch)
    people = [{"id": number, "email": f"ann{number}@example.com"} for number in range(60)]
    shop.fill("updated", people, is_backfill=True)
    shop.run_until(lambda: any(each["process_id"] for each in shop.status()["imports"]))
    [event_id] = tell(shop, 7)
    shop.settle()
    assert shop.event(event_id)["status"] == "delivered"


def test_many_open_the_window_early_and_the_count_begins_anew(make_shop: MakeShop) -> None:
    shop = make_shop(options=BATCH, batch={"window": "0 0 1 1 *", "max_events": 3})
    shop.know(5)
    tell(shop, 0, 1)
    rounds(shop)
    assert shop.calls == []
    shop.later(seconds=1)
    tell(shop, 2)
    rounds(shop)
    window = shop.status()["window"]
    assert (window["reason"], window["delivered"]) == ("max_events", 3)
    shop.later(seconds=1)
    tell(shop, 3, 4)
    rounds(shop)
    assert shop.status()["window"] == window


def test_events_are_counted_once_over_a_restart(make_shop: MakeShop) -> None:
    """Admitted or not when the process begins."""
    settings: dict[str, Any] = {"options": BATCH, "batch": {"window": "0 0 1 1 *", "max_events": 300}}
    shop = make_shop(**settings)
    shop.know(300)
    tell(shop, *range(40))
    rounds(shop)
    tell(shop, *range(40, 299))
    shop.reopen(**settings)
    rounds(shop)
    assert shop.calls == []
    shop.later(seconds=1)
    tell(shop, 299)
    rounds(shop)
    assert shop.status()["delivered"] == 300


def test_what_a_window_takes_in_does_not_open_another_one(make_shop: MakeShop) -> None:
    """More events than `max_events` are found at the start, and a window was missed."""
    settings: dict[str, Any] = {"options": BATCH, "batch": {"max_events": 4}}
    shop = make_shop(**settings)
    shop.know(300)
    shop.relay.step()
    tell(shop, *range(300))
    shop.later(hours=1)
    shop.reopen(**settings)
    rounds(shop)
    rounds(shop)
    window = shop.status()["window"]
    assert (window["is_open"], window["reason"], window["delivered"]) == (False, "schedule", 300)


def test_a_flush_opens_the_window(make_shop: MakeShop) -> None:
    shop = make_shop(options=BATCH, batch={"window": "0 0 1 1 *"})
    shop.know(2)
    tell(shop, 0)
    rounds(shop)
    flush(shop)
    rounds(shop)
    assert (shop.status()["delivered"], shop.status()["window"]["reason"]) == (1, "flush")
    shop.later(seconds=1)
    tell(shop, 1)
    rounds(shop)
    assert shop.status()["delivered"] == 1


def test_a_drain_waits_for_no_window(make_shop: MakeShop) -> None:
    shop = make_shop(options=BATCH, batch={"window": "0 0 1 1 *"})
    shop.know(3)
    tell(shop, 0, 1, 2)
    shop.drain()
    assert (shop.status()["delivered"], shop.status()["window"]["reason"]) == (3, "drain")
    assert len(shop.calls) == 1
