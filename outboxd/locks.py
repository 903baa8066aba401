"""Two locks beside the database: whoever writes takes turns, and one daemon drains.

Both are kernel locks on files of their own, gone with the process that held them, however it ended.
"""

from __future__ import annotations

import _thread  # for a lock or two; `threading` would be loaded at every event
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO

from outboxd.errors import (
    DatabaseError,
    HeldError,
    NoOutboxError,
    OutboxdError,
    RightsError,
    TooManyFilesError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike

FILE_MODE = 0o660

WORD = 4096
"""Bytes of the daemon's lock file that are read: who holds it, and on a second line what keeps it."""


class Drainer:
    """The place of one who drains. `is_alone`: nobody else does, so what is leased was left behind."""

    def __init__(self, files: dict[str, int], who: str, *, is_sole: bool, is_alone: bool) -> None:
        self.is_alone = is_alone
        self._files = files
        self._who = who
        self._is_sole = is_sole

    def stands(self) -> bool:
        """Whether the locks are still in the files that others look at; those may have been removed."""
        return all(_is_at(path, descriptor) for path, descriptor in self._files.items())

    def say(self, word: str | None) -> None:
        """Let others read what keeps this one from draining, in one line."""
        if not self._is_sole or not self._files:
            return
        descriptor = next(iter(self._files.values()))
        _write(descriptor, self._who if word is None else f"{self._who}\n{word}")


def word(database: str | PathLike[str]) -> str | None:
    """What keeps the one who drains `database`, if it says so; as it was when it ended, if it was killed."""
    try:
        with open(f"{os.path.realpath(database)}.daemon", encoding="utf-8", errors="replace") as file:
            return file.read(WORD).partition("\n")[2] or None
    except OSError:
        return None


PATIENCE = 5.0
"""Seconds that a turn is waited for: whoever holds it longer has stopped, and SQLite's own lock must do."""

_given_up: set[str] = set()
"""Turns for which a thread of this process still waits, though its caller does not. While it does, nobody
else here waits for that one: they would only pile up behind it.
"""

os.register_at_fork(after_in_child=_given_up.clear)  # such a thread stays behind


@contextmanager
def turn(database: str | PathLike[str]) -> Iterator[None]:
    """Wait for one's turn to write, as producers do, and who drains.

    SQLite's busy handler sleeps and looks again, and whoever sleeps longest loses: one of four producers
    was seen to wait two seconds. The kernel queues instead. The lock is a courtesy: where it cannot be
    had, or not in time, SQLite's own keeps the data right.
    """
    path = f"{os.path.realpath(database)}.turn"
    is_waited_for = os.path.exists(database) and path not in _given_up
    try:
        # An object: what Ctrl-C drops in here is closed, and the lock goes with it.
        file = FileIO(path, "r+", opener=_open) if is_waited_for else None
    except OSError:
        file = None
    if file is None or not _comes(file, path):
        yield
        return
    try:
        yield
    finally:
        _let_go(file)


def _comes(file: FileIO, path: str) -> bool:
    """Wait for the lock; whether it came in time. If not, the file is not the caller's any more.

    The kernel's queue knows no time-out, so another thread stands in it. To look again and again instead
    would keep somebody waiting ten times as long.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        pass
    except OSError:  # a file system without locks
        file.close()
        return False
    import signal  # seldom needed

    came, answering = _thread.allocate_lock(), _thread.allocate_lock()
    came.acquire()

    def wait() -> None:
        # It may outlast the moment at which a daemon blocks its signals, to end in good order by them.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        fcntl.flock(file, fcntl.LOCK_EX)
        if answering.acquire(blocking=False):
            came.release()
        else:
            _let_go(file)
            _given_up.discard(path)

    def give_up() -> bool:
        """False if the lock has come at the last moment."""
        _given_up.add(path)
        if answering.acquire(blocking=False):
            return True
        _given_up.discard(path)
        return False

    try:
        _thread.start_new_thread(wait, ())
    except RuntimeError:  # no more threads
        file.close()
        return False
    try:
        return came.acquire(timeout=PATIENCE) or not give_up()
    except BaseException:  # Ctrl-C
        if not give_up():
            _let_go(file)
        raise


def _let_go(file: FileIO) -> None:
    fcntl.flock(file, fcntl.LOCK_UN)  # also for a process that was forked off meanwhile, and has it too
    file.close()


@contextmanager
def drainer(database: str | PathLike[str], *, who: str, shared: bool) -> Iterator[Drainer]:
    """Drain `database`: alone, or beside others if `shared`; `who` is told to those who are kept out.

    Raises HeldError with the holder.
    """
    path = os.path.realpath(database)
    files: dict[str, int] = {}
    with ExitStack() as stack:
        if not shared:
            files[f"{path}.daemon"] = stack.enter_context(_sole(f"{path}.daemon", database, who))
        drainers = files[f"{path}.drainers"] = _opened(f"{path}.drainers")
        stack.callback(os.close, drainers)
        try:
            fcntl.flock(drainers, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_alone = True
        except BlockingIOError:
            is_alone = False
        fcntl.flock(drainers, fcntl.LOCK_SH)
        held = Drainer(files, who, is_sole=not shared, is_alone=is_alone)
        try:
            yield held
        finally:
            held.say(None)
            files.clear()  # the numbers of what is closed are soon those of other files


@contextmanager
def _sole(path: str, database: str | PathLike[str], who: str) -> Iterator[int]:
    descriptor = _opened(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = os.pread(descriptor, WORD, 0).decode("utf-8", "replace")
            holder = told.partition("\n")[0].strip() or "another process"
            raise HeldError(
                f"{database} is drained already, by {holder}",
                hint="stop that one first, or say --shared to drain beside it",
            ) from None
        _write(descriptor, who)
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, text: str) -> None:
    """Put `text` in place of what the file held. It is a courtesy, and the disk may be full."""
    held = text.encode()[:WORD]
    with suppress(OSError):
        os.pwrite(descriptor, held, 0)
        os.ftruncate(descriptor, len(held))


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _opened(path: str) -> int:
    try:
        return _open(path)
    except OSError as error:
        raise _unopened(path, error) from error


def _unopened(path: str, error: OSError) -> OutboxdError:
    told = f"{path} cannot be opened: {error.strerror}"
    if isinstance(error, PermissionError):
        hint = f"drain as the user that owns it: sudo -u outboxd outboxd …, or remove {path}"
        return RightsError(told, hint=hint)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return TooManyFilesError(path)
    if error.errno == errno.ELOOP:
        return DatabaseError(f"{path} is a link", hint=f"remove it: rm {path}")
    from pathlib import Path

    from outboxd import place

    for fault in place.faults(Path(path)):
        if fault.what == "place":
            return NoOutboxError(fault.told, hint=fault.mend)
        if fault.what == "disk":
            return DatabaseError(fault.told, hint=fault.mend)
    return DatabaseError(told)


def _open(path: str, _flags: int = 0) -> int:
    try:
        # Members of the group can put a link there, and whoever drains may write to more than they may.
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        with suppress(PermissionError):  # another user has made it at the same moment
            os.fchmod(descriptor, FILE_MODE)  # whatever the umask of whoever came first
        return descriptor
