"""`python -m tests.stepped run …`: outboxd, its wall clock ahead by the seconds in the file $CLOCK_AHEAD.

The clock of the host cannot be set for a test. Whoever asks Python for the time of day, the scheduler's own
library included, gets the stepped one; the monotonic clock, timeouts and files go on as ever. The daemon
looks at it every second.
"""

import datetime
import os
import sys
import time
from pathlib import Path
from typing import Any

AHEAD = Path(os.environ["CLOCK_AHEAD"])

from datetime import datetime as real_datetime  # noqa: E402
from time import time as real_time  # noqa: E402


def ahead() -> float:
    return float(AHEAD.read_text() or 0)


class _Kind(type):
    """The times that the real class makes are times, too."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, real_datetime)


class Stepped(real_datetime, metaclass=_Kind):
    """The class of times of the standard library, but for what time it is."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return real_datetime.now(tz) + datetime.timedelta(seconds=ahead())


if __name__ == "__main__":
    datetime.datetime = Stepped  # type: ignore[misc]
    time.time = lambda: real_time() + ahead()

    from outboxd import daemon, relay
    from outboxd.cli import main

    daemon.LOOK = relay.TICK = 1.0  # who waits for a test is not to wait for half a minute
    sys.exit(main())
