"""Cargo: rows that wait for company until they are an import. It knows no database and makes no call."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from outboxd.brevo.bulk import LARGEST
from outboxd.event import ImportRow

ROOM = LARGEST - 1024
"""Bytes of an import's body that are its rows', each with the line's end."""


@dataclass(slots=True)
class Cargo:
    """Rows of one kind, an import of which has `most` at most; `since` is when the first one came."""

    most: int
    rows: list[ImportRow] = field(default_factory=list)
    since: datetime | None = None
    _size: int = 0

    def add(self, row: ImportRow, now: datetime) -> None:
        """Let this one wait, too."""
        self.rows.append(row)
        self._size += _size(row)
        self.since = self.since or now

    def ready(self, now: datetime, linger: timedelta) -> Sequence[ImportRow]:
        """Those that are to leave together: as many as an import takes, or all that waited for `linger`."""
        is_full = len(self.rows) >= self.most or self._size > ROOM
        if self.since is None or not (is_full or now >= self.since + linger):
            return ()
        room = ROOM
        for count, row in enumerate(self.rows[: self.most]):
            room -= _size(row)
            if room < 0 and count:
                return self.rows[:count]
        return self.rows[: self.most]

    def unload(self, count: int, now: datetime) -> None:
        """The first so many are on their way, and wait no more."""
        self._size -= sum(map(_size, self.rows[:count]))
        del self.rows[:count]
        self.since = now if self.rows else None

    def shift(self, by: timedelta) -> None:
        """The clock was set by so much: what waits, waits as long as it would have."""
        self.since = self.since and self.since + by


def _size(row: ImportRow) -> int:
    return len(row.body) + 1
