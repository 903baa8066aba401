"""Latencies in buckets: how a minute's figures are kept small, and read as percentiles. Pure."""

from collections.abc import Mapping

DOUBLING = 4
"""So many buckets to each doubling: a percentile is off by 10 % at most, rounding to milliseconds aside."""

BOUNDS = [2 ** (number / DOUBLING) for number in range(57 * DOUBLING + 1)]
"""The longest latency of each bucket, in milliseconds; the last one is longer than any timedelta."""


def bucket(milliseconds: int) -> int:
    """The number of the bucket that holds a latency: 0 up to 1 ms, then ever wider ones."""
    from bisect import bisect_left  # not for those who only read, as `status` does

    return bisect_left(BOUNDS, milliseconds)


def at_most(buckets: Mapping[int, int], doublings: int) -> int:
    """How many of the counted latencies are no longer than 2 to the power of `doublings` milliseconds."""
    return sum(count for number, count in buckets.items() if number <= doublings * DOUBLING)


def percentile(buckets: Mapping[int, int], share: float) -> int | None:
    """The latency in milliseconds that `share` (0 to 1) of the counted ones do not exceed, None of none."""
    total = sum(buckets.values())
    if not total:
        return None
    passed = 0
    for number in sorted(buckets):
        passed += buckets[number]
        if passed >= share * total:
            return round(2 ** ((number - 0.5) / DOUBLING)) if number else 1
    return round(2 ** (max(buckets) / DOUBLING))
