"""Time: the one place that reads the wall clock, and the text form it has in the database.

Everything below the doors takes `now` as an argument. Times are UTC text with milliseconds,
`2026-11-23T16:12:51.821Z`, exactly as SQLite's `strftime('%Y-%m-%dT%H:%M:%fZ', 'now')` writes them,
so that rows written by shops and by us sort together and can be read by people.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache


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
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


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
