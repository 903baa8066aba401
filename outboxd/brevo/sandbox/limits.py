"""How many calls an account may make: sliding windows, one set for contacts and one for everything else.

A call that is refused does not count.
"""

import math
from collections import deque
from collections.abc import Mapping
from datetime import datetime

from outboxd.brevo.sandbox.messages import NO_HEADERS, Answer

_TOO_MANY = Answer.error(429, "too_many_requests", "The expected rate limit is exceeded.")


class Window:
    """At most `limit` calls in any `period` seconds."""

    def __init__(self, limit: int, period: float) -> None:
        self.limit = limit
        self._period = period
        self._taken: deque[float] = deque()

    @classmethod
    def of_rate(cls, per_second: float) -> "Window":
        """A window for a rate, which may be less than one a second."""
        limit = max(1, math.floor(per_second))
        return cls(limit, limit / per_second)

    def remaining(self, now: float) -> int:
        """How many calls are still free now."""
        while self._taken and self._taken[0] <= now - self._period:
            self._taken.popleft()
        return self.limit - len(self._taken)

    def reset(self, now: float) -> int:
        """Whole seconds from now until one more call is free: at least 1, so that waiting them suffices."""
        return max(1, math.ceil(self._taken[0] + self._period - now)) if self._taken else 1

    def take(self, now: float) -> None:
        self._taken.append(now)


class Limits:
    """The account's windows. Without any, answers carry no rate-limit headers, as can happen with Brevo."""

    def __init__(
        self,
        *,
        requests_per_second: float | None = None,
        requests_per_hour: int | None = None,
        other_per_hour: int | None = None,
    ) -> None:
        self._contacts = [
            *([Window.of_rate(requests_per_second)] if requests_per_second else []),
            *([Window(requests_per_hour, 3600)] if requests_per_hour else []),
        ]
        self._other = [Window(other_per_hour, 3600)] if other_per_hour else []

    def take(self, path: str, at: datetime) -> tuple[Answer | None, Mapping[str, str]]:
        """Count a call: the refusal, if it must be refused, and the headers for whatever answer it gets."""
        windows = self._contacts if path.startswith("/v3/contacts") else self._other
        if not windows:
            return None, NO_HEADERS
        now = at.timestamp()
        tightest = min(windows, key=lambda window: window.remaining(now))
        refused = tightest.remaining(now) == 0
        if not refused:
            for window in windows:
                window.take(now)
        headers = {
            "x-sib-ratelimit-limit": str(tightest.limit),
            "x-sib-ratelimit-remaining": str(tightest.remaining(now)),
            "x-sib-ratelimit-reset": str(tightest.reset(now)),
        }
        return (_TOO_MANY if refused else None), headers
