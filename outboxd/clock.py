"""Time: the one place that reads the wall clock, and the text form it has in the database.

Everything below the doors takes `now` as an argument. Times are UTC text with milliseconds,
`2026-11-23T16:12:51.821Z`, exactly as SQLite's `strftime('%Y-%m-%dT%H:%M:%fZ', 'now')` writes them,
so that rows written by shops and by us sort together and can be read by people.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from time import monotonic

TOLERANCE = timedelta(seconds=2)
"""By less than this the wall clock may be set without anybody minding."""

HELD_UP = 0.5
"""Seconds between two readings of clocks after which they say nothing of each other."""


class Steps:
    """Notices when `clock` is set: it and the monotonic one (in seconds) no longer go together."""

    def __init__(self, clock: Callable[[], datetime], monotonic: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._last = self._read()

    def look(self) -> tuple[datetime, timedelta]:
        """The time, and by how much the clock was set since the last look, zero if it was not."""
        (then, past), self._last = self._last, self._read()
        now, passed = self._last[0], timedelta(seconds=self._last[1] - past)
        by = now - then - passed
        return now, by if abs(by) > TOLERANCE else timedelta(0)

    def _read(self) -> tuple[datetime, float]:
        """Both clocks at once; again if this process was held up between them."""
        while True:
            before, now, after = self._monotonic(), self._clock(), self._monotonic()
            if after - before <= HELD_UP:
                return now, after


def wall() -> datetime:
    """The time now, aware, UTC, cut to milliseconds."""
    return floor(datetime.now(UTC))


def floor(moment: datetime) -> datetime:
    """`moment` in UTC without what is finer than a millisecond: what survives a trip through the database."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@lru_cache(maxsize=1024)  # the facts of one event share its time, those of one transaction share now
def to_text(moment: datetime) -> str:
    """`2026-11-23T16:12:51.821Z`"""
    moment = moment.astimezone(UTC).replace(tzinfo=None)  # or its offset would be written, only to be cut off
    return moment.isoformat(timespec="milliseconds") + "Z"


@lru_cache(maxsize=1024)
def from_text(text: str) -> datetime:
    """The inverse of `to_text`; also any ISO 8601 time with an offset.

    Raises ValueError for anything else, a time without an offset included: it could be any hour of the day.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    try:
        return floor(moment)
    except OverflowError as error:  # the year 1 east of Greenwich, a shop's way to say never
        raise ValueError(f"{text!r} is out of range") from error


def milliseconds(duration: timedelta) -> int:
    """A duration in whole milliseconds, for logs and counters."""
    return round(duration.total_seconds() * 1000)
