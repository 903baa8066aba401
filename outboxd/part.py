"""A part: a file that is being made beside its place, under a name that nobody looks for, until it is whole.

It holds personal data as the outbox does. Whoever makes one holds a lock beside it, which is a kernel's, gone
with the process: what nobody holds was left behind, and goes with the next one that is made there.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from outboxd import database

PART = ".outboxd-part"

LOCK = ".lock"


@contextmanager
def making(target: Path) -> Iterator[Path]:
    """Where the file that is to become `target` is made; what still lies there in the end goes.

    What the operating system refuses meanwhile becomes an error of ours.
    """
    with suppress(OSError):  # whoever may not look there is told so by what comes next
        for left in target.parent.glob(f".*{PART}{LOCK}"):
            _remove_left(left)
    part, descriptor = _locked(target)
    try:
        yield part
    except OSError as error:
        raise database.unmade(target, error) from error
    finally:
        discard(part)
        with suppress(OSError):
            _lock_of(part).unlink()
        os.close(descriptor)


def create(path: Path) -> None:
    """An empty file for the directory's group, to be filled; what lies there is replaced."""
    discard(path)
    database.create(path)
    with suppress(PermissionError):  # setgid has done it, or the group is not ours to give
        os.chown(path, -1, path.parent.stat().st_gid)


def discard(path: Path) -> None:
    """Remove a copy that is not wanted, with what may have come to stand beside it, as far as that can be."""
    for suffix in ("", "-wal", "-shm", "-journal", ".turn"):
        with suppress(OSError):
            path.with_name(path.name + suffix).unlink()


def sync(path: Path) -> None:
    """Have the file, or the names in the directory, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(target: Path) -> tuple[Path, int]:
    """A name that nobody else has, and the lock that says so."""
    for number in count(1):
        part = target.with_name(f".{target.name}.{number}{PART}")
        lock = _lock_of(part)
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, database.FILE_MODE)
        except FileExistsError:
            continue
        except (FileNotFoundError, NotADirectoryError) as error:
            raise database.unusable(target, error) from error
        except OSError as error:
            raise database.unmade(target, error) from error
        try:
            os.fchmod(descriptor, database.FILE_MODE)  # whatever the umask: the group removes what is left
            is_ours = _is_had(lock, descriptor)
        except OSError:  # a file system without locks, where nobody takes it for left behind either
            is_ours = True
        if is_ours:
            return part, descriptor
        os.close(descriptor)
    raise AssertionError


def _remove_left(lock: Path) -> None:
    with suppress(OSError):  # it is in nobody's way
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            if _is_had(lock, descriptor):
                discard(lock.with_name(lock.name.removesuffix(LOCK)))
                lock.unlink()
        finally:
            os.close(descriptor)


def _is_had(lock: Path, descriptor: int) -> bool:
    """Whether the lock could be taken, and the file that it is in is still the one that others look at."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.stat(lock), os.fstat(descriptor))
    except (BlockingIOError, FileNotFoundError):
        return False


def _lock_of(part: Path) -> Path:
    return part.with_name(part.name + LOCK)
