"""The limiter: no stretch of a period ever holds more calls than are allowed."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Lock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd.brevo.limiter import Limiter, acquire

SECOND = (10, 1.0)


class Clock:
    """A time that passes only when somebody sleeps. Safe for many threads."""

    def __init__(self) -> None:
        self.now = 0.0
        self._lock = Lock()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds


def fullest(times: Sequence[float], period: float = 1.0) -> int:
    """The most calls that any stretch of one period holds; it may as well begin with a call."""
    times = sorted(times)
    return max((sum(begin <= each < begin + period for each in times) for begin in times), default=0)


def taken(limiter: Limiter, now: float, wanted: int) -> int:
    """How many of so many calls are given leave at once."""
    return sum(limiter.take(now) == 0 for _ in range(wanted))


@given(
    st.integers(1, 12), st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.99, 1.0, 1.01, 5.0]), max_size=80)
)
def test_no_second_ever_holds_more_than_the_limit(limit: int, pauses: list[float]) -> None:
    limiter, now, given_at = Limiter([(limit, 1.0)]), 0.0, []
    for pause in pauses:
        now += pause
        if limiter.take(now) == 0:
            given_at.append(now)
    assert fullest(given_at) <= limit


@given(st.integers(1, 5), st.integers(1, 8), st.integers(1, 60))
def test_every_window_holds(a_second: int, in_five: int, calls: int) -> None:
    """Whoever waits as long as is said gets leave, and neither the short nor the long window overflows."""
    limiter, clock, given_at = Limiter([(a_second, 1.0), (in_five, 5.0)]), Clock(), []
    for _ in range(calls):
        assert acquire(limiter, 1e9, clock, clock.sleep) == 0
        given_at.append(clock())
    assert len(given_at) == calls
    assert fullest(given_at) <= a_second
    assert fullest(given_at, 5.0) <= in_five


def test_many_threads_share_one_budget() -> None:
    """Each looks at the clock and then asks; while it does, others may sleep and time go on."""
    limiter, clock, turn, given_at = Limiter([SECOND]), Clock(), Lock(), list[float]()
    latest = 0.0

    def worker(seed: int) -> None:
        nonlocal latest
        random, left = Random(seed), 25
        while left:
            now = clock()
            if random.random() < 0.3:
                clock.sleep(random.random() / 5)
            with turn:
                latest = max(latest, now)
                wait = limiter.take(now)
                if wait == 0:
                    given_at.append(latest)
                    left -= 1
            clock.sleep(wait)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(worker, range(16)))
    assert len(given_at) == 16 * 25
    assert fullest(given_at) <= 10


def test_threads_that_ask_at_once_get_exactly_the_limit() -> None:
    limiter = Limiter([SECOND])
    with ThreadPoolExecutor(16) as pool:
        waits = list(pool.map(limiter.take, [100.0] * 200))
    assert sum(wait == 0 for wait in waits) == 10
    assert [wait for wait in waits if wait] == [pytest.approx(1.02)] * 190


def test_a_thread_that_was_held_up_cannot_count_its_call_into_the_past() -> None:
    """It looked at the clock, and five seconds went by before it asked: its call leaves only then."""
    limiter = Limiter([(1, 1.0)])
    assert limiter.take(0.0) == 0
    assert limiter.room(5.0) == 1
    assert limiter.take(0.5) == 0
    assert limiter.take(5.5) == pytest.approx(0.52)


def test_room_is_what_is_left_in_the_narrowest_window() -> None:
    limiter = Limiter([(10, 1.0), (12, 3600.0)])
    assert limiter.room(0.0) == 10
    assert taken(limiter, 0.0, 10) == 10
    assert limiter.room(0.0) == 0
    assert limiter.room(2.0) == 2
    assert taken(limiter, 2.0, 10) == 2
    assert limiter.wait(2.0) == pytest.approx(3600 * 1.02 - 2)


def test_asking_how_long_takes_nothing() -> None:
    limiter = Limiter([SECOND])
    assert [limiter.wait(0.0) for _ in range(30)] == [0.0] * 30
    assert limiter.room(0.0) == 10


def test_a_hold_stops_every_call_until_its_end() -> None:
    limiter = Limiter([SECOND])
    limiter.hold(30.0)
    assert (limiter.room(29.0), limiter.wait(29.0), limiter.take(29.0)) == (0, 1.0, 1.0)
    assert taken(limiter, 30.0, 11) == 10


def test_a_shorter_hold_does_not_lift_a_longer_one() -> None:
    limiter = Limiter([SECOND])
    limiter.hold(30.0)
    limiter.hold(2.0)
    assert limiter.take(3.0) == 27.0


def test_a_smaller_limit_counts_what_was_taken_before() -> None:
    limiter = Limiter([SECOND])
    taken(limiter, 0.0, 9)
    limiter.resize([4])
    assert limiter.room(0.5) == 0
    assert limiter.take(0.5) == pytest.approx(0.52)
    assert taken(limiter, 1.02, 9) == 4


def test_a_larger_limit_gives_room_at_once() -> None:
    limiter = Limiter([SECOND])
    taken(limiter, 0.0, 10)
    limiter.resize([20])
    assert taken(limiter, 0.5, 20) == 10


def test_who_has_not_the_patience_is_told_how_long_it_would_take_and_does_not_wait() -> None:
    limiter, clock = Limiter([SECOND]), Clock()
    limiter.hold(60.0)
    assert acquire(limiter, 5.0, clock, clock.sleep) == 60.0
    assert clock() == 0.0


def test_who_has_the_patience_gets_leave_at_the_end_of_the_hold() -> None:
    limiter, clock = Limiter([SECOND]), Clock()
    limiter.hold(4.0)
    assert acquire(limiter, 5.0, clock, clock.sleep) == 0.0
    assert clock() == 4.0


def test_what_is_left_is_told_of_every_window() -> None:
    limiter = Limiter([SECOND, (100, 3600.0)])
    for _ in range(4):
        limiter.take(0.0)
    assert limiter.left(0.0) == [(1.0, 10, 6), (3600.0, 100, 96)]
    assert limiter.left(2.0) == [(1.0, 10, 10), (3600.0, 100, 96)]


def test_nothing_is_left_while_brevo_asks_to_wait_nor_of_a_limit_that_shrank() -> None:
    limiter = Limiter([SECOND])
    limiter.take(0.0)
    limiter.hold(5.0)
    assert limiter.left(4.9) == [(1.0, 10, 0)]
    assert limiter.left(5.0) == [(1.0, 10, 10)]
    for _ in range(3):
        limiter.take(5.0)
    limiter.resize([2])
    assert limiter.left(5.0) == [(1.0, 2, 0)]
