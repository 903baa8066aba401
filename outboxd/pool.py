"""The pool: connections to outboxes that stay open from one event of a program to its next.

To open one takes four times as long as to write an event, and others wait for whoever writes.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from outboxd import database

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike

    File = tuple[int, int] | None
    """Which file lies at a path."""

MOST = 4
"""Connections that are kept, for as many threads that write at once; of several outboxes the latest."""

_idle: deque[tuple[str, File, File, sqlite3.Connection]] = deque()
"""Of each its path, what lay there, what log lay beside it, and itself."""


@contextmanager
def connection(path: str | PathLike[str]) -> Iterator[tuple[sqlite3.Connection, File]]:
    """A connection to what lies at `path`, and which file that is, as `database.identity` tells it.

    Afterwards it is kept, unless that broke off or left a transaction open. Raises as `database.connect`.
    """
    name, file = os.path.realpath(path), database.identity(path)
    taken = _take(name, file) or database.connect(path)
    try:
        yield taken, file
    except BaseException:
        taken.close()
        raise
    log = _log(name)
    if taken.in_transaction or log is None:
        return taken.close()
    _idle.append((name, file, log, taken))
    return close(MOST)


def _take(name: str, file: File) -> sqlite3.Connection | None:
    """One that was kept. Another file may have taken the outbox's place meanwhile, or its log's: who wrote
    to what was there before would write for nobody.
    """
    log = _log(name)
    for _ in range(len(_idle)):
        try:
            kept = _idle.pop()
        except IndexError:  # another thread was faster
            break
        if kept[:3] == (name, file, log):
            return kept[3]
        if kept[0] == name:
            kept[3].close()
        else:
            _idle.appendleft(kept)
    return None


def _log(name: str) -> File:
    try:
        found = os.stat(f"{name}-wal")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def close(most: int = 0) -> None:
    """Keep so many, and let the others go."""
    while len(_idle) > most:
        try:
            _idle.popleft()[3].close()
        except IndexError:
            return


# SQLite takes its locks for those of a process: what is open across a fork is safe in neither of the two.
os.register_at_fork(before=close)
atexit.register(close)
