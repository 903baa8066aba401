"""Addresses: which are in play. Brevo knows contacts by address, so no two customers' deliveries may meet at
one: a swap, or a new account at the address of one that is just deleted, would mix them up. By their keys.
"""

from collections.abc import Callable, Collection, Iterable
from itertools import count
from threading import Lock
from time import monotonic
from typing import NamedTuple

LEAST_ASIDE, MOST_ASIDE = 0.01, 0.1
"""Seconds for which a claim steps aside whose address is in another one's hands, and the next one for so much
longer: half the time for which the last delivery had its addresses, within these bounds …
"""

LONG_ASIDE = 10.0
"""… and where the address is in an import."""

Turn = tuple[str, str]
"""A claim: its customer's key, and when it was made."""


class Held(NamedTuple):
    """What a claim has, and since when."""

    turn: Turn
    addresses: Collection[str]
    since: float


class Addresses:
    """Those of one drainer. Safe for many threads. `seconds` reads a clock that is never set.

    Claims are expected at their customers' own addresses from the moment their contacts are looked up, and go
    there in that order; whoever goes after another one has left knows no more what the contact is like.
    """

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._taken: dict[str, str] = {}
        self._held: dict[str, Held] = {}
        self._barred: dict[str, Turn] = {}
        self._expected: dict[str, dict[Turn, None]] = {}
        self._turns: dict[Turn, tuple[int, Collection[str]]] = {}
        self._left: dict[str, int] = {}
        self._lines: dict[str, float] = {}
        self._pace = LEAST_ASIDE
        self._numbers = count(1)
        self._lock = Lock()

    def expect(self, claims: Iterable[tuple[Turn, Collection[str]]]) -> None:
        """These claims, with their customers' own addresses, are the next."""
        with self._lock:
            for turn, addresses in claims:
                self._no_more(turn)
                self._turns[turn] = next(self._numbers), addresses
                for address in addresses:
                    self._expected.setdefault(address, {})[turn] = None

    def take(self, turn: Turn, addresses: Collection[str]) -> str | None:
        """Take all of them for a claim; or none, and the one that another has, had since, or is first at."""
        with self._lock:
            number, _ = self._turns.get(turn, (None, ()))
            self._no_more(turn)
            for address in addresses:
                if self._is_anothers(address, turn, number):
                    return address
            self._hold(turn, addresses)
            return None

    def _is_anothers(self, address: str, turn: Turn, number: int | None) -> bool:
        if self._taken.get(address, turn[0]) != turn[0]:
            return True
        if number is None:  # nobody expected them
            return False
        first = next(iter(self._expected.get(address, ())), None)
        is_early = first is not None and self._turns[first][0] < number
        is_late = self._left.get(address, 0) > number
        return is_early or is_late

    def _hold(self, turn: Turn, addresses: Collection[str]) -> None:
        """A customer's later claim answers for what an earlier one has, whose lease was lost."""
        customer_key, _ = turn
        before = self._held.get(customer_key)
        held = {*addresses, *before.addresses} if before else {*addresses}
        self._held[customer_key] = Held(turn, held, self._seconds())
        self._taken.update(dict.fromkeys(addresses, customer_key))

    def bar(self, turn: Turn, address: str) -> None:
        """Take one that will not be free soon."""
        with self._lock:
            self._hold(turn, [address])
            self._barred[address] = turn

    def unbar(self) -> None:
        """Let go of what is still barred: other drainers have ended those claims."""
        for turn in set(self._barred.values()):
            self.leave(turn)
        self._barred.clear()

    def line_up(self, address: str) -> float:
        """Seconds until whoever steps aside now is to look again: many do so one after the other."""
        with self._lock:
            if address in self._barred:
                return LONG_ASIDE
            now = self._seconds()
            while self._lines and next(iter(self._lines.values())) <= now:
                del self._lines[next(iter(self._lines))]
            at = max(self._lines.pop(address, now), now) + self._pace
            self._lines[address] = at
            return at - now

    def holders(self) -> frozenset[str]:
        """The customers who have any."""
        with self._lock:
            return frozenset(self._held)

    def leave(self, turn: Turn) -> None:
        """Let go of what the claim has, unless a later one of the customer answers for it by now."""
        with self._lock:
            self._no_more(turn)
            customer_key, _ = turn
            held = self._held.get(customer_key)
            if held is not None and held.turn == turn:
                del self._held[customer_key]
                if self._barred.keys().isdisjoint(held.addresses):
                    self._pace = min(max(LEAST_ASIDE, (self._seconds() - held.since) / 2), MOST_ASIDE)
                for address in held.addresses:
                    if self._taken.get(address) == customer_key:
                        del self._taken[address]
                        self._barred.pop(address, None)
                        self._left.pop(address, None)
                        self._left[address] = next(self._numbers)
            oldest, _ = next(iter(self._turns.values()), (None, ()))
            while self._left and (oldest is None or next(iter(self._left.values())) < oldest):
                del self._left[next(iter(self._left))]  # nobody is expected from before

    def _no_more(self, turn: Turn) -> None:
        _, addresses = self._turns.pop(turn, (0, ()))
        for address in addresses:
            expected = self._expected[address]
            del expected[turn]
            if not expected:
                del self._expected[address]
