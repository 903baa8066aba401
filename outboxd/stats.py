"""Latencies in buckets: how a minute's figures are kept small, and read as percentiles. Pure."""

from collections.abc import Mapping

FACTOR = 2**0.25
"""Each bucket is about 19 % wider than the one before it, so a percentile is off by 10 % at most."""


def bucket(milliseconds: int) -> int:
    """The number of the bucket that holds a latency: 0 up to 1 ms, then ever wider ones."""
    number = 0
    while FACTOR**number < milliseconds:
        number += 1
    return number


def percentile(buckets: Mapping[int, int], share: float) -> int | None:
    """The latency in milliseconds that `share` (0 to 1) of the counted ones do not exceed, None of none."""
    total = sum(buckets.values())
    if not total:
        return None
    passed = 0
    for number in sorted(buckets):
        passed += buckets[number]
        if passed >= share * total:
            return round(FACTOR ** (number - 0.5)) if number else 1
    return round(FACTOR ** max(buckets))
