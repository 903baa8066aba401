"""Wake: what ends the rest of whoever drains, its bell or a commit to the outbox by any process.

SQLite tells of a commit only when it is asked. inotify tells at once that the log is being written, which is
before the commit, so that is a hint: for a while after it SQLite is asked often. Where there is no inotify it
is asked all the time.
"""

import ctypes
import os
import select
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path
from time import monotonic, sleep

CALM = 1.0
"""Seconds between two looks while nobody writes: hints can be missed, if by no way that is known."""

POLL = 0.04
"""Seconds between two looks without inotify."""

EAGER = (*(0.00025,) * 8, 0.001, 0.002, 0.004, 0.008, 0.016, *(POLL,) * 50)
"""Seconds between the looks after a hint: most commits follow within a millisecond, others later."""

IN_MODIFY = 0x2
IN_IGNORED = 0x8000
EVENT = struct.Struct("iIII")


class Bell:
    """As threading.Event, and something that can be waited for beside other things."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._descriptor

    def set(self) -> None:
        """Ring: whoever waits, or comes to wait, goes on at once."""
        with suppress(OSError):  # it is closed: nobody waits any more
            os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def wait(self, seconds: float) -> bool:
        """Until it is rung, for so long at most; whether it was."""
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        return bool(waiting.poll(seconds * 1000))

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Log:
    """The write-ahead log of the database at `path`, watched by inotify as far as the host has it."""

    def __init__(self, path: Path) -> None:
        self._path = os.fsencode(f"{path}-wal")
        self._libc = ctypes.CDLL(None)
        has_inotify = hasattr(self._libc, "inotify_init1")
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC) if has_inotify else -1
        self._is_watched = False

    def fileno(self) -> int:
        return self._descriptor

    def is_watched(self) -> bool:
        """Whether there will be hints; the log is looked for anew if it was not there, or is another one."""
        if not self._is_watched and self._descriptor >= 0:
            self._is_watched = self._libc.inotify_add_watch(self._descriptor, self._path, IN_MODIFY) >= 0
        return self._is_watched

    def take(self) -> None:
        """Take the hints in."""
        try:
            told = os.read(self._descriptor, 16384)
        except BlockingIOError:
            return
        while told:
            _, mask, _, length = EVENT.unpack_from(told)
            self._is_watched = self._is_watched and not mask & IN_IGNORED
            told = told[EVENT.size + length :]

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Wake:
    """What wakes the drain of one database. `version` is a number that any commit changes."""

    def __init__(self, path: Path, version: Callable[[], int]) -> None:
        self.bell = Bell()
        self._version = version
        self._log = Log(path)
        self._waiting = select.poll()
        for each in (self.bell, self._log):
            if each.fileno() >= 0:
                self._waiting.register(each, select.POLLIN)

    def seen(self) -> int:
        """The version that is about to be looked at; whatever rings from now on is news."""
        self.bell.clear()
        return self._version()

    def rest(self, seconds: float, seen: int) -> None:
        """Until the bell rings, a commit makes the version another one than `seen`, or the time is over."""
        end = monotonic() + seconds
        pauses = self._pauses()
        while (left := end - monotonic()) > 0 and self._version() == seen:
            pause = min(left, next(pauses))
            if pause < 0.001:  # a poll counts in whole ones
                sleep(pause)
                pause = 0.0
            told = {descriptor for descriptor, _ in self._waiting.poll(pause * 1000)}
            if self.bell.fileno() in told:
                return
            if self._log.fileno() in told:
                self._log.take()
                pauses = self._pauses(EAGER)

    def close(self) -> None:
        self.bell.close()
        self._log.close()

    def _pauses(self, first: tuple[float, ...] = ()) -> Iterator[float]:
        return chain(first, repeat(CALM if self._log.is_watched() else POLL))
