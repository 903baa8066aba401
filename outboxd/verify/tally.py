"""The tally: how many customers differ in what, and what became of their repair, with some as examples.

Customers are told by their keys alone.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from outboxd.verify.comparison import WRONG, Difference, Kind
from outboxd.verify.repair import Repaired

EXAMPLES = 5
"""Customers of each kind that are named."""

ENDS = ("wholly", "in_part", "overtaken", "behind", "beyond")
"""What can become of a repair: see `Repaired`."""


class Tally:
    """Counts what it is told, in as little memory for a million customers as for one."""

    def __init__(self) -> None:
        self.by_attribute: Counter[str] = Counter()
        self.wrong = 0
        self.left = 0
        self._by_kind: Counter[Kind] = Counter()
        self._repaired: Counter[str] = Counter()
        self._examples = defaultdict[str, list[str]](list)

    def add(self, differences: Iterable[Difference]) -> None:
        """These were found."""
        for difference in differences:
            is_wrong = not difference.kinds.isdisjoint(WRONG)
            self.wrong += is_wrong
            self.left += is_wrong
            self.by_attribute.update(difference.attributes.keys())
            self._by_kind.update(difference.kinds)
            for told in (*difference.kinds, *map(attribute_of, difference.attributes)):
                self._exemplify(told, [difference.customer.customer_key])

    def add_repaired(self, repaired: Repaired) -> None:
        """This was repaired, or could not be."""
        for name in ENDS:
            keys = getattr(repaired, name)
            self._repaired[name] += len(keys)
            self._exemplify(name, keys)
        self._repaired["events"] += repaired.events
        self.left -= len(repaired.wholly)

    def count(self, name: str) -> int:
        """How many there are of a kind, or of an end of repair."""
        return self._by_kind[Kind(name)] if name in set(Kind) else self._repaired[name]

    def examples(self, name: str) -> list[str]:
        """The first customers of a kind, an attribute (see `attribute_of`) or an end of repair."""
        return self._examples[name]

    def differences(self) -> dict[str, Any]:
        """`{kind: {"count", "customers"}}`; of attributes also `by_attribute`: `{name: count}`."""
        told = {kind.value: self._named(kind) for kind in Kind}
        told[Kind.ATTRIBUTES.value]["by_attribute"] = dict(self.by_attribute.most_common())
        return told

    def repair(self) -> dict[str, Any]:
        """`{"events": n}` and `{"count", "customers"}` of each of its ENDS."""
        ends = {name: self._named(name) for name in ENDS}
        return {"events": self._repaired["events"], **ends}

    def _named(self, name: str) -> dict[str, Any]:
        return {"count": self.count(name), "customers": self.examples(name)}

    def _exemplify(self, name: str, keys: Iterable[str]) -> None:
        named = self._examples[name]
        named.extend(list(keys)[: EXAMPLES - len(named)])


def attribute_of(name: str) -> str:
    """What the examples of an attribute are kept under."""
    return f"attribute {name}"
