"""When windows open: as cron has it, in UTC and on the days when a zone's clock jumps."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from outboxd.schedule import NICKNAMES, Schedule, ScheduleError

MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    """`2026-03-29 01:00`, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def openings(schedule: Schedule, since: datetime, until: datetime) -> list[datetime]:
    """Every opening after `since`, up to and with `until`."""
    found = []
    while (opening := schedule.next_after(since)) is not None and opening <= until:
        found.append(opening)
        since = opening
    return found


def days(expression: str, month: str = "2026-06") -> list[int]:
    """The days of a month on which a window opens. June 2026 begins with a Monday."""
    first = at(f"{month}-01 00:00")
    after = (first + timedelta(days=31)).replace(day=1)
    found = openings(Schedule([expression], "UTC"), first - MINUTE, after - MINUTE)
    return sorted({opening.day for opening in found})


def test_a_time_that_does_not_exist_opens_when_the_clock_jumps_over_it() -> None:
    found = openings(
        Schedule(["30 2 * * *"], "Europe/Berlin"), at("2026-03-28 00:00"), at("2026-03-31 00:00")
    )
    assert found == [at("2026-03-28 01:30"), at("2026-03-29 01:00"), at("2026-03-30 00:30")]


def test_a_time_that_comes_twice_opens_the_first_time() -> None:
    found = openings(
        Schedule(["30 2 * * *"], "Europe/Berlin"), at("2026-10-24 12:00"), at("2026-10-26 12:00")
    )
    assert found == [at("2026-10-25 00:30"), at("2026-10-26 01:30")]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Sao_Paulo", "America/Asuncion", "Africa/Cairo"])
@pytest.mark.parametrize("expression", ["0 0 * * *", "30 0 * * *", "30 2 * * *", "59 23 * * *"])
def test_a_daily_window_opens_on_every_day_of_the_years_once(zone: str, expression: str) -> None:
    since, until = (datetime(year, 1, 1, tzinfo=ZoneInfo(zone)) for year in (2017, 2019))
    found = openings(Schedule([expression], zone), since - MINUTE, until - MINUTE)
    assert len({opening.astimezone(ZoneInfo(zone)).date() for opening in found}) == len(found) == 730


def test_a_window_of_every_hour_does_not_wait_while_an_hour_comes_again() -> None:
    found = openings(
        Schedule(["*/15 * * * *"], "Europe/Berlin"), at("2026-10-25 00:00"), at("2026-10-25 03:00")
    )
    assert {later - earlier for earlier, later in pairwise(found)} == {15 * MINUTE}
    assert len(found) == 12


# The traps


@pytest.mark.parametrize(
    ("weekdays", "told"),
    [
        ("0", [7, 14, 21, 28]),
        ("7", [7, 14, 21, 28]),
        ("1", [1, 8, 15, 22, 29]),
        ("SUN", [7, 14, 21, 28]),
        ("6-7", [6, 7, 13, 14, 20, 21, 27, 28]),
        ("sat-Sun", [6, 7, 13, 14, 20, 21, 27, 28]),
        ("6-1", [1, 6, 7, 8, 13, 14, 15, 20, 21, 22, 27, 28, 29]),
        ("fri-mon/3", [1, 5, 8, 12, 15, 19, 22, 26, 29]),
        ("1,wed", [1, 3, 8, 10, 15, 17, 22, 24, 29]),
        ("0-7", list(range(1, 31))),
        ("*/3", [3, 6, 7, 10, 13, 14, 17, 20, 21, 24, 27, 28]),
    ],
)
def test_weekdays_count_as_in_cron(weekdays: str, told: list[int]) -> None:
    assert days(f"0 0 * * {weekdays}") == told


def test_a_day_of_the_month_and_a_weekday_mean_either() -> None:
    assert days("0 0 13 * fri") == [5, 12, 13, 19, 26]
    assert days("0 0 31 2 mon", "2026-02") == [2, 9, 16, 23]


def test_a_star_with_a_step_does_not_restrict_the_days_as_in_cron() -> None:
    assert days("0 0 */2 * mon") == [1, 15, 29]


def test_a_range_goes_round_the_end() -> None:
    found = openings(Schedule(["0 22-1 * * *"], "UTC"), at("2026-06-01 12:00"), at("2026-06-02 12:00"))
    assert [opening.hour for opening in found] == [22, 23, 0, 1]
    assert Schedule(["0 0 1 NOV-feb *"], "UTC").next_after(at("2026-02-02 00:00")) == at("2026-11-01 00:00")


@pytest.mark.parametrize(
    ("nickname", "told"),
    [
        ("@hourly", "2026-06-03 16:00"),
        ("@daily", "2026-06-04 00:00"),
        ("@midnight", "2026-06-04 00:00"),
        (" @Weekly ", "2026-06-07 00:00"),
        ("@monthly", "2026-07-01 00:00"),
        ("@yearly", "2027-01-01 00:00"),
        ("@annually", "2027-01-01 00:00"),
    ],
)
def test_a_nickname_stands_for_its_expression(nickname: str, told: str) -> None:
    assert nickname.strip().lower() in NICKNAMES
    assert Schedule([nickname], "UTC").next_after(at("2026-06-03 15:00")) == at(told)


def test_of_several_windows_the_first_opens_and_two_at_once_are_one() -> None:
    schedule = Schedule(["0 9 * * *", "0 */3 * * *", "20 8 * * *"], "UTC")
    found = openings(schedule, at("2026-06-01 06:00"), at("2026-06-01 12:00"))
    assert [f"{opening:%H:%M}" for opening in found] == ["08:20", "09:00", "12:00"]


