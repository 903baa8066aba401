"""Time, and the text form it has in the database."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone

import pytest
from freezegun import freeze_time
from hypothesis import given
from hypothesis import strategies as st

from outboxd import clock
from outboxd.clock import from_text, to_text

zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(timezones=zones).filter(lambda moment: 1 < moment.year < 9999)  # UTC must hold it
MOMENT = datetime(2026, 11, 23, 16, 12, 51, 821_000, UTC)


def test_a_time_is_utc_text_with_milliseconds() -> None:
    assert to_text(MOMENT) == "2026-11-23T16:12:51.821Z"


@freeze_time("2026-11-23 16:12:51.821987")
def test_the_wall_clock_is_aware_utc_and_cut_to_milliseconds() -> None:
    assert clock.wall() == MOMENT
    assert clock.wall().tzinfo is UTC


@given(moments)
def test_text_gives_back_the_moment_to_the_millisecond(moment: datetime) -> None:
    read = from_text(to_text(moment))
    assert read == clock.floor(moment)
    assert timedelta(0) <= moment - read < timedelta(milliseconds=1)


@given(moments, moments)
def test_text_sorts_as_time_does(one: datetime, other: datetime) -> None:
    one, other = clock.floor(one), clock.floor(other)
    assert (one < other) == (to_text(one) < to_text(other))


def test_the_text_is_what_sqlite_writes() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        shape = "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', ?)"
        assert connection.execute(shape, [MOMENT.isoformat()]).fetchone()[0] == to_text(MOMENT)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T16:12:51.821Z",
        "2026-11-23T16:12:51.821+00:00",
        "2026-11-23T17:12:51.821+01:00",
        "2026-11-23 16:12:51.821Z",
        "20261123T161251.821Z",
        "2026-11-23T16:12:51.821999Z",
    ],
)
def test_any_iso_time_with_an_offset_is_read(text: str) -> None:
    assert from_text(text) == MOMENT
    assert from_text(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-11-23", "2026-11-23T16:12:51", "2026-13-01T00:00:00Z", "1795450371", "24:00Z"],
)
def test_what_is_no_certain_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_text(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-05:00"])
def test_a_moment_that_utc_cannot_hold_is_refused_like_any_other(text: str) -> None:
    """Some shops write the first moment there is for "never"."""
    with pytest.raises(ValueError, match="out of range"):
        from_text(text)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [(timedelta(seconds=1.5), 1500), (timedelta(microseconds=1600), 2), (timedelta(seconds=-1), -1000)],
)
def test_durations_are_counted_in_whole_milliseconds(duration: timedelta, expected: int) -> None:
    assert clock.milliseconds(duration) == expected
