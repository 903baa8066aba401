"""When batch windows open: cron expressions in a time zone, as cron itself understands them.

An expression is read here, strictly, into the values that each of its fields allows. APScheduler only finds
the next of them, and on the face of a clock that is never set forward or back: weekdays count otherwise
there, and on days when the clock jumps its versions differ, down to days without any window. What such a
face shows is then looked up in the zone. It knows neither the outbox nor what is done in a window.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cached_property
from typing import Any, NamedTuple

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
"""The days that each month can have."""

ITEM = re.compile(r"(?:\*|(?P<first>[a-z0-9]{1,9})(?:-(?P<last>[a-z0-9]{1,9}))?)(?:/(?P<step>[0-9]{1,9}))?")


class ScheduleError(ValueError):
    """An expression, or a time zone, that will not do; in words that an administrator can act on."""


class Schedule:
    """The openings of several windows.

    `windows` are cron expressions of five fields (minute, hour, day of the month, month, day of the week)
    or nicknames such as @daily; `zone` is the IANA name of the time zone whose clock they are read on.
    Raises ScheduleError.

    Where the clock is set forward, a window that it jumps over opens at the moment of the jump. Where it is
    set back, a window opens the first time only, unless it is one of every hour: that knows no difference.
    """

    def __init__(self, windows: Sequence[str], zone: str) -> None:
        self._windows = [read(each) for each in windows]
        self._zone = time_zone(zone)

    def next_after(self, moment: datetime) -> datetime | None:
        """The first opening strictly after the aware `moment`, in UTC; None only if there are no windows."""
        moment = moment.astimezone(UTC)
        passes = [(each, fold) for each in self._windows for fold in ((0, 1) if each.is_hourly else (0,))]
        return min((self._next(each, fold, moment) for each, fold in passes), default=None)

    @property
    def triggers(self) -> tuple[Any, ...]:
        """The same for an APScheduler: its triggers, which come once for all that was missed meanwhile."""
        from apscheduler.triggers.base import BaseTrigger

        next_after = self.next_after

        class Opening(BaseTrigger):  # type: ignore[misc]  # APScheduler ships no types
            def get_next_fire_time(self, _: datetime | None, now: datetime) -> datetime | None:
                return next_after(now)

        return (Opening(),) if self._windows else ()

    def _next(self, window: "Window", fold: int, moment: datetime) -> datetime:
        # the earlier of the two faces: if the clock is soon set back it will show again what is past
        face = min(self._face(moment), self._face(moment + DAY) - DAY)
        while True:
            face = window.next_after(face)
            if (opening := self._instant(face, fold)) > moment:
                return opening

    def _face(self, moment: datetime) -> datetime:
        """What the zone's clock shows. Faces are kept as if they were times in UTC, to reckon with them."""
        return moment.astimezone(self._zone).replace(tzinfo=UTC, fold=0)

    def _instant(self, face: datetime, fold: int) -> datetime:
        """When the clock shows `face`, or jumps over it; of two times the first (fold 0) or the last (1)."""
        first, last = (face.replace(tzinfo=self._zone, fold=each).astimezone(UTC) for each in (0, 1))
        if first <= last:
            return last if fold else first
        # jumped over: the two are what the rule after the jump and the rule before it make of the face
        minutes = range((first - last) // MINUTE)
        return last + MINUTE * bisect_left(minutes, True, key=lambda n: self._face(last + MINUTE * n) >= face)


@dataclass(frozen=True)
class Window:
    """One expression as the values it allows, weekdays from 0, Sunday.

    `either_will_do`: a date needs to be one of `days`, which may be none, or of `weekdays`, not of both.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_will_do: bool

    @property
    def is_hourly(self) -> bool:
        return len(self.hours) == 24

    def next_after(self, face: datetime) -> datetime:
        """The next opening on the face of a clock that is never set; a minute, as if in UTC."""
        soonest = face + timedelta(microseconds=1)
        found: list[datetime] = [each.get_next_fire_time(None, soonest) for each in self._triggers]
        return min(found)

    @cached_property
    def _triggers(self) -> list[Any]:
        from apscheduler.triggers.cron import CronTrigger

        days = {"day": _listed(self.days)}
        weekdays = {"day_of_week": ",".join(WEEKDAYS[each] for each in self.weekdays)}
        return [
            CronTrigger(
                minute=_listed(self.minutes),
                hour=_listed(self.hours),
                month=_listed(self.months),
                timezone=UTC,
                **dates,
            )
            for dates in ([days, weekdays] if self.either_will_do else [days | weekdays])
            if all(dates.values())
        ]


def _listed(values: frozenset[int]) -> str:
    return ",".join(map(str, sorted(values)))


def read(expression: str) -> Window:
    """The window that the expression stands for. Raises ScheduleError naming what is wrong with it."""
    text = expression.strip().lower()
    if text.startswith("@") and text not in NICKNAMES:
        raise ScheduleError(f"'{expression}': of the nicknames there are {', '.join(NICKNAMES)}")
    fields = NICKNAMES.get(text, text).split()
    if len(fields) != len(FIELDS):
        seconds = "; there are no seconds" if len(fields) == 6 else ""
        raise ScheduleError(
            f"'{expression}' has {len(fields)} field{'s' * (len(fields) != 1)} instead of five "
            f"(minute, hour, day of the month, month, day of the week){seconds}"
        )
    try:
        minutes, hours, days, months, weekdays = (
            field.values(items) for field, items in zip(FIELDS, fields, strict=True)
        )
    except ScheduleError as error:
        raise ScheduleError(f"'{expression}': {error}") from None
    # as in cron itself, a day field that begins with a star, a step or not, does not count as restricted
    either_will_do = not fields[2].startswith("*") and not fields[4].startswith("*")
    days = frozenset(day for day in days if any(day <= LONGEST[month - 1] for month in months))
    if not days and not either_will_do:
        raise ScheduleError(f"'{expression}' never comes: no such month has that day")
    return Window(minutes, hours, days, months, weekdays, either_will_do)


class Field(NamedTuple):
    """One of an expression's fields: what its values are called, and from where to where they go."""

    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()

    def values(self, items: str) -> frozenset[int]:
        """`1-5`, `mon,wed`, `*/15`, `fri-mon`: every value that is meant. Raises ScheduleError."""
        return frozenset(value for item in items.split(",") for value in self._item(item))

    def _item(self, item: str) -> set[int]:
        found = ITEM.fullmatch(item)
        if found is None:
            raise ScheduleError(f"'{item}' is no {self.name}")
        first, last, step = found["first"], found["last"], int(found["step"] or 1)
        if not 1 <= step <= self.most - self.least:
            raise ScheduleError(f"the step of the {self.name} is 1 to {self.most - self.least}, not {step}")
        if found["step"] and first and not last:
            raise ScheduleError(f"'{item}' has a step but no range; write {first}-{self.most}/{step}")
        low = self._value(first) if first else self.least
        high = self._value(last) if last else low if first else self.most
        size = self.most - self.least + 1
        if high < low:
            high += size  # round the end: fri-mon, 22-4
        return {(value - self.least) % size + self.least for value in range(low, high + 1, step)}

    def _value(self, written: str) -> int:
        if written in self.names:
            return self.names.index(written) + self.least
        most = 7 if self.names is WEEKDAYS else self.most  # Sunday is 0 and 7
        if written.isdecimal() and self.least <= int(written) <= most:
            return int(written)
        named = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        raise ScheduleError(f"the {self.name} is {self.least} to {most}{named}, not '{written}'")


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of the month", 1, 31),
    Field("month", 1, 12, MONTHS),
    Field("day of the week", 0, 6, WEEKDAYS),
)


def time_zone(name: str) -> tzinfo:
    """The zone of this IANA name. Raises ScheduleError, with the nearest known name."""
    if name == "UTC":
        return UTC  # on hosts without time zone data too
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # unknown; no name at all; a folder, such as Europe
        raise ScheduleError(f"no such time zone{_nearest_zone(name)}") from None


def _nearest_zone(name: str) -> str:
    import difflib
    from zoneinfo import available_timezones

    known = sorted(available_timezones())
    if not known:
        return ": this host knows UTC alone; install its package tzdata"
    names = {each.lower().rpartition("/")[2]: each for each in known} | {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower().replace(" ", "_"), names, n=1, cutoff=0.8)
    return f"; did you mean {names[near[0]]}?" if near else "; its name is such as Europe/Berlin"
