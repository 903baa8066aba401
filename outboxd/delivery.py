"""Delivery: errands are run through a courier, one alone or many side by side. It knows no database.

Runs in threads of the relay's pool, and always ends in Results, whatever happens.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from threading import Lock
from typing import Protocol

from outboxd.errand import Errand, Plan, Told, own_addresses
from outboxd.event import Attribute, Claim, Others, Outcome, Remove, Result, Upsert, Verdict
from outboxd.logs import line, logger
from outboxd.trouble import origin


class Courier(Protocol):
    """Whoever carries a change to Brevo."""

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


ASIDE = timedelta(milliseconds=100)
"""How long a claim steps aside whose address is in another one's hands …"""

LONG_ASIDE = timedelta(seconds=10)
"""… and whose address is in an import."""


class Delivery:
    """Runs errands through one courier. Safe for many threads, as `others` must be: see `Errand`."""

    def __init__(
        self,
        courier: Courier,
        plan: Plan,
        others: Callable[[str, str], Others],
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._courier = courier
        self._others = others
        self._plan = plan
        self._clock = clock
        self._addresses = Addresses()
        self._is_halted = False
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
            errand = Errand(claim, self._plan, catalogue, self._others, clock=self._time, longest=longest)
        except Exception as error:
            return _all(claim, told_bug(claim, error))
        if not self._addresses.take(claim.contact.customer_key, errand.addresses):
            is_barred = self._addresses.are_barred(errand.addresses)
            aside = LONG_ASIDE if is_barred else ASIDE
            errand.end(Outcome(Verdict.BLOCKED, retry_at=self._clock() + aside))
            return errand.result()
        self._step(errand, errand.begin)
        return errand.result() if errand.change is None else errand

    def finish(self, errand: Errand) -> Result:
        """Tell Brevo whatever the errand has left, one change at a time, as far as its lease reaches."""
        while errand.change is not None and not errand.is_late:
            if self._is_halted:
                errand.end(Outcome(Verdict.BLOCKED))
            else:
                self._step(errand, partial(self._deliver, errand, errand.change))
        return errand.result()

    def _deliver(self, errand: Errand, change: Upsert | Remove) -> None:
        errand.tell(self._courier.deliver(change))

    def halt(self) -> None:
        """Let no errand begin another call: there is nowhere left to record it."""
        self._is_halted = True

    def tell(self, errand: Errand, told: Told) -> None:
        """What came of the errand's change."""
        self._step(errand, lambda: errand.tell(told))

    def expect(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        """These claims, just made, are the next. Whichever has not begun when a delivery to the same contact
        is recorded will step aside, for it knows no more what the contact is like.
        """
        self._addresses.expect((each.contact.customer_key, own_addresses(each.contact)) for each in claims)
        return claims

    def under_way(self) -> frozenset[str]:
        """The customers whose deliveries have begun and are not recorded, by their keys."""
        return self._addresses.holders()

    def bar(self, addresses: Iterable[tuple[str, str]]) -> None:
        """These (address key, customer key) are in an import: they will not be free soon."""
        for address, customer_key in addresses:
            self._addresses.bar(customer_key, address)

    def end(self, result: Result) -> None:
        """`result` is recorded: others may have its addresses."""
        self._addresses.leave(result.claim.contact.customer_key, result.addresses)

    def _time(self) -> datetime:
        """When it is, for those who look whether they are late; once all is halted everybody is."""
        return datetime.max.replace(tzinfo=UTC) if self._is_halted else self._clock()

    def _step(self, errand: Errand, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            errand.end(told_bug(errand.claim, error))


class Addresses:
    """Which addresses are in play. Brevo knows contacts by address, so no two customers' deliveries may meet
    at one: a swap, or a new account at the address of one that is just deleted, would mix them up.

    Customers are expected at their own addresses from the moment their contacts are looked up, and go there
    in that order; whoever goes after another one has left knows no more what the contact is like.
    """

    def __init__(self) -> None:
        self._taken: dict[str, str] = {}
        self._barred: set[str] = set()
        self._expected: dict[str, dict[str, None]] = {}
        self._turns: dict[str, tuple[int, Collection[str]]] = {}
        self._left: dict[str, int] = {}
        self._numbers = count(1)
        self._lock = Lock()

    def expect(self, customers: Iterable[tuple[str, Collection[str]]]) -> None:
        """These customers, with these addresses of their own, are the next."""
        with self._lock:
            for customer_key, addresses in customers:
                self._no_more(customer_key)
                self._turns[customer_key] = next(self._numbers), addresses
                for address in addresses:
                    self._expected.setdefault(address, {})[customer_key] = None

    def take(self, customer_key: str, addresses: Collection[str]) -> bool:
        """Take all of them for a customer; or none, and False: another has one, had it since, or is first."""
        with self._lock:
            turn, _ = self._turns.get(customer_key, (None, ()))
            self._no_more(customer_key)
            if any(self._is_anothers(address, customer_key, turn) for address in addresses):
                return False
            self._taken.update(dict.fromkeys(addresses, customer_key))
            return True

    def _is_anothers(self, address: str, customer_key: str, turn: int | None) -> bool:
        if self._taken.get(address, customer_key) != customer_key:
            return True
        if turn is None:  # nobody expected them
            return False
        first = next(iter(self._expected.get(address, ())), None)
        is_early = first is not None and self._turns[first][0] < turn
        is_late = self._left.get(address, 0) > turn
        return is_early or is_late

    def bar(self, customer_key: str, address: str) -> None:
        """Take one that will not be free soon."""
        with self._lock:
            self._taken[address] = customer_key
            self._barred.add(address)

    def are_barred(self, addresses: Collection[str]) -> bool:
        """Whether one of them will not be free soon."""
        with self._lock:
            return not self._barred.isdisjoint(addresses)

    def holders(self) -> frozenset[str]:
        """The customers who have any."""
        with self._lock:
            return frozenset(self._taken.values())

    def leave(self, customer_key: str, addresses: Collection[str]) -> None:
        """Let go of those of them that are the customer's."""
        with self._lock:
            self._no_more(customer_key)
            for address in addresses:
                if self._taken.get(address) == customer_key:
                    del self._taken[address]
                    self._barred.discard(address)
                    self._left.pop(address, None)
                    self._left[address] = next(self._numbers)
            oldest, _ = next(iter(self._turns.values()), (None, ()))
            while self._left and (oldest is None or next(iter(self._left.values())) < oldest):
                del self._left[next(iter(self._left))]  # nobody is expected from before

    def _no_more(self, customer_key: str) -> None:
        _, addresses = self._turns.pop(customer_key, (0, ()))
        for address in addresses:
            expected = self._expected[address]
            del expected[customer_key]
            if not expected:
                del self._expected[address]


def _all(claim: Claim, outcome: Outcome) -> Result:
    return Result(claim, dict.fromkeys((event.id for event in claim.events), outcome), claim.contact)


def told_bug(claim: Claim, error: Exception) -> Outcome:
    """A bug of ours, told to the log: a failed attempt, not the end of the daemon."""
    logger.error(line("bug", event=claim.events[0].id, error=type(error).__name__, at=origin(error)))
    return Outcome(Verdict.RETRY, detail=f"internal error: {type(error).__name__}")
