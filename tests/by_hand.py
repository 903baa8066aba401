"""The relay's work step by step: claims, and what came of them, wait as long as a test likes."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Self

from outboxd import app
from outboxd.admit import admission
from outboxd.delivery import Delivery
from outboxd.event import Claim, Result
from outboxd.outbox import Outbox
from tests.shop import KEY, Shop

LEASE = timedelta(minutes=5)


class ByHand:
    """One drainer of a shop's outbox, through one courier."""

    def __init__(self, shop: Shop, outbox: Outbox) -> None:
        self._shop = shop
        self._outbox = outbox
        self._plan = app.plan(shop.settings)
        self._delivery = Delivery(app.brevo(shop.settings, KEY), self._plan, outbox.others, clock=shop.clock)

    @classmethod
    @contextmanager
    def of(cls, shop: Shop) -> Iterator[Self]:
        with closing(app.outbox(shop.settings)) as outbox:
            yield cls(shop, outbox)

    def claim(self, limit: int = 10) -> list[Claim]:
        """Admit what is new, and claim what is due."""
        while fresh := self._outbox.fresh():
            self._outbox.admit([admission(each, self._plan.reading) for each in fresh], self._shop.clock())
        claims = self._outbox.claim(self._shop.clock(), limit=limit, lease=LEASE)
        return list(self._delivery.expect(claims))

    @property
    def is_due(self) -> bool:
        """Whether anything is pending, or in flight."""
        return self._outbox.next_due() is not None

    def carry(self, claim: Claim) -> Result:
        return self._delivery.carry(claim)

    def untried(self, claim: Claim) -> Result:
        """What comes of a claim while nothing is to go any more."""
        return Result(claim, {}, claim.contact)

    def record(self, result: Result) -> None:
        self._outbox.record([result], self._shop.clock())
        self._delivery.end(result)

    def deliver(self, claim: Claim) -> set[str]:
        """Carry and record it; the verdicts."""
        result = self.carry(claim)
        self.record(result)
        return {outcome.verdict for outcome in result.outcomes.values()}
