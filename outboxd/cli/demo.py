"""`demo`: all of it on this host, without an account."""

import click


@click.command()
def demo() -> int:
    """Show how events become contacts, with a stand-in for Brevo and made-up customers.

    Needs no account and no configuration, and leaves nothing behind.

    \b
    Example:
      outboxd demo

    Exit codes: 0 all of it came out as it should; 1 it did not.
    """
    from outboxd import demo as story

    return 0 if story.run(click.echo) else 1
