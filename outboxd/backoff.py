"""When to try again: exponential, clamped, with jitter. Pure."""

from datetime import timedelta
from typing import NamedTuple


class Backoff(NamedTuple):
    """`first` doubles with every attempt up to `cap`; `jitter` is the share that chance may take off.

    `max_attempts` is how many attempts an event gets before it is a dead letter.
    """

    max_attempts: int = 20
    first: timedelta = timedelta(seconds=5)
    cap: timedelta = timedelta(hours=1)
    jitter: float = 0.2

    def delay(self, attempt: int, chance: float = 0.0) -> timedelta:
        """How long to wait after the attempt with this number (the first is 1); `chance` is from 0 to 1."""
        doublings = min(max(attempt - 1, 0), 62)  # 2**62 seconds is past any cap and below overflow
        longest = min(self.first.total_seconds() * 2.0**doublings, self.cap.total_seconds())
        return timedelta(seconds=longest * (1 - self.jitter * chance))
