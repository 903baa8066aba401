"""Causes: dead letters grouped by what they died of, so that a thousand of one fault are one thing. Pure."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

# Whatever differs between two events of one cause holds a digit (ids, times, counts, hashes) or is a
# customer's key. A status of HTTP is part of the cause.
_KEY = re.compile(r"\b(?:shopify|woocommerce|magento|custom):[^\s;,()]*[^\s;,():.]")
_WITH_DIGIT = re.compile(r"(?<!HTTP )\b[\w.:@#+-]*\d(?:[\w.:@#+-]*\w)?")

Letter = tuple[int, str | None, str]
"""A dead event: its id, its reason, and when it died."""


@dataclass(frozen=True, slots=True)
class Group:
    """The dead letters of one cause. `id` is the same wherever and whenever that cause is met; `event_ids`
    are in the order of the outbox, and the last one is shown as the example.
    """

    id: str
    cause: str
    event_ids: tuple[int, ...]
    oldest_at: str
    newest_at: str


def cause(reason: str | None) -> str:
    """A reason without what is one event's own."""
    return _WITH_DIGIT.sub("…", _KEY.sub("…", reason or "no reason was kept"))


def group_id(reason: str | None) -> str:
    """A short name for the cause of `reason`: eight hex digits."""
    return hashlib.sha256(cause(reason).encode()).hexdigest()[:8]


def grouped(letters: Iterable[Letter]) -> list[Group]:
    """Dead letters (oldest first) by cause, the largest group first."""
    found: dict[str, list[Letter]] = {}
    for letter in letters:
        found.setdefault(cause(letter[1]), []).append(letter)
    groups = [
        Group(
            id=group_id(told[0][1]),
            cause=text,
            event_ids=tuple(letter[0] for letter in told),
            oldest_at=min(letter[2] for letter in told),
            newest_at=max(letter[2] for letter in told),
        )
        for text, told in found.items()
    ]
    return sorted(groups, key=lambda group: -len(group.event_ids))
