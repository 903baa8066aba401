"""The pool: connections to outboxes that stay open from one event of a program to its next.

To open one takes several times as long as to write an event, and others wait for whoever writes.
"""

from __future__ import annotations

import atexit
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from time import monotonic, sleep

from outboxd import database
from outboxd.anchor import Anchor
from outboxd.errors import AdriftError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike

MOST = 4
"""Connections that are kept, for as many threads that write at once."""

PATIENCE = 5.0
"""Seconds that a fork waits for those who write, and who comes to write waits for a fork, or for what is open
of a removed log to be closed.
"""

AGAIN = 0.01
"""Seconds between two looks whether what is open of a removed log is closed."""


class Pooled:
    """A connection to an outbox, which knows the files that it has open. `path` is without links."""

    def __init__(self, path: str, given: str | PathLike[str]) -> None:
        self.path = path
        self._anchor = Anchor(path)
        self.connection = database.connect(given)

    def begin(self) -> None:
        """Begin a transaction. Raises AdriftError, within it, if another file lies at the path, or another
        log beside it, than is open here: who wrote to that would write for nobody.
        """
        self.connection.execute("BEGIN IMMEDIATE")
        self._anchor.hold_log()  # by now there is one, unless the outbox is a copy that nobody drained yet
        if not self.stands():
            raise AdriftError(
                f"{self.path} or its log was removed, and this program still has it open",
                hint="start it again; leave what ends in -wal and -shm alone: SQLite removes it",
            )

    def stands(self) -> bool:
        """As far as can be seen without a transaction."""
        return self._anchor.holds

    def close(self) -> None:
        """Let it go, and leave alone a log that others have by now."""
        with database.outlasted(self.path) if self._anchor.is_log_of_others else nullcontext():
            self.connection.close()


_idle: deque[Pooled] = deque()
_out: set[object] = set()
_forks: list[None] = []


@contextmanager
def connection(path: str | PathLike[str]) -> Iterator[Pooled]:
    """One to the outbox at `path`. Afterwards it is kept, unless that broke off or left a transaction open.

    Raises as `database.connect`.
    """
    token = object()
    try:
        _enter(token)
        name = os.path.realpath(path)
        taken = _take(name) or Pooled(name, path)
        try:
            yield taken
        except BaseException:
            taken.close()
            raise
        if taken.connection.in_transaction:
            taken.close()
        else:
            _idle.append(taken)
            close(MOST)
    finally:
        _out.discard(token)


def _take(path: str) -> Pooled | None:
    for _ in range(len(_idle)):
        try:
            kept = _idle.pop()
        except IndexError:  # another thread was faster
            break
        if kept.path != path:
            _idle.appendleft(kept)
        elif kept.stands():
            return kept
        else:
            kept.close()
    return None


def close(most: int = 0) -> None:
    """Keep so many, and let the others go."""
    while len(_idle) > most:
        try:
            _idle.popleft().close()
        except IndexError:
            return


# SQLite takes its locks for those of a process: what is open across a fork is safe in neither of the two. So
# nobody comes to write while one is under way, and it begins when nobody does.


def _enter(token: object) -> None:
    give_up = monotonic() + PATIENCE
    _out.add(token)
    while _forks and monotonic() < give_up:
        _out.discard(token)
        sleep(0.001)
        _out.add(token)


def _before_fork() -> None:
    give_up = monotonic() + PATIENCE
    _forks.append(None)
    while _out and monotonic() < give_up:
        sleep(0.001)
    close()


def _after_fork_in_child() -> None:
    _forks.clear()
    _out.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_forks.pop, after_in_child=_after_fork_in_child)
atexit.register(close)
