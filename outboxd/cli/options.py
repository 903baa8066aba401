"""Options that several commands share."""

from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import Any

import click

from outboxd import config

Command = Callable[..., Any]

EVENT_ID = click.IntRange(1, 2**63 - 1)


class NumberRange(click.FloatRange):
    """Click's own lets `nan` into every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def config_option(command: Command) -> Command:
    """`--config PATH`, handed over as the Path of the file to read."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        callback=lambda _ctx, _param, value: config.find(value),
        help="The configuration file. Default: $OUTBOXD_CONFIG, ./config.yaml, /etc/outboxd/config.yaml.",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`, handed over as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def shared_option(command: Command) -> Command:
    """`--shared`."""
    return click.option(
        "--shared",
        is_flag=True,
        help="Drain even if another process does; each of them spends Brevo's rate limit, and neither waits "
        "for the other where customers have one address.",
    )(command)
