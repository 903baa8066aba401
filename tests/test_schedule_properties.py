"""Any expression opens as an independent reading of cron has it, looking at the clock minute by minute."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from hypothesis import example, given, settings
from hypothesis import strategies as st

from outboxd.schedule import Schedule, ScheduleError
from tests.test_schedule import MINUTE, at, openings

NAMES = {
    3: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    4: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


def number(field: int, word: str) -> int:
    words = NAMES.get(field, [])
    return words.index(word.lower()) + RANGES[field][0] if word.lower() in words else int(word)


def is_meant(field: int, item: str, value: int) -> bool:
    """Whether one item of a list, such as `*/5` or `fri-mon`, means the value."""
    least, most = RANGES[field]
    values, _, step = item.partition("/")
    first, _, last = values.partition("-")
    if values == "*":
        return (value - least) % int(step or 1) == 0
    low, high = number(field, first), number(field, last or first)
    for lap in (0, most - least + 1):  # a range may go round the end, and Sunday may be 7
        end = high if low <= high else high + most - least + 1
        if low <= value + lap <= end and (value + lap - low) % int(step or 1) == 0:
            return True
    return False


def is_opening(expression: str, moment: datetime) -> bool:
    fields = expression.split()
    values = (moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7)
    meant = [
        any(is_meant(field, item, value) for item in items.split(","))
        for field, (items, value) in enumerate(zip(fields, values, strict=True))
    ]
    minute, hour, day, month, weekday = meant
    is_either = fields[2][0] != "*" and fields[4][0] != "*"
    return minute and hour and month and (day or weekday if is_either else day and weekday)


def minutes_shown(since: datetime, count: int, zone: str) -> Iterator[tuple[datetime, datetime]]:
    """Each minute after `since`, and what a clock of the zone shows then."""
    for passed in range(1, count + 1):
        moment = since + passed * MINUTE
        yield moment, moment.astimezone(ZoneInfo(zone)).replace(tzinfo=UTC, fold=0)


def by_hand(expression: str, zone: str, since: datetime, count: int) -> list[datetime]:
    """The openings among those minutes, by looking at the clock each minute.

    What the clock has shown or jumped over is past, for good; only a window of every hour opens whenever its
    minute is shown.
    """
    is_hourly = all(
        any(is_meant(1, item, hour) for item in expression.split()[1].split(",")) for hour in range(24)
    )
    lead = 24 * 60
    latest = (since - lead * MINUTE).astimezone(ZoneInfo(zone)).replace(tzinfo=UTC, fold=0)
    found = []
    for moment, shown in minutes_shown(since - lead * MINUTE, lead + count, zone):
        passed = [latest + n * MINUTE for n in range(1, (shown - latest) // MINUTE + 1)]
        latest = max(latest, shown)
        if moment > since and any(is_opening(expression, each) for each in passed + [shown] * is_hourly):
            found.append(moment)
    return found


@st.composite
def items(draw: st.DrawFn, field: int) -> str:
    """One item of a field's list, in one of cron's spellings."""
    least, most = RANGES[field]
    values = st.integers(least, 7 if field == 4 else most).map(str)
    if field in NAMES:
        values |= st.sampled_from(NAMES[field]).flatmap(lambda name: st.sampled_from([name, name.upper()]))
    steps = st.just("") | st.integers(1, most - least).map("/{}".format)
    ranges = st.tuples(values, values).map("-".join)
    return draw(values | st.tuples(st.just("*") | ranges, steps).map("".join))


@st.composite
def expressions(draw: st.DrawFn) -> str:
    return " ".join(
        draw(st.just("*") | st.lists(items(field), min_size=1, max_size=3).map(",".join))
        for field in range(5)
    )


MOMENTS = st.integers(0, 8 * 366 * 86_400).map(
    lambda seconds: at("2024-01-01 00:00") + timedelta(seconds=seconds)
)


@settings(max_examples=150)
@given(expressions(), MOMENTS)
@example("0 0 * * 7", at("2026-06-01 00:00"))
@example("*/7 */5 */2 * mon", at("2026-06-01 00:00"))
@example("59 23 31 12 *", at("2026-12-31 23:59"))
@example("0 12 29 2 *", at("2024-02-29 12:00"))
def test_any_expression_opens_at_the_first_minute_that_cron_means(expression: str, moment: datetime) -> None:
    minute, hour, *date = expression.split()
    midnight = moment.replace(hour=0, minute=0, second=0)
    dates = (midnight + timedelta(days=passed) for passed in range(9 * 366))
    dates = (day for day in dates if is_opening(" ".join(["*", "*", *date]), day))
    shown = (day + n * MINUTE for day in islice(dates, 2) for n in range(24 * 60))
    wanted = (each for each in shown if each > moment and is_opening(f"{minute} {hour} * * *", each))
    try:
        found = Schedule([expression], "UTC").next_after(moment)
    except ScheduleError:
        found = None  # it never comes
    rarely = found is not None and found > midnight + timedelta(days=9 * 366 - 1)
    assert next(wanted, None) == (None if rarely else found)


JUMPS = st.sampled_from(
    [
        ("Europe/Berlin", at("2026-03-29 01:00")),
        ("Europe/Berlin", at("2026-10-25 01:00")),
        ("America/New_York", at("2026-03-08 07:00")),
        ("America/New_York", at("2026-11-01 06:00")),
        ("Australia/Lord_Howe", at("2026-04-04 15:00")),  # by half an hour
        ("Australia/Lord_Howe", at("2026-10-03 15:30")),
        ("America/Sao_Paulo", at("2018-11-04 03:00")),  # midnight does not exist
        ("America/Sao_Paulo", at("2018-02-18 02:00")),  # nor is the day before over
        ("America/Havana", at("2026-11-01 05:00")),
        ("Pacific/Apia", at("2011-12-30 10:00")),  # a day does not exist
    ]
)
HOURS = st.sampled_from(["*", "*/2", "0-23", "2", "0,1", "23", "1-3"]) | items(1)
MINUTES = st.sampled_from(["*", "*/15", "0", "30"]) | items(0)


@settings(max_examples=100)
@given(
    JUMPS,
    MINUTES,
    HOURS,
    st.sampled_from(["* * *", "* * 0", "* * 6", "1-15 * 0", "31 * *"]),
    st.integers(-180, 60),
)
def test_on_days_when_the_clock_jumps_each_window_opens_when_its_time_has_come(
    jump: tuple[str, datetime], minute: str, hour: str, date: str, minutes: int
) -> None:
    zone, moment = jump
    expression = f"{minute} {hour} {date}"
    since = moment + minutes * MINUTE
    found = openings(Schedule([expression], zone), since, since + 300 * MINUTE)
    assert found == by_hand(expression, zone, since, 300)
