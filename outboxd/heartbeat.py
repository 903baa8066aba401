"""The heartbeat: `status` learns that the drainer lives and how its lane is, the operator of changes."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from outboxd.clock import to_text
from outboxd.lane import Lane
from outboxd.logs import line, logger
from outboxd.notices import BLOCKED, RESUMED
from outboxd.outbox import Outbox
from outboxd.pause import Pause

EVERY = timedelta(seconds=50)
"""At the least; at the most the rest between two rounds longer."""


class Heartbeat:
    """Of one drainer, told to deliver nothing unless `enabled`. `limits` tells what is left of Brevo's."""

    def __init__(self, outbox: Outbox, limits: Callable[[], Any], *, enabled: bool) -> None:
        self._outbox = outbox
        self._limits = limits
        self._enabled = enabled
        self._beaten_at: datetime | None = None
        self._told: Lane | None = None
        self._told_pause: Pause | None = None

    def beat(self, lane: Lane, paused: Pause | None, now: datetime) -> None:
        """Write it down, if it is time or the lane has changed."""
        if paused != self._told_pause:
            # The reason stays out of the log: it is free text, and may name anybody.
            by = paused.by if paused else None
            logger.warning(line("lane", state="paused" if paused else lane.state, by=by))
            self._told_pause = paused
        is_late = self._beaten_at is None or not timedelta(0) <= now - self._beaten_at < EVERY
        if not is_late and lane == self._told:
            return
        told = {
            "state": lane.state if self._enabled else "disabled",
            "reason": lane.reason,
            "until": to_text(lane.until) if lane.until else None,
        }
        notice = None
        if self._told and lane.state != self._told.state:
            logger.warning(line("lane", state=lane.state, reason=lane.reason, until=told["until"]))
            notice = _notice(self._told, lane, told)
        limits = json.dumps(self._limits())
        state = {"heartbeat": to_text(now), "lane": json.dumps(told), "limits": limits}
        self._outbox.save_state(state, now, notice=notice)
        self._beaten_at, self._told = now, lane


def _notice(before: Lane, after: Lane, told: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """What the operator may want to know of a change; a wait that Brevo asked for mends itself."""
    if after.state == "blocked":
        return BLOCKED, {"reason": told["reason"], "until": told["until"]}
    return (RESUMED, {"reason": before.reason}) if before.state == "blocked" else None
