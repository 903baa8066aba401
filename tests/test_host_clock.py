"""The wall clock is set, forward and back: nothing waits for it, is given up for it, or is sent twice."""

import re
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import outboxd
from outboxd import app, clock
from outboxd.brevo.sandbox import Fault, Sandbox
from outboxd.clock import Steps, to_text
from tests.conftest import until
from tests.outboxes import new_outbox
from tests.processes import Daemon, write_config
from tests.shop import KEY, Clock, MakeShop, Shop
from tests.test_relay import running

DAY = timedelta(days=1)
MOMENT = clock.from_text("2026-11-23T16:12:51.821Z")


class Stepped(Clock):
    """A clock of this host that may be set, while Brevo's goes on."""

    def __init__(self, brevo: Clock) -> None:
        self._brevo = brevo
        self.by = timedelta(0)

    def __call__(self) -> datetime:
        return self._brevo() + self.by

    @property
    def ahead(self) -> timedelta:
        return self._brevo.ahead

    @ahead.setter
    def ahead(self, ahead: timedelta) -> None:
        self._brevo.ahead = ahead


def set_to(file: Path, seconds: int) -> None:
    """Whoever reads it meanwhile finds the old figure or the new one."""
    beside = file.with_suffix(".new")
    beside.write_text(str(seconds))
    beside.replace(file)


def set_clock(shop: Shop, by: timedelta) -> None:
    """As an administrator does, or NTP, between two rounds."""
    shop.relay.step()
    shop.clock.ahead += by
    shop.relay.step()


def waits(shop: Shop, event_id: int) -> float:
    """Seconds until an event's next attempt."""
    at = clock.from_text(shop.event(event_id)["next_attempt_at"])
    return (at - shop.clock()).total_seconds()


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(-1_000_000, 1_000_000)), max_size=20))
def test_a_step_is_noticed_with_its_size_and_the_passing_of_time_is_none(
    rounds: list[tuple[int, int]],
) -> None:
    wall, monotonic = MOMENT, 0.0
    steps = Steps(lambda: wall, lambda: monotonic)
    for passed, step in rounds:
        wall += timedelta(seconds=passed + step)
        monotonic += passed
        _, seen = steps.look()
        assert seen.total_seconds() == (step if abs(step) > 2 else 0)


def test_a_process_that_is_held_up_between_two_readings_takes_it_for_no_step() -> None:
    held_up = iter([1.0, 1.0, 2.0, 32.0, 33.0, 33.0])
    times = iter([1.0, 2.0, 33.0])
    steps = Steps(lambda: MOMENT + timedelta(seconds=next(times)), lambda: next(held_up))
    assert not steps.look()[1]


@pytest.mark.parametrize("by", [-DAY, timedelta(minutes=-10)])
def test_after_a_step_back_a_retry_comes_when_it_would_have_come(shop: Shop, by: timedelta) -> None:
    shop.sandbox.faults.add(Fault(status=503, times=1))
    event_id = shop.sent("created", id=1, email="ann@example.com")["id"]
    before = waits(shop, event_id)
    set_clock(shop, by)
    assert before - 1 <= waits(shop, event_id) <= before
    shop.later(seconds=6)
    shop.drain()
    assert shop.event(event_id)["status"] == "delivered"
    assert shop.event(event_id)["attempts"] == 2


def test_what_was_written_before_a_step_back_is_delivered_at_once(shop: Shop) -> None:
    """By a shop, whose rows are then from the future, and though it was admitted already."""
    admitted = shop.enqueue("created", id=1, email="ann1@example.com")
    shop.reopen(options={"sync_mode": "batch"}, batch={"window": "0 3 * * *"})
    shop.relay.step()
    shop.reopen()
    shop.insert("customer_created", {"id": 2, "email": "ann2@example.com"})
    shop.clock.ahead -= DAY
    shop.drain()
    assert shop.event(admitted)["status"] == "delivered"
    assert shop.status()["delivered"] == 2
    assert shop.status()["oldest_pending_seconds"] is None


def test_a_step_back_while_nobody_drained_is_seen_by_the_last_heartbeat(shop: Shop) -> None:
    shop.sandbox.faults.add(Fault(status=503, times=1))
    event_id = shop.sent("created", id=1, email="ann@example.com")["id"]
    shop.clock.ahead -= DAY
    shop.reopen()
    shop.relay.step()
    assert waits(shop, event_id) <= 6


def test_after_a_step_back_a_stopped_lane_is_probed_as_before(shop: Shop) -> None:
    shop.sandbox.faults.add(Fault(status=401, times=1))
    shop.sent("created", id=1, email="ann@example.com")
    assert shop.relay.lane.state == "blocked"
    set_clock(shop, -DAY)
    assert shop.relay.lane.stopped_for(shop.clock()) <= 5
    shop.later(seconds=6)
    shop.drain()
    assert shop.status()["delivered"] == 1


def test_after_a_step_back_windows_open_by_the_new_time_and_take_in_what_is_from_the_future(
    make_shop: MakeShop,
) -> None:
    shop = make_shop(options={"sync_mode": "batch", "list_id": 1}, batch={"window": "*/15 * * * *"})
    shop.relay.step()
    shop.later(minutes=16)
    shop.relay.step()
    event_id = shop.enqueue("created", id=1, email="ann@example.com")
    shop.relay.step()
    set_clock(shop, -DAY)
    opens = clock.from_text(shop.status()["window"]["next_at"])
    assert opens - shop.clock() <= timedelta(minutes=15)
    shop.later(minutes=15, seconds=1)
    shop.run_until(lambda: shop.event(event_id)["status"] == "delivered")


