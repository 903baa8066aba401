"""Thresholds: what a check holds against the figures of `status`, such as `oldest>15m`. Pure.

A threshold is a name, an operator and a value. Counts are compared with numbers, ages and latencies with
durations, rates with percentages, and the lane with its states.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from outboxd.clock import from_text
from outboxd.config.kinds import UNITS, FaultError, one_of
from outboxd.report import LANES

Facts = Mapping[str, Any]
Value = int | float | timedelta | str
"""A count, a share from 0 to 1, a duration, or a state of the lane."""

FORM = re.compile(r"\s*([A-Za-z_]+)\s*(>=|<=|!=|==?|>|<)\s*(.*?)\s*")

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}

FOREVER = timedelta.max
"""The age of what never was."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Something that can be held against a value: how that is written, and where it stands.

    `read` gives None for what is not known (no attempts: no error rate); that meets no threshold.
    """

    parse: Callable[[str], Value]
    read: Callable[[Facts, datetime], Value | None]
    operators: tuple[str, ...] = tuple(OPERATORS)


@dataclass(frozen=True, slots=True)
class Threshold:
    """One condition, as it was written and as it is meant."""

    written: str
    name: str
    operator: str
    value: Value

    def found(self, facts: Facts, now: datetime) -> Value | None:
        """What it is held against, as `report.status` tells it; None if that is not known."""
        return FIGURES[self.name].read(facts, now)

    def is_met(self, facts: Facts, now: datetime) -> bool:
        """Whether things are as it says. What is not known is never so."""
        found = self.found(facts, now)
        return found is not None and OPERATORS[self.operator](found, self.value)


def parse(written: str) -> Threshold:
    """Read a threshold. Raises FaultError with what it should look like."""
    form = FORM.fullmatch(written)
    if form is None:
        raise FaultError(f"{written!r} is no threshold; write it such as dead>0, oldest>15m or lane!=running")
    name, sign, value = form[1], form[2].replace("==", "="), form[3]
    if name not in FIGURES:
        raise FaultError(f"{written!r}: there is no {name}; known are: {', '.join(FIGURES)}")
    figure = FIGURES[name]
    if sign not in figure.operators:
        raise FaultError(f"{written!r}: {name} is compared with {' or '.join(figure.operators)}")
    try:
        return Threshold(written.strip(), name, sign, figure.parse(value))
    except FaultError as fault:
        raise FaultError(f"{written!r}: the value {fault}") from None


def _count(written: str) -> Value:
    if re.fullmatch("[0-9]{1,15}", written):
        return int(written)
    raise FaultError("must be a whole number, such as 1000")


def _share(written: str) -> Value:
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)? ?%", written):
        return float(written.rstrip(" %")) / 100
    raise FaultError("must be a percentage, such as 5%")


def _duration(written: str) -> Value:
    if form := re.fullmatch(r"([0-9]{1,8}(?:\.[0-9]+)?) ?(ms|s|m|h|d)", written):
        return float(form[1]) * (timedelta(milliseconds=1) if form[2] == "ms" else UNITS[form[2]])
    raise FaultError("must be a duration, such as 500ms, 90s, 15m, 2h or 1d")


def _counted(key: str) -> Figure:
    return Figure(_count, lambda facts, _: int(facts[key]))


def _heartbeat(facts: Facts, now: datetime) -> timedelta:
    beat = facts["heartbeat_at"]
    return max(timedelta(0), now - from_text(beat)) if beat else FOREVER


def _latency(facts: Facts, _: datetime) -> timedelta | None:
    told = facts["windows"]["hour"]["latency_ms"]["p95"]
    return None if told is None else timedelta(milliseconds=told)


FIGURES: Mapping[str, Figure] = {
    "pending": _counted("pending"),
    "due": _counted("due"),
    "in_flight": _counted("in_flight"),
    "retrying": _counted("retrying"),
    "dead": _counted("dead"),
    "oldest": Figure(_duration, lambda facts, _: timedelta(seconds=facts["oldest_pending_seconds"] or 0)),
    "heartbeat": Figure(_duration, _heartbeat),
    "latency": Figure(_duration, _latency),
    "error_rate": Figure(_share, lambda facts, _: facts["windows"]["hour"]["error_rate"]),
    "lane": Figure(one_of(*LANES), lambda facts, _: facts["lane"]["state"], ("=", "!=")),
}
"""What there is. `oldest` is 0 with nothing pending; `latency` (its 95th percentile) and `error_rate` are
the last hour's."""
