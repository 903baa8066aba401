"""Figures for people: durations, times, shares, and how a number went."""

from collections.abc import Sequence
from datetime import datetime

from outboxd import clock

BLOCKS = "▁▂▃▄▅▆▇█"

PLAIN = "_.:-=+*#"
"""Bars for a terminal that knows ASCII alone."""


def counted(number: int, noun: str) -> str:
    """`1 event`, `2,000 events`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def ago(seconds: float | None) -> str:
    """A duration in the two largest units that say something."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    for size, unit, smaller, size_below in (
        (86_400, "d", "h", 3_600),
        (3_600, "h", "min", 60),
        (60, "min", "s", 1),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // size_below} {smaller}"
    return f"{whole} s"


def when(text: str | None, now: datetime) -> str:
    """How far from now a time is, as the database writes it."""
    if text is None:
        return "-"
    seconds = (clock.from_text(text) - now).total_seconds()
    return f"in {ago(seconds)}" if seconds > 0 else f"{ago(-seconds)} ago"


def percent(rate: float | None) -> str:
    """A share from 0 to 1."""
    return "-" if rate is None else f"{rate:.1%}"


def latency(milliseconds: int | None) -> str:
    """Milliseconds, in larger units where they are many."""
    if milliseconds is None:
        return "-"
    return f"{milliseconds:,} ms" if milliseconds < 10_000 else ago(milliseconds / 1000)


def spark(counts: Sequence[int], *, levels: str = BLOCKS) -> str:
    """A line of bars, as high as the largest of them; nothing is the lowest level, and only nothing is."""
    most = max(counts, default=0)
    return "".join(levels[-(-count * (len(levels) - 1) // most) if count else 0] for count in counts)
