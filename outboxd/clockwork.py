"""Clockwork: what was put off until a time of day goes when it would have gone, though the clock is set.

Set back, everything that waits is brought back by as much. Set forward, all goes on early, which costs
nothing, but for what is in flight: its leases are carried along, so that nobody is claimed twice.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from outboxd.clock import TOLERANCE, Steps, from_text
from outboxd.delivery import Delivery
from outboxd.importing import Importing
from outboxd.lane import Lane
from outboxd.logs import line, logger
from outboxd.outbox import Outbox


class Clockwork:
    """Of one relay, asked in each of its rounds."""

    def __init__(
        self, outbox: Outbox, delivery: Delivery, importing: Importing, clock: Callable[[], datetime]
    ) -> None:
        self._delivery = delivery
        self._outbox = outbox
        self._importing = importing
        self._steps = Steps(clock)
        self._is_begun = False
        self._left = timedelta(0)

    def follow(self, lane: Lane) -> tuple[datetime, Lane]:
        """The time. If the clock was set what waits is put right; the lane as it is then."""
        now, by = self._steps.look()
        if not self._is_begun:
            by = min(by, self._set_back_before(now))
        if by:
            logger.warning(line("clock stepped", seconds=round(by.total_seconds())))
        by += self._left
        if by:
            self._left = by  # until it is done, should the disk be full
            self._outbox.shift(now, by, self._delivery.under_way())
            self._left = timedelta(0)
        self._is_begun = True
        if by >= timedelta(0):
            return now, lane
        self._importing.shift(by)
        return now, lane.shifted(by)

    def _set_back_before(self, now: datetime) -> timedelta:
        """By how much, at the least, since the last drainer, whose last sign of life is yet to come."""
        heartbeat = self._outbox.state("heartbeat")
        by = now - from_text(heartbeat) if heartbeat else timedelta(0)
        return by if by < -TOLERANCE else timedelta(0)
