"""`status` as a check, on the side of click: thresholds are read, and what keeps it from an answer is one.

What is met is `alarm`'s business, which a status without thresholds does not load.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from outboxd.errors import OutboxdError

if TYPE_CHECKING:
    from outboxd.threshold import Threshold


class UnknownError(OutboxdError):
    """A check has no answer, for the reason of another error."""

    exit_code = 3


def thresholds(_ctx: click.Context, _param: click.Parameter, written: Sequence[str]) -> "list[Threshold]":
    """What was written on the command line, read."""
    if not written:
        return []
    from outboxd import threshold
    from outboxd.config.kinds import FaultError

    try:
        return [threshold.parse(each) for each in written]
    except FaultError as fault:
        raise click.BadParameter(str(fault)) from None


class Check(click.Command):
    """A command that is a check once it is given thresholds: what keeps it from an answer is UNKNOWN then."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        is_check = any(each.startswith(("--fail-if", "--warn-if")) for each in args)
        with _answering(is_check, as_json="--json" in args):
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        is_check = bool(ctx.params["fail_if"] or ctx.params["warn_if"])
        with _answering(is_check, as_json=ctx.params["as_json"]):
            return super().invoke(ctx)


@contextmanager
def _answering(is_check: bool, *, as_json: bool) -> Iterator[None]:
    """The errors of a check end as UNKNOWN: the 2 of a wrong option would be taken for CRITICAL."""
    try:
        yield
    except (click.UsageError, OutboxdError) as error:
        if not is_check:
            raise
        if isinstance(error, OutboxdError):
            told, hint = str(error), error.hint
        else:
            told, hint = error.format_message(), "see: outboxd status --help"
        level = {"level": "UNKNOWN", "met": []}
        click.echo(json.dumps({"check": level}) if as_json else f"UNKNOWN: {told.splitlines()[0]}")
        raise UnknownError(told, hint=hint) from error
