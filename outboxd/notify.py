"""Notify: the operator's webhook is told what was noted, at least once, at its own pace.

Its own backoff, its own dead letters: a receiver that is down keeps nothing else waiting.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from outboxd.backoff import Backoff
from outboxd.clock import from_text
from outboxd.crew import Crew
from outboxd.logs import line, logger
from outboxd.notices import Notification
from outboxd.outbox.notifications import Notices
from outboxd.webhook import Webhook

BACKOFF = Backoff(first=timedelta(seconds=5), cap=timedelta(hours=6), max_attempts=21, jitter=0.1)
"""A receiver may be down for two days."""

LEASE = timedelta(minutes=1)


class Notifying:
    """Delivers the notifications of one database, one after the other; `is_busy` while one is on its way."""

    def __init__(
        self,
        notices: Notices,
        webhook: Webhook | None,
        crew: Crew,
        *,
        clock: Callable[[], datetime],
        chance: Callable[[], float],
    ) -> None:
        self._notices = notices
        self._webhook = webhook
        self._crew = crew
        self._clock = clock
        self._chance = chance
        self.is_busy = False
        self._is_awaited = False
        self._has_failed = False

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Somebody waits for the end of it: once the receiver has failed, nothing more is begun for now."""
        self._is_awaited, self._has_failed = True, False
        try:
            yield
        finally:
            self._is_awaited = False

    def step(self, now: datetime) -> float:
        """Begin what is due; seconds until there is more."""
        if self._webhook is None or self.is_busy or (self._is_awaited and self._has_failed):
            return float("inf")
        due = self._notices.next_due()
        if due is None:
            return float("inf")
        if (wait := (from_text(due) - now).total_seconds()) > 0:
            return wait
        notification = self._notices.claim(now, LEASE)
        if notification is not None:
            self.is_busy = True
            job = partial(self._webhook.post, notification, now)
            self._crew.submit(job, partial(self._posted, notification), is_beside=True)
        return float("inf")

    def _posted(self, notification: Notification, error: Any) -> None:
        self.is_busy = False
        self._has_failed = error is not None
        now = self._clock()
        told = {"id": notification.id, "type": notification.type, "attempt": notification.attempts}
        if error is None:
            self._notices.finish(notification, None, now)
            logger.info(line("notified", **told))
            return
        reason = error if isinstance(error, str) else "internal error"
        logger.warning(line("notification", **told, reason=reason))
        if notification.attempts >= BACKOFF.max_attempts:
            self._notices.finish(notification, reason, now)
        else:
            delay = BACKOFF.delay(notification.attempts, self._chance())
            self._notices.put_back(notification, reason, now + delay)
