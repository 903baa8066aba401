"""The command line: parse, call one thing, print, and say by the exit code how it went.

Commands live in modules of their own that are loaded when they are called, so that `status` does not wait
for what `run` needs. Data goes to stdout, talk to stderr. Only here do errors become text.
"""

import sys
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click

from outboxd import __version__, streams
from outboxd.errors import EX_IO, EX_SOFTWARE, OutboxdError

COMMANDS = {
    "run": "drain",
    "drain": "drain",
    "status": "status",
    "flush": "flush",
    "metrics": "metrics",
    "events": "events",
    "show": "events",
    "retry": "dead",
    "dead": "dead",
    "drop": "dead",
    "explain": "explain",
    "pause": "pause",
    "resume": "pause",
    "enqueue": "enqueue",
    "backfill": "backfill",
    "notifications": "notifications",
    "check": "check",
    "attributes": "attributes",
    "verify": "verify",
    "migrate": "migrate",
    "prune": "prune",
    "erase": "erase",
    "backup": "backup",
    "restore": "backup",
    "demo": "demo",
    "sandbox": "sandbox",
}
"""Each command, and the module here that holds it."""

GONE = 128 + 13
"""The exit code of those who write to nobody, as shells have it."""

EPILOG = """\b
Exit codes: 0 all is well; 1 not all of it; 2 or 64 wrong usage; 65 bad events; 66 no such outbox,
file or event; 69 Brevo is out of reach; 70 a bug; 74 the database cannot be used; 75 try again later
(another process drains, or the lane is blocked or paused); 77 no right to do it; 78 wrong
configuration; 130 broken off; 141 whoever read the output is gone. `status` with thresholds has those
of Nagios."""


class Commands(click.Group):
    """A group whose commands are loaded when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = getattr(import_module(f"outboxd.cli.{COMMANDS[name]}"), name)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:  # a shell that completes asks nobody
            from difflib import get_close_matches

            for near in get_close_matches(args[0], COMMANDS, n=1):
                ctx.fail(f"No such command {args[0]!r}. Did you mean {near!r}?")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="outboxd")
def group() -> None:
    """The outbox between a shop and its Brevo contacts.

    A shop writes customer_created, customer_updated and customer_deleted into a table; `outboxd run`
    carries them to Brevo and loses none. `outboxd demo` shows it all, without an account.
    """


def main(arguments: list[str] | None = None) -> int:
    """The command `outboxd`; its exit code."""
    streams.fill()
    if isinstance(sys.stdout, TextIOWrapper):  # names of files need not be text, nor terminals speak UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        result: Any = group.main(args=arguments, prog_name="outboxd", standalone_mode=False)
    except OutboxdError as error:
        tell(error)
        return error.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        return error.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except SystemExit as stop:  # click says 1 where whoever read has gone
        return GONE if stop.code == 1 else int(stop.code or 0)
    except OSError as error:
        told = error.strerror or type(error).__name__
        tell(OutboxdError(told, hint="what was to be done may be done all the same; see: outboxd status"))
        return EX_IO
    except Exception as error:  # what it says of itself may hold what it was at
        from outboxd.trouble import origin

        what = f"{type(error).__name__} at {origin(error)}"
        told = f"a bug, or a table that another program has spoiled: {what}"
        tell(OutboxdError(told, hint="restore a backup, or report that line"))
        return EX_SOFTWARE
    finally:
        streams.end()
    return result if isinstance(result, int) else 0


def tell(error: OutboxdError) -> None:
    """An error as text: what, where, and how to mend it; where that cannot be told the exit code does."""
    with suppress(OSError):
        for told in str(error).splitlines() or [type(error).__name__]:
            click.echo(f"outboxd: {told}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
