"""The question before what cannot be taken back."""

import click

from outboxd.errors import OutboxdError


class DeclinedError(OutboxdError):
    """The answer was no, or nobody was there to give one."""


def ask(question: str) -> None:
    """Put `question` to whoever sits there, on stderr. Raises DeclinedError unless they say yes."""
    try:
        if click.confirm(question, err=True):
            return
    except click.Abort as stop:
        click.echo(err=True)  # the line of the question has no end
        if isinstance(stop.__context__, EOFError):
            raise DeclinedError("nothing was done: nobody answered", hint="say --yes") from None
        raise
    raise DeclinedError("nothing was done")
