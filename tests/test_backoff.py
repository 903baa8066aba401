"""When to try again."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd.backoff import Backoff

durations = st.timedeltas(min_value=timedelta(milliseconds=1), max_value=timedelta(days=30))
backoffs = st.builds(Backoff, first=durations, cap=durations, jitter=st.floats(0, 1))
attempts = st.integers(-3, 10**6)
TICK = timedelta(milliseconds=1)  # what timedelta rounds away, and then some


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 5), (2, 10), (3, 20), (7, 320), (11, 3600), (20, 3600)])
def test_every_attempt_doubles_the_wait_up_to_the_cap(attempt: int, seconds: int) -> None:
    assert Backoff().delay(attempt) == timedelta(seconds=seconds)


def test_chance_takes_off_at_most_the_share_that_is_jitter() -> None:
    backoff = Backoff(first=timedelta(seconds=10), jitter=0.2)
    assert [backoff.delay(1, chance).total_seconds() for chance in (0.0, 0.5, 1.0)] == [10, 9, 8]


def test_without_jitter_chance_decides_nothing() -> None:
    assert Backoff(jitter=0.0).delay(3, 0.7) == Backoff(jitter=0.0).delay(3)


def test_an_attempt_before_the_first_waits_like_the_first() -> None:
    assert Backoff().delay(0) == Backoff().delay(1)


@given(backoffs, attempts, st.floats(0, 1))
def test_no_wait_is_negative_or_past_the_cap(backoff: Backoff, attempt: int, chance: float) -> None:
    """Nor does any number of attempts overflow."""
    assert timedelta(0) <= backoff.delay(attempt, chance) <= backoff.cap


@given(backoffs, attempts)
def test_a_later_attempt_never_waits_less(backoff: Backoff, attempt: int) -> None:
    assert backoff.delay(attempt) <= backoff.delay(attempt + 1)


@given(backoffs, attempts, st.floats(0, 1))
def test_the_wait_keeps_what_jitter_leaves(backoff: Backoff, attempt: int, chance: float) -> None:
    least = backoff.delay(attempt) * (1 - backoff.jitter)
    assert backoff.delay(attempt, chance) >= least - TICK
