"""Anchor: which file a connection has open, and which log beside it, and whether they still lie there.

Others may remove them or put others in their place, and SQLite does not tell: it goes on with what is open.
"""

from __future__ import annotations

import os
from contextlib import suppress
from operator import eq

from outboxd import database
from outboxd.errors import OutboxdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike

    Log = tuple[tuple[int, int] | None, ...]
    """Which files lie beside a database as its log, and as the index to that."""

SUFFIXES = ("-wal", "-shm")

NAMELESS = (-1, -1)
"""A file that is open and lies at no place."""


class Anchor:
    """Made before the database at `path` is opened; `hold_log` once the connection has read or written."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = path
        self._place = os.path.realpath(path)  # SQLite makes the log where the file itself is
        self._follows = os.path.islink(path)
        self._file = self._identity()
        self._log: Log | None = None

    def hold_log(self) -> None:
        """The log that lies there by now is the one that is open, if it is one that this process has open.

        Else an older connection has another one, which was removed: those of one process share an index.
        """
        if self._log is not None:
            return
        self._log = self._beside()
        if any(self._log):
            with suppress(OSError):  # no /proc: it is taken to be the one
                opened = _open_here()
                self._log = tuple(each if each in opened else NAMELESS for each in self._log)

    @property
    def holds(self) -> bool:
        """Whether what lies there is what is open, the file and its log …"""
        return self.holds_file and self._beside() == self._log

    @property
    def holds_file(self) -> bool:
        """… and the file, whatever its log."""
        is_there = not self._follows or os.path.realpath(self._path) == self._place
        return is_there and self._identity() == self._file

    @property
    def is_file_linked(self) -> bool:
        """Whether a link that came later leads to the file: others have a log of it at another place."""
        return not self.holds_file and database.identity(self._path) == self._file

    @property
    def is_log_at_its_place(self) -> bool:
        """Whether whoever opens the file finds in its log all that is in the one that is open here."""
        return self.holds_file and self._log is not None and self._beside()[0] == self._log[0]

    @property
    def is_log_of_others(self) -> bool:
        """Whether there lies a log that, or whose index, is another one than is open here, as far as can be
        told.

        Whoever closes a file last carries the log into it as far as he knows it, and removes what lies at its
        place: all that others wrote would be gone. Only readers do neither.
        """
        try:
            if self.is_file_linked:
                return True
            found = self._beside()
        except OutboxdError:
            return True
        return found[0] is not None and found != self._log

    @property
    def is_log_outdated(self) -> bool:
        """Whether others have written to another log, by an index of their own.

        They did so without what is in the one that is open here, and whole pages: the two do not fit.
        """
        if self._log is None or any(map(eq, self._beside(), self._log)):
            return False
        try:
            return os.path.getsize(f"{self._place}{SUFFIXES[0]}") > 0
        except OSError:  # nobody has
            return False

    def discard_log(self) -> None:
        """Remove the log, whose file lies there no more; unless another one has come by now."""
        if self._beside() != self._log:
            return
        for suffix in SUFFIXES:
            with suppress(OSError):
                os.unlink(f"{self._place}{suffix}")

    def _identity(self) -> tuple[int, int] | None:
        """What lies at the path. A link that came later leads elsewhere, be it to the same file: those who
        follow it make their log there.
        """
        return database.identity(self._path, follows=self._follows)

    def _beside(self) -> Log:
        return tuple(database.identity(f"{self._place}{suffix}") for suffix in SUFFIXES)


def _open_here() -> set[tuple[int, int]]:
    """Every file that this process has open, wherever it lies."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # closed meanwhile
            status = os.fstat(int(descriptor))
            found.add((status.st_dev, status.st_ino))
    return found
