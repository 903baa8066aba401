"""Wake: what ends the rest of whoever drains, its bell or a commit to the outbox by any process.

SQLite tells of a commit only when it is asked. inotify tells at once that the log is being written, which is
before the commit, so that is a hint: for a while after it SQLite is asked often. Where there is no inotify it
is asked all the time.
"""

import ctypes
import os
import select
import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path
from threading import Lock
from time import monotonic, sleep

CALM = 30.0
"""Seconds between two looks while nobody writes: hints can be missed, if by no way that is known."""

POLL = 0.04
"""Seconds between two looks without inotify."""

BLIND = 10.0
"""Seconds of a rest at most without inotify: nothing else tells whoever rests that a lock was removed."""

EAGER = (*(0.00025,) * 8, 0.001, 0.004, 0.016, 0.064, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between the looks after a hint: most commits follow within a millisecond, others only once a slow
disk has what was written, of which there is no hint.
"""

IN_MODIFY, IN_ATTRIB, IN_MOVE_SELF, IN_Q_OVERFLOW, IN_IGNORED = 0x2, 0x4, 0x800, 0x4000, 0x8000
CHANGED = IN_ATTRIB | IN_MOVE_SELF
WATCHED = {"": CHANGED, "-wal": IN_MODIFY | CHANGED, "-shm": CHANGED}
"""What there is a hint of: that the database or its log was removed or put aside, or the log written to."""

LOCKS = (".daemon", ".drainers")
"""Whoever removes these lets others in; not all that drain have both."""

EVENT = struct.Struct("iIII")


class Bell:
    """As threading.Event, and something that can be waited for beside other things."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = Lock()  # once it is closed its number may be another file's

    def fileno(self) -> int:
        return self._descriptor

    def set(self) -> None:
        """Ring: whoever waits, or comes to wait, goes on at once."""
        with self._lock:
            if self._descriptor >= 0:
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
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Hints:
    """What inotify tells of the database at `path` and of its log, as far as the host has it."""

    def __init__(self, path: Path) -> None:
        place = os.path.realpath(path)  # what stands beside the file stands where it is itself
        self._files = {os.fsencode(f"{place}{suffix}"): mask for suffix, mask in WATCHED.items()}
        self._locks = [os.fsencode(f"{place}{suffix}") for suffix in LOCKS]
        self._libc = ctypes.CDLL(None)
        has_inotify = hasattr(self._libc, "inotify_init1")
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC) if has_inotify else -1
        self._are_watched = False

    def fileno(self) -> int:
        return self._descriptor

    def will_come(self) -> bool:
        """Whether there will be any; files that were not there, or are others now, are looked for anew."""
        if not self._are_watched and self._descriptor >= 0:
            add = self._libc.inotify_add_watch
            locks = {lock: CHANGED for lock in self._locks if os.path.exists(lock)}
            wanted = self._files | locks
            self._are_watched = all(add(self._descriptor, *each) >= 0 for each in wanted.items())
        return self._are_watched

    def take(self) -> bool:
        """Take those in that came; whether a file was removed, or may have been."""
        is_gone = False
        try:
            told = os.read(self._descriptor, 16384)
        except BlockingIOError:
            return False
        while told:
            _, mask, _, length = EVENT.unpack_from(told)
            self._are_watched = self._are_watched and not mask & (IN_IGNORED | IN_Q_OVERFLOW)
            is_gone = is_gone or bool(mask & (CHANGED | IN_Q_OVERFLOW))
            told = told[EVENT.size + length :]
        return is_gone

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Wake:
    """What wakes the drain of one database. `version` is a number that any commit changes."""

    def __init__(self, path: Path, version: Callable[[], int]) -> None:
        self.bell = Bell()
        self._version = version
        self._hints = Hints(path)
        # Kept from rest to rest: a hint may come before the bell, and its commit after that.
        self._pauses = chain(EAGER, repeat(CALM))
        self._waiting = select.poll()
        for each in (self.bell, self._hints):
            if each.fileno() >= 0:
                self._waiting.register(each, select.POLLIN)

    def seen(self) -> int:
        """The version that is about to be looked at; whatever rings from now on is news."""
        self.bell.clear()
        return self._version()

    def rest(self, seconds: float, seen: int) -> None:
        """Until the bell rings, a commit makes the version another one than `seen`, a file that must stay is
        gone, or the time is over.
        """
        end = monotonic() + (seconds if self._hints.will_come() else min(seconds, BLIND))
        while (left := end - monotonic()) > 0 and self._version() == seen:
            pause = min(left, next(self._pauses), CALM if self._hints.will_come() else POLL)
            if pause < 0.001:  # a poll counts in whole ones
                sleep(pause)
                pause = 0.0
            told = {descriptor for descriptor, _ in self._waiting.poll(pause * 1000)}
            if self.bell.fileno() in told:
                return
            if self._hints.fileno() in told:
                self._pauses = chain(EAGER, repeat(CALM))
                if self._hints.take():
                    return

    def close(self) -> None:
        self.bell.close()
        self._hints.close()
