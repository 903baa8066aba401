"""Delivery: errands are run through a courier, one alone or many side by side. It knows no database.

Runs in threads of the relay's pool, and always ends in Results, whatever happens.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import Protocol

from outboxd.addresses import Addresses, Turn
from outboxd.clock import to_text
from outboxd.errand import Errand, Plan, Told, own_addresses
from outboxd.errors import DatabaseError, NoOutboxError, RightsError
from outboxd.event import Attribute, Claim, Others, Outcome, Remove, Result, Upsert, Verdict
from outboxd.logs import line, logger
from outboxd.trouble import AGAIN, origin


class Courier(Protocol):
    """Whoever carries a change to Brevo, unless it `is_halted`: then no call leaves any more."""

    is_halted: bool

    @property
    def longest(self) -> timedelta:
        """How long one change can take at the most."""

    def attributes(self, wanted: Collection[str]) -> Mapping[str, Attribute] | Outcome:
        """What the account can hold, by name, as fresh as `wanted` needs it, or why that is unknown."""

    def deliver(self, change: Upsert | Remove) -> Outcome:
        """Carry it out; never raises for what Brevo or the network does."""

    def room(self) -> int:
        """How many calls may leave now."""

    def wait(self) -> float:
        """Seconds until a call may leave."""

    def left(self) -> list[tuple[float, int, int]]:
        """Of each rate limit its period in seconds, the calls it allows, and how many of them are left."""


FRESH = 5 * AGAIN
"""Seconds for which a fault of the host is told, should no delivery ask again."""

Fault = DatabaseError | NoOutboxError | RightsError


@dataclass(frozen=True, slots=True)
class Closed:
    """Addresses, by their keys, of which nothing may be told before `until`, in seconds of a clock that is
    never set: what a process that is no more told Brevo of them may arrive until then.
    """

    addresses: frozenset[str] = frozenset()
    until: float = 0.0

    @property
    def seconds(self) -> float:
        """Until none of them is closed any more."""
        return max(0.0, self.until - monotonic()) if self.addresses else 0.0


class Delivery:
    """Runs errands through one courier. Safe for many threads, as `others` must be: see `Errand`."""

    def __init__(
        self,
        courier: Courier,
        plan: Plan,
        others: Callable[[str, str], Others],
        *,
        clock: Callable[[], datetime],
        closed: Closed = Closed(),
    ) -> None:
        self._courier = courier
        self._others = others
        self._plan = plan
        self._clock = clock
        self._addresses = Addresses()
        self._closed = closed
        self._fault: tuple[float, Fault] | None = None
        self._aside_until = datetime.min.replace(tzinfo=UTC)
        self._wanted = frozenset(attribute for name, attribute in plan.rules.items() if name != "email")

    def carry(self, claim: Claim) -> Result:
        """Run one errand to its end."""
        started = self.begin(claim)
        return started if isinstance(started, Result) else self.finish(started)

    def begin(self, claim: Claim) -> Errand | Result:
        """An errand that has a change to be told, or the result of one that has none.

        A bug of ours is a failed attempt, not the end of the daemon.
        """
        try:
            catalogue = self._courier.attributes(self._wanted) if self._wanted else {}
            if isinstance(catalogue, Outcome):  # no event's fault, and every event's trouble
                return _all(claim, replace(catalogue, verdict=Verdict.BLOCKED))
            longest = self._courier.longest
            errand = Errand(claim, self._plan, catalogue, self._asked, clock=self._time, longest=longest)
        except Exception as error:
            return _all(claim, told_bug(claim, error))
        if wait := self._wait(errand):
            self._aside_until = max(self._aside_until, at := self._clock() + timedelta(seconds=wait))
            errand.end(Outcome(Verdict.BLOCKED, retry_at=at))
            return errand.result()
        self._step(errand, errand.begin)
        return errand.result() if errand.change is None else errand

    def _asked(self, customer_key: str, email: str) -> Others:
        told = self._others(customer_key, email)
        self._fault = None
        return told

    def _wait(self, errand: Errand) -> float:
        """Seconds for which it is to step aside; none, and then it has its addresses."""
        seconds = self._closed.seconds
        if seconds and not self._closed.addresses.isdisjoint(errand.addresses):
            return seconds
        contested = self._addresses.take(_turn(errand.claim), errand.addresses)
        return 0.0 if contested is None else self._addresses.line_up(contested)

    def finish(self, errand: Errand) -> Result:
        """Tell Brevo whatever the errand has left, one change at a time, as far as its lease reaches."""
        while errand.change is not None and not errand.is_late:
            if self._courier.is_halted:
                errand.end(Outcome(Verdict.BLOCKED))
            else:
                self._step(errand, partial(self._deliver, errand, errand.change))
        return errand.result()

    def _deliver(self, errand: Errand, change: Upsert | Remove) -> None:
        errand.tell(self._courier.deliver(change))

    def remove(self, address: str) -> Outcome:
        """Take out whatever contact Brevo has there. Whether it is anybody's must be asked before."""
        return self._courier.deliver(Remove(address, is_soft=False))

    @property
    def fault(self) -> Fault | None:
        """What kept the host lately from telling a delivery what it must know."""
        met_at, fault = self._fault or (0.0, None)
        return fault if monotonic() - met_at < FRESH else None

    def check(self) -> None:
        """Raise the fault, if there is one."""
        if (fault := self.fault) is not None:
            raise fault

    def back_by(self, most: datetime) -> datetime:
        """By when whoever stepped aside has come back, or `most`; now, if nobody is aside."""
        return max(self._clock(), min(self._aside_until, most))

    def halt(self) -> None:
        """Let no other call leave: there is nowhere left to record it, or others may drain by now."""
        self._courier.is_halted = True

    def tell(self, errand: Errand, told: Told) -> None:
        """What came of the errand's change."""
        self._step(errand, lambda: errand.tell(told))

    def expect(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        """These claims, just made, are the next. Whichever has not begun when a delivery to the same contact
        is recorded will step aside, for it knows no more what the contact is like.
        """
        self._addresses.expect((_turn(each), own_addresses(each.contact)) for each in claims)
        return claims

    def under_way(self) -> frozenset[str]:
        """The customers whose deliveries have begun and are not recorded, by their keys."""
        return self._addresses.holders()

    def bar(self, rows: Iterable[tuple[str, str, datetime]]) -> None:
        """These are in an import, and will not be free soon: address, customer, and when that was claimed."""
        for address, customer_key, claimed_at in rows:
            self._addresses.bar((customer_key, to_text(claimed_at)), address)

    def unbar(self) -> None:
        """No import is under way any more."""
        self._addresses.unbar()

    def end(self, result: Result) -> None:
        """`result` is recorded: others may have its addresses."""
        self.let_go(result.claim.contact.customer_key, result.claim.claimed_at)

    def let_go(self, customer_key: str, claimed_at: datetime) -> None:
        """The customer's claim of then has come to an end: others may have its addresses."""
        self._addresses.leave((customer_key, to_text(claimed_at)))

    def _time(self) -> datetime:
        """When it is, for those who look whether they are late; once all is halted everybody is."""
        return datetime.max.replace(tzinfo=UTC) if self._courier.is_halted else self._clock()

    def _step(self, errand: Errand, step: Callable[[], None]) -> None:
        try:
            step()
        except (DatabaseError, NoOutboxError, RightsError) as error:  # the host fails, not the event
            self._fault = monotonic(), error
            again = self._clock() + timedelta(seconds=AGAIN)
            errand.end(Outcome(Verdict.BLOCKED, detail=str(error), retry_at=again))
        except Exception as error:
            errand.end(told_bug(errand.claim, error))


def _turn(claim: Claim) -> Turn:
    return claim.contact.customer_key, to_text(claim.claimed_at)


def _all(claim: Claim, outcome: Outcome) -> Result:
    return Result(claim, dict.fromkeys((event.id for event in claim.events), outcome), claim.contact)


def told_bug(claim: Claim, error: Exception) -> Outcome:
    """A bug of ours, told to the log: a failed attempt, not the end of the daemon."""
    logger.error(line("bug", event=claim.events[0].id, error=type(error).__name__, at=origin(error)))
    return Outcome(Verdict.RETRY, detail=f"internal error: {type(error).__name__}")
