"""Retention: how long what is over is kept. Pure; who removes it is `prune`'s business."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is over is kept; None: for ever. Attempts go with their event at the latest."""

    delivered: timedelta | None = timedelta(days=30)
    attempts: timedelta | None = timedelta(days=30)
    counters: timedelta | None = timedelta(days=400)

    @property
    def parts_attempts(self) -> bool:
        """Whether attempts leave before their events do."""
        return self.attempts is not None and (self.delivered is None or self.attempts < self.delivered)
