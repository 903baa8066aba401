"""The three streams that a process is started with: some starters leave them closed.

What is opened next would take the number of one, be it a lock or the outbox itself, and be written to or read
in its place.
"""

import os
import sys
from contextlib import suppress


def fill() -> None:
    """Open nothing (/dev/null) wherever one of the three is missing.

    Input is empty then. `sys.stdout` stays None, so that who must tell something knows that it cannot.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - until the end
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until the end


def tell(text: str) -> None:
    """Say `text` on standard error; where that cannot be done the exit code must do."""
    with suppress(OSError):
        print(text, file=sys.stderr)  # noqa: T201 - what a command is for


def end() -> None:
    """Write out what is left to say; where that cannot be done, nothing is left for Python to fail at."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
