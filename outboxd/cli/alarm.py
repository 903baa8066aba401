"""Alarms: `status` as a check, with the exit codes and the first line that Nagios and its like go by."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, NoReturn

import click

from outboxd import threshold
from outboxd.cli.figures import latency, percent
from outboxd.config.kinds import FaultError
from outboxd.errors import OutboxdError
from outboxd.threshold import FOREVER, Threshold, Value


class UnknownError(OutboxdError):
    """A check has no answer, for the reason of another error."""

    exit_code = 3


class Level(IntEnum):
    """How bad it is; the value is the exit code."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


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


def thresholds(_ctx: click.Context, _param: click.Parameter, written: Sequence[str]) -> list[Threshold]:
    """What was written on the command line, read."""
    try:
        return [threshold.parse(each) for each in written]
    except FaultError as fault:
        raise click.BadParameter(str(fault)) from None


class Check(click.Command):
    """A command that is a check once it is given thresholds: what keeps it from an answer is UNKNOWN then."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with _answering(any(each.startswith(("--fail-if", "--warn-if")) for each in args)):
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _answering(bool(ctx.params["fail_if"] or ctx.params["warn_if"])):
            return super().invoke(ctx)


@contextmanager
def _answering(is_check: bool) -> Iterator[None]:
    """The errors of a check end as UNKNOWN: the 2 of a wrong option would be taken for CRITICAL."""
    try:
        yield
    except click.UsageError as error:
        _raise(is_check, error, error.format_message(), "see: outboxd status --help")
    except OutboxdError as error:
        _raise(is_check, error, str(error), error.hint)


def _raise(is_check: bool, error: Exception, told: str, hint: str | None) -> NoReturn:
    if not is_check:
        raise error
    click.echo(f"{Level.UNKNOWN.name}: {told.splitlines()[0]}")
    raise UnknownError(told, hint=hint) from error


def _told(found: Value | None) -> str:
    match found:
        case timedelta():
            return "never" if found == FOREVER else latency(round(found.total_seconds() * 1000))
        case float():
            return percent(found)
        case _:
            return str(found)
