"""The sections `batch` and `hybrid`: their defaults, what they take, and every fault in them."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd import CustomerSync, config
from outboxd.config import BatchSettings, HybridSettings
from outboxd.errors import ConfigError
from tests.test_config import faults, in_options, parsed

YEAR_OF_SECONDS = 365 * 86_400


@pytest.mark.parametrize("mode", ["realtime", "batch", "hybrid"])
def test_there_are_three_modes(mode: str) -> None:
    assert parsed(in_options(f"sync_mode: {mode}")).sync_mode == mode


@pytest.mark.parametrize("text", ["", "batch: ~\nhybrid: ~", "batch: {}\nhybrid: {}", "batch: {window: ~}"])
def test_what_is_left_out_has_a_default(text: str) -> None:
    told = parsed(text)
    assert told.batch == BatchSettings(("*/15 * * * *",), "UTC", None, None, 100, 20_000) == BatchSettings()
    assert told.hybrid == HybridSettings(timedelta(seconds=30)) == HybridSettings()


def test_every_setting_is_taken() -> None:
    text = """
        batch: {window: "30 2 * * mon-fri", timezone: Europe/Berlin, maxWait: 2h, max_events: 5000,
                batch_size: 1000, import_size: 100000}
        hybrid: {thresholdSeconds: 2.5}
    """
    told = parsed(text)
    assert told.batch == BatchSettings(
        ("30 2 * * mon-fri",), "Europe/Berlin", timedelta(hours=2), 5000, 1000, 100_000
    )
    assert told.hybrid == HybridSettings(timedelta(seconds=2.5))


def test_a_window_may_be_several() -> None:
    text = 'batch:\n  window:\n    - "*/15 8-18 * * *"\n    - "@daily"\n'
    assert parsed(text).batch.window == ("*/15 8-18 * * *", "@daily")


def test_a_program_hands_the_sections_over_too(tmp_path: Path) -> None:
    batch = {"window": ("@hourly", "@daily"), "maxEvents": 7}
    told = config.from_mapping({"batch": batch, "hybrid": {"threshold_seconds": 1}}, "a program")
    assert (told.batch.window, told.batch.max_events) == (("@hourly", "@daily"), 7)
    assert told.hybrid.threshold == timedelta(seconds=1)


def test_the_embedded_client_takes_them_and_tells_their_faults(tmp_path: Path) -> None:
    where: dict[str, Any] = {"database": tmp_path / "shop.db", "brevo_api_key": "xkeysib-sandbox"}
    CustomerSync(**where, options={"sync_mode": "batch"}, batch={"window": "@hourly"}, hybrid={})
    with pytest.raises(ConfigError) as caught:
        CustomerSync(**where, batch={"timezone": "Europe/Berln"}, hybrid={"threshold_seconds": 0})
    assert [fault.split(":")[1].strip() for fault in caught.value.faults] == [
        "batch.timezone",
        "hybrid.threshold_seconds",
    ]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("2h", timedelta(hours=2)),
        ("'1 d'", timedelta(days=1)),
        ("90", timedelta(seconds=90)),
        ("1.5", timedelta(seconds=1.5)),
        ("~", None),
    ],
)
def test_a_duration_is_a_number_with_its_unit_or_seconds(written: str, told: timedelta | None) -> None:
    assert parsed(f"batch: {{max_wait: {written}}}").batch.max_wait == told


@given(st.integers(0, YEAR_OF_SECONDS), st.sampled_from([("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)]))
def test_any_duration_from_a_second_to_thirty_days_is_taken_and_no_other(
    number: int, unit: tuple[str, int]
) -> None:
    letter, seconds = unit
    text = f"batch: {{max_wait: {number}{letter}}}"
    if 1 <= number * seconds <= 30 * 86_400:
        assert parsed(text).batch.max_wait == timedelta(seconds=number * seconds)
    else:
        assert faults(text) == ["config.yaml:1: batch.max_wait: must be from 1s to 30d"]


@pytest.mark.parametrize(
    "written", ["soon", "15 minutes", "-5m", "1h30m", "15M", "true", "[]", "!!float .nan"]
)
def test_what_is_no_duration_is_told_with_an_example(written: str) -> None:
    assert "must be a duration such as 90s, 15m, 2h or 1d" in faults(f"batch: {{max_wait: {written}}}")[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("batch: {window: '61 * * * *'}", "batch.window: '61 * * * *': the minute is 0 to 59, not '61'"),
        ("batch: {window: '0 0 * * * *'}", "there are no seconds"),
        ("batch: {window: '0 0 31 2 *'}", "never comes"),
        ("batch: {window: '@reboot'}", "of the nicknames there are @hourly"),
        ("batch: {window: 15}", "must be a cron expression, or a list of several, such as '*/15 * * * *'"),
        ("batch: {window: []}", "must be a cron expression, or a list"),
        ("batch: {window: [5]}", "must be a cron expression, or a list"),
        ("batch: {window: {}}", "must be a cron expression, or a list"),
        ("batch: {timezone: europe/berlin}", "no such time zone; did you mean Europe/Berlin?"),
        ("batch: {timezone: Berlin}", "no such time zone; did you mean Europe/Berlin?"),
        ("batch: {timezone: ../../etc/passwd}", "no such time zone; its name is such as"),
        ("batch: {timezone: 2}", "must be a text"),
        ("batch: {max_events: 0}", "must be a whole number from 1 to 10000000"),
        ("batch: {batch_size: 1001}", "must be a whole number from 1 to 1000"),
        ("batch: {import_size: 100001}", "must be a whole number from 1 to 100000"),
        ("batch: {windw: '@daily'}", "no such setting; did you mean window?"),
        ("batch: {threshold_seconds: 5}", "no such setting"),
        ("hybrid: {threshold_seconds: 0.9}", "must be a number from 1 to 86400"),
        ("hybrid: {threshold_seconds: 86401}", "must be a number from 1 to 86400"),
        ("batch: hourly", "must be a section"),
    ],
)
def test_a_wrong_setting_is_told(text: str, told: str) -> None:
    assert len(faults(text)) == 1
    assert told in faults(text)[0]


def test_every_fault_is_told_at_once_each_with_its_line() -> None:
    text = """\
