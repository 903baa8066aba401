"""The limiter: how many calls Brevo allows, over all threads of this process.

Sliding windows, because it is unknown where Brevo's own begin: no stretch of one period ever holds more
calls than its limit. Time is a monotonic number of seconds, given by the caller.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Lock

MARGIN = 1.02
"""Calls leave evenly and arrive unevenly: a period is kept this much longer than it is."""


@dataclass(slots=True)
class Window:
    """At most `limit` calls in any `period` seconds."""

    limit: int
    period: float
    _taken: deque[float] = field(default_factory=deque)

    def room(self, now: float) -> int:
        """How many calls may leave now."""
        while self._taken and self._taken[0] <= now - self.period * MARGIN:
            self._taken.popleft()
        return self.limit - len(self._taken)

    def free_at(self, now: float) -> float:
        """When the next call may leave."""
        return now if self.room(now) > 0 else self._taken[-self.limit] + self.period * MARGIN

    def take(self, now: float) -> None:
        """A call leaves."""
        self._taken.append(now)


class Limiter:
    """Several windows at once, and holds that Brevo itself asks for. Safe for many threads."""

    def __init__(self, windows: Iterable[tuple[int, float]]) -> None:
        self._windows = [Window(limit, period) for limit, period in windows]
        self._held_until = float("-inf")
        self._latest = float("-inf")
        self._lock = Lock()

    def room(self, now: float) -> int:
        """How many calls may leave now, as things stand."""
        with self._lock:
            now = self._seen(now)
            if now < self._held_until:
                return 0
            return max(0, min(window.room(now) for window in self._windows))

    def left(self, now: float) -> list[tuple[float, int, int]]:
        """Of each window its period in seconds, its limit, and how many calls of that are left."""
        with self._lock:
            now = self._seen(now)
            is_held = now < self._held_until
            return [
                (window.period, window.limit, 0 if is_held else max(0, window.room(now)))
                for window in self._windows
            ]

    def wait(self, now: float) -> float:
        """Seconds until a call may leave, 0 for at once."""
        with self._lock:
            return self._wait(self._seen(now))

    def take(self, now: float) -> float:
        """Take leave for one call: 0 if it is given, else the seconds after which to ask again."""
        with self._lock:
            now = self._seen(now)
            wait = self._wait(now)
            if wait <= 0:
                for window in self._windows:
                    window.take(now)
            return wait

    def hold(self, until: float) -> None:
        """Let no call leave before `until`."""
        with self._lock:
            self._held_until = max(self._held_until, until)

    def resize(self, limits: Iterable[int]) -> None:
        """Give the windows new limits; what was taken stays taken."""
        with self._lock:
            for window, limit in zip(self._windows, limits, strict=True):
                window.limit = limit

    def _seen(self, now: float) -> float:
        """The latest time that any thread has come with: one may have been held up since it looked."""
        self._latest = max(self._latest, now)
        return self._latest

    def _wait(self, now: float) -> float:
        free_at = max(self._held_until, *(window.free_at(now) for window in self._windows))
        return max(0.0, free_at - now)


def acquire(
    limiter: Limiter, patience: float, monotonic: Callable[[], float], sleep: Callable[[float], object]
) -> float:
    """Wait for leave to call, at most `patience` seconds; 0 when it is given, else how long it would take."""
    give_up = monotonic() + patience
    while (wait := limiter.take(monotonic())) > 0:
        if monotonic() + wait > give_up:
            return wait
        sleep(wait)
    return 0.0
