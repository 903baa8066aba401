"""Latencies in buckets, and the percentiles that are read from them."""

from collections import Counter
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd.stats import DOUBLING, at_most, bucket, percentile

WEEK = 7 * 24 * 3600 * 1000
latencies = st.lists(st.integers(0, 2000) | st.integers(0, WEEK), min_size=1, max_size=80)
shares = st.sampled_from(["0.01", "0.5", "0.9", "0.95", "0.99", "1"])


def is_close(told: int | None, true: int) -> bool:
    """Within 10 %, and the rounding to whole milliseconds; what took less than one is told as one."""
    return told is not None and abs(told - max(true, 1)) <= 0.1 * max(true, 1) + 0.5


@given(latencies, shares)
def test_a_percentile_is_within_ten_percent_of_the_true_one(counted: list[int], share: str) -> None:
    """The true one is the smallest latency that this share of all do not exceed."""
    enough = Fraction(share) * len(counted)
    true = next(each for number, each in enumerate(sorted(counted), 1) if number >= enough)
    assert is_close(percentile(Counter(map(bucket, counted)), float(share)), true)


def test_every_latency_up_to_ten_seconds_is_told_within_ten_percent() -> None:
    wrong = [each for each in range(10_000) if not is_close(percentile({bucket(each): 1}, 0.5), each)]
    assert wrong == []


@given(latencies, st.integers(0, 30))
def test_up_to_a_power_of_two_the_buckets_count_exactly(counted: list[int], doublings: int) -> None:
    within = [each for each in counted if each <= 2**doublings]
    assert at_most(Counter(map(bucket, counted)), doublings) == len(within)


@given(st.integers(0, WEEK), st.integers(0, WEEK))
def test_a_longer_latency_is_in_no_earlier_bucket(one: int, other: int) -> None:
    assert bucket(min(one, other)) <= bucket(max(one, other))


@given(st.integers(2, timedelta.max // timedelta(milliseconds=1)))
def test_a_latency_is_in_the_first_bucket_that_holds_it(latency: int) -> None:
    number = bucket(latency)
    assert 2 ** ((number - 1) / DOUBLING) < latency <= 2 ** (number / DOUBLING)


@given(latencies)
def test_percentiles_do_not_fall(counted: list[int]) -> None:
    buckets = Counter(map(bucket, counted))
    told = [percentile(buckets, share) or 0 for share in (0.5, 0.95, 0.99, 1.0)]
    assert told == sorted(told)


def test_a_few_slow_ones_show_only_in_the_high_percentiles() -> None:
    buckets = Counter(map(bucket, [20] * 97 + [5000] * 3))
    assert is_close(percentile(buckets, 0.5), 20)
    assert is_close(percentile(buckets, 0.95), 20)
    assert is_close(percentile(buckets, 0.99), 5000)


@pytest.mark.parametrize("buckets", [{}, {3: 0}])
def test_of_nothing_there_is_no_percentile(buckets: dict[int, int]) -> None:
    assert percentile(buckets, 0.5) is None


def test_a_clock_that_was_set_back_counts_as_no_latency() -> None:
    assert bucket(-5000) == bucket(0)


def test_a_week_needs_less_than_a_hundred_and_fifty_buckets() -> None:
    """A minute's row stays small however late its events were."""
    assert bucket(WEEK) < 150
