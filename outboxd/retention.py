"""Retention: how long what is over is kept. Pure; who removes it is `prune`'s business."""

from datetime import datetime, timedelta
from typing import NamedTuple

from outboxd.clock import to_text


class Retention(NamedTuple):
    """How long what is over is kept; None: for ever. Attempts go with their event at the latest.

    `delivered` holds for all that is over: delivered events, dropped letters, notifications, imports.
    """

    delivered: timedelta | None = timedelta(days=30)
    attempts: timedelta | None = timedelta(days=30)
    counters: timedelta | None = timedelta(days=400)

    @property
    def parts_attempts(self) -> bool:
        """Whether attempts leave before their events do."""
        return self.attempts is not None and (self.delivered is None or self.attempts < self.delivered)

    @staticmethod
    def before(age: timedelta | None, now: datetime) -> str:
        """The time up to which what is over has reached `age`; before all times if it is kept for ever."""
        return "" if age is None else to_text(now - age)