def test_without_windows_nothing_opens() -> None:
    assert Schedule([], "UTC").next_after(at("2026-06-01 00:00")) is None
    assert Schedule([], "UTC").triggers == ()


def test_an_opening_is_told_in_utc_whatever_zone_is_asked_in() -> None:
    moment = datetime(2026, 6, 1, 23, 59, 59, 999_999, tzinfo=ZoneInfo("Asia/Tokyo"))
    found = Schedule(["@daily"], "Asia/Tokyo").next_after(moment)
    assert found == at("2026-06-01 15:00")
    assert found.tzinfo is UTC


# What is no schedule


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("", "'' has 0 fields instead of five"),
        ("hourly", "has 1 field instead of five"),
        ("* * * *", "has 4 fields instead of five"),
        ("0 * * * * *", "has 6 fields instead of five (minute, hour, day of the month, month, day of the"),
        ("0 * * * * *", "there are no seconds"),
        ("60 * * * *", "the minute is 0 to 59, not '60'"),
        ("* 24 * * *", "the hour is 0 to 23, not '24'"),
        ("* * 0 * *", "the day of the month is 1 to 31, not '0'"),
        ("* * * 13 *", "the month is 1 to 12 or jan to dec, not '13'"),
        ("* * * * 8", "the day of the week is 0 to 7 or sun to sat, not '8'"),
        ("* * * * monday", "not 'monday'"),
        ("* * * mon *", "the month is"),
        ("* * * * fri#2", "'fri#2' is no day of the week"),
        ("* * L * *", "the day of the month is"),
        ("*/0 * * * *", "the step of the minute is 1 to 59, not 0"),
        ("*/90 * * * *", "the step of the minute is 1 to 59, not 90"),
        ("5/15 * * * *", "'5/15' has a step but no range; write 5-59/15"),
        ("1,,2 * * * *", "'' is no minute"),
        ("٣ * * * *", "is no minute"),
        ("-5 * * * *", "'-5' is no minute"),
        (f"{'9' * 5000} * * * *", "is no minute"),
        ("0 0 31 2 *", "'0 0 31 2 *' never comes"),
        ("0 0 30-31 feb *", "never comes"),
        ("0 0 31 4,jun,9,11 */2", "never comes"),
        ("@reboot", "of the nicknames there are @hourly"),
    ],
)
def test_what_is_no_window_is_refused_and_told(expression: str, told: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        Schedule(["@daily", expression], "UTC")
    assert told in str(caught.value)


@settings(max_examples=100)
@given(st.text(alphabet="0123456789*/,-@ amonsu#L", max_size=25) | st.text(max_size=12), st.text(max_size=8))
def test_any_text_is_a_window_in_a_zone_or_refused(expression: str, zone: str) -> None:
    moment = at("2026-06-01 00:00")
    for windows, name in (([expression], "UTC"), (["@daily"], zone)):
        try:
            found = Schedule(windows, name).next_after(moment)
        except ScheduleError:
            continue
        assert found is not None
        assert found > moment


@pytest.mark.parametrize(
    ("zone", "told"),
    [
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("Berlin", "did you mean Europe/Berlin?"),
        ("New York", "did you mean America/New_York?"),
        ("Europe", "its name is such as Europe/Berlin"),
        ("/etc/localtime", "its name is such as"),
        ("../Berlin", "no such time zone"),
        ("Mars/Phobos", "its name is such as"),
        ("", "its name is such as"),
    ],
)
def test_what_is_no_zone_is_refused_with_the_nearest_that_is(zone: str, told: str) -> None:
    with pytest.raises(ScheduleError, match="no such time zone") as caught:
        Schedule(["@daily"], zone)
    assert told in str(caught.value)


def test_a_host_without_time_zone_data_knows_utc() -> None:
    code = """if True:
        import sys, zoneinfo
        from datetime import datetime, UTC
        from outboxd.schedule import Schedule, ScheduleError

        zoneinfo.reset_tzpath(to=[])
        sys.modules["tzdata"] = None
        print(Schedule(["@daily"], "UTC").next_after(datetime(2026, 6, 1, tzinfo=UTC)))
        try:
            Schedule(["@daily"], "Europe/Berlin")
        except ScheduleError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "2026-06-02 00:00:00+00:00",
        "no such time zone: this host knows UTC alone; install its package tzdata",
    ]


# For APScheduler


def test_a_scheduler_takes_the_triggers_and_comes_at_the_openings() -> None:
    schedule = Schedule(["30 2 * * *", "@hourly"], "Europe/Berlin")
    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.start(paused=True)
    try:
        before = datetime.now(UTC)
        jobs = [scheduler.add_job(print, trigger) for trigger in schedule.triggers]
        after = datetime.now(UTC)
        first = min(job.next_run_time for job in jobs)
        assert first in {schedule.next_after(before), schedule.next_after(after)}
    finally:
        scheduler.shutdown()


def test_a_trigger_skips_what_was_missed_and_follows_a_clock_that_is_set_back() -> None:
    (trigger,) = Schedule(["@hourly"], "UTC").triggers
    missed, now = at("2026-06-01 01:00"), at("2026-06-03 12:30")
    assert trigger.get_next_fire_time(missed, now) == at("2026-06-03 13:00")
    assert trigger.get_next_fire_time(now, missed) == at("2026-06-01 02:00")


def test_a_schedule_is_read_without_loading_the_scheduler() -> None:
    code = "import sys; from outboxd.schedule import Schedule; Schedule(['@daily'], 'UTC'); "
    code += "print('apscheduler' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