def test_a_flush_is_obeyed_after_a_step_back_and_once(make_shop: MakeShop) -> None:
    shop = make_shop(options={"sync_mode": "batch", "list_id": 1}, batch={"window": "0 3 * * *"})

    def flush() -> None:
        with closing(app.outbox(shop.settings)) as outbox:
            outbox.save_state({"flush": to_text(shop.clock())}, shop.clock())

    shop.relay.step()
    flush()
    shop.relay.step()
    shop.relay.step()
    set_clock(shop, -DAY)
    event_id = shop.enqueue("created", id=1, email="ann@example.com")
    shop.relay.step()
    assert shop.event(event_id)["status"] == "pending"
    flush()
    shop.run_until(lambda: shop.event(event_id)["status"] == "delivered")
    assert not shop.status()["window"]["is_open"]


def test_after_a_step_back_an_import_is_looked_after_as_before(make_shop: MakeShop) -> None:
    shop = make_shop()
    shop.clock = stepped = Stepped(shop.clock)
    shop.reopen(options={"list_id": 1})
    shop.fill(
        "created",
        [{"id": number, "email": f"ann{number}@example.com"} for number in range(60)],
        is_backfill=True,
    )
    shop.run_until(lambda: shop.status()["imports"])
    passed = shop.clock.ahead
    stepped.by = -DAY
    shop.settle()
    assert shop.clock.ahead - passed < timedelta(minutes=5)
    assert shop.status()["delivered"] == 60


@pytest.mark.parametrize("by", [DAY, -DAY])
def test_who_is_in_flight_while_the_clock_is_set_is_not_claimed_again(
    make_shop: MakeShop, by: timedelta
) -> None:
    shop = make_shop(sandbox={"latency": timedelta(seconds=1)})
    event_id = shop.enqueue("created", id=1, email="ann@example.com")
    with running(shop.relay):
        until(lambda: shop.sandbox.stats["under_way"] == 1)
        shop.clock.ahead += by
        shop.relay.bell.set()
        until(lambda: shop.event(event_id)["status"] == "delivered")
    assert shop.methods == ["POST"]
    assert shop.event(event_id)["attempts"] == 1


def test_a_step_forward_gives_nothing_up(shop: Shop) -> None:
    shop.sandbox.faults.add(Fault(status=503))
    event_id = shop.sent("created", id=1, email="ann@example.com")["id"]
    set_clock(shop, DAY)
    shop.drain()
    assert shop.event(event_id)["status"] == "pending"
    assert shop.event(event_id)["attempts"] == 2
    assert 0 < waits(shop, event_id) <= 10


@pytest.mark.parametrize("by", [DAY, -DAY])
def test_no_figure_is_negative_whatever_the_clock_did(shop: Shop, by: timedelta) -> None:
    shop.sandbox.faults.add(Fault(status=503, times=1))
    shop.sent("created", id=1, email="ann1@example.com")
    shop.enqueue("created", id=2, email="ann2@example.com")
    set_clock(shop, by)
    shop.settle()
    told = shop.status()
    assert told["delivered"] == 2
    assert min(told["windows"]["day"]["latency_ms"]["average"] or 0, 0) == 0
    assert not re.search(r": -\d", str(told))


@pytest.fixture
def ahead(tmp_path: Path) -> Path:
    """By how many seconds the daemon's clock is ahead."""
    made = tmp_path / "ahead"
    made.write_text("0")
    return made


def test_a_daemon_whose_clock_is_set_back_goes_on_retries_and_gives_signs_of_life(
    tmp_path: Path, ahead: Path
) -> None:
    """Its scheduler, too, which goes by the wall clock alone: it writes the metrics every second."""
    new_outbox(tmp_path / "outbox.db")
    page = tmp_path / "outboxd.prom"
    with Sandbox(faults=[Fault(status=503, method="POST", times=1)]) as sandbox:
        metrics = {"textfile": str(page), "interval_seconds": 1}
        retry = {"first_seconds": 3, "jitter": 0}
        config = write_config(tmp_path / "config.yaml", sandbox.url, metrics=metrics, retry=retry)
        with Daemon(config, program=("-m", "tests.stepped"), CLOCK_AHEAD=str(ahead)) as daemon:
            daemon.ready()
            until(page.exists)
            data = {"id": 1, "email": "ann1@example.com"}
            outboxd.enqueue("customer_created", data, db=daemon.database)
            until(lambda: daemon.status()["retrying"] == 1)
            set_to(ahead, -86400)
            daemon.says("clock stepped seconds=-86400")
            page.unlink()
            until(page.exists)
            until(lambda: daemon.status()["delivered"] == 1)
            set_to(ahead, 86400)
            daemon.says("clock stepped seconds=172800")
            page.unlink()
            until(page.exists)
            data = {"id": 2, "email": "ann2@example.com"}
            outboxd.enqueue("customer_created", data, db=daemon.database)
            until(lambda: daemon.status()["delivered"] == 2)
        assert daemon.words.count("clock stepped") == 2
        assert "Traceback" not in daemon.words


def test_a_relay_that_is_made_anew_does_not_take_its_own_time_for_a_step(shop: Shop) -> None:
    with closing(app.outbox(shop.settings)) as outbox:
        relay = app.relay(shop.settings, app.brevo(shop.settings, KEY), outbox, clock=shop.clock)
        with closing(relay):
            relay.step()
            assert outbox.state("heartbeat")
