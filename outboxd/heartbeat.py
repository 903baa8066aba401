"""Heartbeat: what `status` is told of the process that drains, and the log of how its lane changes."""

import json
from datetime import datetime, timedelta

from outboxd.clock import to_text
from outboxd.lane import Lane
from outboxd.logs import line, logger
from outboxd.outbox import Outbox
from outboxd.pause import Pause

EVERY = timedelta(seconds=10)


class Heartbeat:
    """Beats of one relay. `enabled` is the configuration's word."""

    def __init__(self, outbox: Outbox, *, enabled: bool) -> None:
        self._outbox = outbox
        self._enabled = enabled
        self._beaten_at: datetime | None = None
        self._told_lane: Lane | None = None
        self._told_pause: Pause | None = None

    def beat(self, lane: Lane, paused: Pause | None, now: datetime) -> None:
        """Tell that the process lives, when that is due or `lane` is another one."""
        if paused != self._told_pause:
            # The reason stays out of the log: it is free text, and may name anybody.
            by = paused.by if paused else None
            logger.warning(line("lane", state="paused" if paused else lane.state, by=by))
            self._told_pause = paused
        is_late = self._beaten_at is None or not timedelta(0) <= now - self._beaten_at < EVERY
        if not is_late and lane == self._told_lane:
            return
        told = {
            "state": lane.state if self._enabled else "disabled",
            "reason": lane.reason,
            "until": to_text(lane.until) if lane.until else None,
        }
        if self._told_lane and lane.state != self._told_lane.state:
            logger.warning(line("lane", state=lane.state, reason=lane.reason, until=told["until"]))
        self._outbox.save_state({"heartbeat": to_text(now), "lane": json.dumps(told)}, now)
        self._beaten_at, self._told_lane = now, lane
