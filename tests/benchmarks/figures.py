"""A figure: what was measured, against what, and how good it has to be."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from statistics import median
from time import perf_counter
from typing import Any

RATIO = "times"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table. `floor` says what `value` is taken against; `most` and `least` are its bounds.

    `value` None: it could not be taken, and `note` says why.
    """

    name: str
    value: float | None
    unit: str = RATIO
    floor: str = ""
    least: float | None = None
    most: float | None = None
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether it is within its bounds; None if it has none."""
        if self.value is None or (self.least is None and self.most is None):
            return None
        return (self.least is None or self.value >= self.least) and (
            self.most is None or self.value <= self.most
        )

    @property
    def bound(self) -> str:
        """The bounds in words."""
        bounds = [f"at least {self.least:g}"] if self.least is not None else []
        bounds += [f"at most {self.most:g}"] if self.most is not None else []
        return ", ".join(bounds)

    @property
    def shown(self) -> str:
        """The value with its unit, to three digits."""
        if self.value is None:
            return ""
        size = abs(self.value)
        digits = 0 if size >= 100 or size == round(size) else 1 if size >= 10 else 2 if size >= 1 else 3
        return f"{self.value:,.{digits}f} {self.unit}"

    @property
    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "is_met": self.is_met}


def timed(action: Callable[[], object]) -> float:
    """Seconds that `action` takes."""
    started = perf_counter()
    action()
    return perf_counter() - started


def in_turns(actions: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """The seconds of each action, taken in turns, after one turn that does not count."""
    seconds: list[list[float]] = [[] for _ in actions]
    for number in range(rounds + 1):
        for action, taken in zip(actions, seconds, strict=True):
            took = timed(action)
            if number:
                taken.append(took)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios of those that were taken together."""
    return median(one / other for one, other in zip(above, below, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]
