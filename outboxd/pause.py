"""Pause: the operator's word that nothing is to be sent for now. Pure.

It is kept in the outbox's `state`, so it holds for every drainer and over restarts. Events are taken in and
admitted meanwhile, what is in flight ends, and imports that Brevo has are looked after.
"""

import json
from datetime import datetime
from typing import NamedTuple

from outboxd.clock import from_text, to_text

KEY = "pause"
"""Under which the last word on it is kept."""


class Pause(NamedTuple):
    """The last word: whether deliveries are paused, since when, by which user of this host, and why."""

    is_on: bool
    since: datetime
    by: str
    reason: str | None = None

    def as_state(self) -> str:
        """What is kept of it: a JSON object, which `status --json` shows as it is."""
        told = {"is_on": self.is_on, "since": to_text(self.since), "by": self.by, "reason": self.reason}
        return json.dumps(told)


def standing(state: str | None) -> Pause | None:
    """The pause that is in force, by what is kept under KEY; None if deliveries may go."""
    if state is None:
        return None
    told = json.loads(state)
    pause = Pause(told["is_on"], from_text(told["since"]), told["by"], told["reason"])
    return pause if pause.is_on else None