skills: {customer-sync: {options: {sync_mode: bach}}}
batch:
  window: ["*/15 * * * *", "0 25 * * *", "0 0 * * mo"]
  timezone: Europe/Berln
  max_wait: 0s
hybrid: {threshold_seconds: none}
"""
    told = faults(text)
    assert [fault.split(": ")[0] for fault in told] == [f"config.yaml:{line}" for line in (1, 3, 4, 5, 6)]
    assert "did you mean batch?" in told[0]
    assert "the hour is 0 to 23, not '25'" in told[1]
    assert "the day of the week is 0 to 7 or sun to sat, not 'mo'" in told[1]


@pytest.mark.parametrize("mode", ["realtime", "hybrid", "batch"])
def test_a_wrong_window_is_told_in_every_mode(mode: str) -> None:
    told = faults(in_options(f"sync_mode: {mode}") + "batch: {window: hourly}")
    assert told == [
        "config.yaml:5: batch.window: 'hourly' has 1 field instead of five (minute, hour, day of the month, "
        "month, day of the week); write a cron expression such as '*/15 * * * *', '30 2 * * mon-fri' or "
        "'@daily'"
    ]


@pytest.mark.parametrize("mode", ["realtime", "batch", "hybrid"])
def test_reading_a_configuration_does_not_load_the_scheduler(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        in_options(f"sync_mode: {mode}") + 'batch: {window: "@hourly", timezone: Europe/Berlin}\n'
    )
    code = (
        "import sys; from pathlib import Path; from outboxd import config; "
        "config.read(Path(sys.argv[1])); print('apscheduler' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
