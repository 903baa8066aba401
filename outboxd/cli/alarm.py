"""Alarms: `status` as a check, with the exit codes and the first line that Nagios and its like go by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any

from outboxd.cli.figures import latency, percent
from outboxd.threshold import FOREVER, Threshold, Value


class Level(IntEnum):
    """How bad it is; the value is the exit code. To have no answer is an error: see `checking`."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a check found: its level, and each threshold that is met, with what it was held against."""

    level: Level
    met: Sequence[tuple[Level, Threshold, Value | None]]

    @property
    def line(self) -> str:
        """`CRITICAL: dead is 3 (dead>0)`"""
        told = [f"{each.name} is {_told(found)} ({each.written})" for _, each, found in self.met]
        return f"{self.level.name}: {'; '.join(told) or 'no threshold is met'}"

    @property
    def as_json(self) -> dict[str, Any]:
        """What `status --json` has of it."""
        met = [{"threshold": each.written, "level": level.name} for level, each, _ in self.met]
        return {"level": self.level.name, "met": met}


def judge(
    fail_if: Sequence[Threshold], warn_if: Sequence[Threshold], facts: Mapping[str, Any], now: datetime
) -> Alarm:
    """Hold the facts of `report.status` against every threshold."""
    levels = [*((Level.CRITICAL, each) for each in fail_if), *((Level.WARNING, each) for each in warn_if)]
    met = [(level, each, each.found(facts, now)) for level, each in levels if each.is_met(facts, now)]
    return Alarm(max((level for level, _, _ in met), default=Level.OK), met)


def _told(found: Value | None) -> str:
    match found:
        case timedelta():
            return "never" if found == FOREVER else latency(round(found.total_seconds() * 1000))
        case float():
            return percent(found)
        case _:
            return str(found)
