"""Labels: a set of words, of which events tell the whole or what came and went. Pure.

Each label is a register of its own, and so is the time of the newest whole list (under the name "", which
no label has): so the set comes out the same in whatever order the events arrive.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outboxd.event import Labels, Register, Stamp

HERE, GONE = "1", "0"

WHOLE = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a customer's labels, by label."""

    registers: Mapping[str, Register]

    def told(self, stamp: Stamp, labels: Labels) -> "Known":
        """With what an event says."""
        registers = dict(self.registers)
        news = dict.fromkeys(labels.here, HERE) | dict.fromkeys(labels.gone, GONE)
        if labels.is_whole:
            news[WHOLE] = HERE
        for label, state in news.items():
            if label not in registers or stamp >= registers[label].stamp:
                registers[label] = Register(stamp, state)
        return Known(registers)

    def since(self, stamp: Stamp) -> "Known":
        """Without what is older than `stamp`."""
        return Known({label: each for label, each in self.registers.items() if each.stamp > stamp})

    def value(self, *, is_list: bool) -> Any:
        """The labels as an attribute's value."""
        whole = self.registers.get(WHOLE)
        here = sorted(
            label
            for label, register in self.registers.items()
            if label != WHOLE and register.digest == HERE and (whole is None or register.stamp >= whole.stamp)
        )
        return here if is_list else ", ".join(here)
