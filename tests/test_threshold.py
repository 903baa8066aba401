"""Thresholds: the grammar of `--fail-if`, and what they are held against."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from outboxd import threshold
from outboxd.cli.status import status
from outboxd.clock import to_text
from outboxd.config.kinds import FaultError
from outboxd.threshold import FIGURES, FOREVER

NOW = datetime(2026, 11, 23, 16, 0, tzinfo=UTC)


def facts(**told: Any) -> dict[str, Any]:
    """What `report.status` says of a queue with something of everything."""
    hour = {"error_rate": told.pop("error_rate", 0.05), "latency_ms": {"p95": told.pop("latency", 1500)}}
    quiet = {
        "pending": 10,
        "due": 5,
        "in_flight": 3,
        "retrying": 2,
        "dead": 1,
        "oldest_pending_seconds": 900.0,
        "heartbeat_at": to_text(NOW - timedelta(seconds=8)),
        "lane": {"state": told.pop("lane", "running")},
        "windows": {"hour": hour},
    }
    return {**quiet, **told}


def is_met(written: str, **told: Any) -> bool:
    return threshold.parse(written).is_met(facts(**told), NOW)


@pytest.mark.parametrize(
    "written",
    [
        "dead>0",
        "dead >= 1",
        " dead=1 ",
        "dead==1",
        "dead!=0",
        "pending<11",
        "pending<=10",
        "in_flight=3",
        "retrying=2",
        "due=5",
        "oldest>=15m",
        "oldest>899s",
        "oldest<1h",
        "oldest < 1 d",
        "heartbeat<=8s",
        "latency=1500ms",
        "latency>1.4s",
        "error_rate>=5%",
        "error_rate>4.9 %",
        "lane=running",
        "lane==running",
        "oldest<99999999.9d",
        "lane!=blocked",
    ],
)
def test_a_threshold_is_met_when_things_are_as_it_says(written: str) -> None:
    assert is_met(written)


@pytest.mark.parametrize(
    "written", ["dead>1", "oldest>15m", "heartbeat>8s", "error_rate>5%", "lane!=running"]
)
def test_what_it_names_itself_is_not_beyond_it(written: str) -> None:
    assert not is_met(written)


@pytest.mark.parametrize("sign", threshold.OPERATORS)
def test_what_is_not_known_meets_no_threshold(sign: str) -> None:
    assert not is_met(f"latency{sign}0s", latency=None)
    assert not is_met(f"error_rate{sign}0%", error_rate=None)


def test_nothing_pending_is_not_old() -> None:
    assert not is_met("oldest>0s", oldest_pending_seconds=None)


def test_a_daemon_that_never_ran_has_not_been_heard_of_for_ever() -> None:
    assert is_met("heartbeat>3650d", heartbeat_at=None)
    assert threshold.parse("heartbeat>1m").found(facts(heartbeat_at=None), NOW) == FOREVER


@pytest.mark.parametrize("name", ["ded", "Dead", "delivered"])
def test_an_unknown_name_is_told_with_the_known_ones(name: str) -> None:
    with pytest.raises(FaultError) as caught:
        threshold.parse(f"{name}>0")
    assert name in str(caught.value)
    assert all(known in str(caught.value) for known in FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_every_name_stands_in_the_help_and_in_the_readme(name: str) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert name in str(status.help)
    assert re.search(rf"^\|.*`{name}`.*\|", readme, re.M)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("", "no threshold"),
        ("dead", "such as dead>0"),
        (">5", "no threshold"),
        ("dead=>5", "whole number"),
        ("dead>", "whole number"),
        ("dead>-1", "whole number"),
        ("dead>15m", "whole number"),
        ("oldest>15", "such as 500ms"),
        ("oldest>15 weeks", "such as 500ms"),
        ("oldest>999999999.9d", "such as 500ms"),
        ("error_rate>0.05", "such as 5%"),
        ("lane>running", "compared with = or !="),
        ("lane!=runing", "did you mean running?"),
    ],
)
def test_what_cannot_be_read_is_told_with_what_it_should_be(written: str, told: str) -> None:
    with pytest.raises(FaultError) as caught:
        threshold.parse(written)
    assert told in str(caught.value)
