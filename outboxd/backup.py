"""Backup: the outbox as one file that can be kept elsewhere, taken while shops write and the daemon drains.

What is copied is one state of the file, whole and checked. It knows nothing of what is in there.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from outboxd import database, place
from outboxd.errors import EX_DATA, DatabaseError, NoOutboxError, OutboxdError

PAGES = 2_000
"""Pages between two words on how far it is."""

PART = ".outboxd-part"
"""How the names of files end that are not whole yet. They hold personal data as the outbox does."""

Advance = Callable[[int, int], None]
"""Told how many pages are done, of how many."""


class BackupError(OutboxdError):
    """The file is no backup that can be made, or used."""

    exit_code = EX_DATA


def back_up(
    source: Path, target: Path, *, force: bool = False, advance: Advance = lambda _d, _a: None
) -> int:
    """Copy the outbox at `source` to `target`, whole and checked, or not at all; its size in bytes.

    Raises BackupError if something is there already, unless `force`, or if it is part of the outbox.
    """
    if place.is_among(target, place.files(source)):
        raise BackupError(f"{target} belongs to the outbox itself", hint="name another file")
    if target.exists() and not force:
        raise BackupError(f"{target} is there already", hint="name another file, or say --force")
    if target.with_name(target.name + "-wal").exists():
        raise BackupError(f"{target} is a database in use", hint="name another file")
    part = part_of(target)
    try:
        copy(source, part, advance)
        check(part)
        size = part.stat().st_size
        part.replace(target)
        sync(target.parent)
    finally:
        discard(part)
    return size


def part_of(target: Path) -> Path:
    """Where the file that is to become `target` is made; what killed processes left there goes."""
    for left in target.parent.glob(f".*.[0-9]*{PART}"):
        if not _runs(left.name.removesuffix(PART).rpartition(".")[2]):
            with suppress(OSError):  # it is in nobody's way
                discard(left)
    return target.with_name(f".{target.name}.{os.getpid()}{PART}")


def _runs(process_id: str) -> bool:
    """Whether there is such a process: /proc may hide those of others."""
    try:
        os.kill(int(process_id), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        pass
    return True


def copy(source: Path, target: Path, advance: Advance = lambda _d, _a: None) -> None:
    """Copy one state of the database at `source` to a new file, of the directory's group, on the disk."""
    with closing(database.connect(source, read_only=True)) as origin, copying(source, target):
        copy_of(origin, target, advance)


@contextmanager
def copying(source: Path, target: Path) -> Iterator[None]:
    """What SQLite raises within this becomes an error of ours, of the one of the two that is at fault."""
    try:
        yield
    except sqlite3.Error as error:
        is_full = "is full" in str(error)  # to read takes no room
        raise database.unusable(target.resolve() if is_full else source, error) from error


def copy_of(origin: sqlite3.Connection, target: Path, advance: Advance = lambda _d, _a: None) -> None:
    """The same of an open database. Raises sqlite3.Error, too."""
    create(target)
    with closing(plain(target)) as copied:
        # Read within one transaction: whoever writes meanwhile would make the copy begin again and again.
        origin.execute("BEGIN")
        try:
            origin.execute("SELECT 1 FROM sqlite_master").fetchone()
            origin.backup(copied, pages=PAGES, progress=lambda _s, left, pages: advance(pages - left, pages))
        finally:
            origin.execute("ROLLBACK")
        copied.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, without a log beside it
    sync(target)


def free(path: Path) -> Path:
    """`path`, or with a number that makes it a name which nothing has yet."""
    return next(each for each in _names(path) if not each.exists())


def move_to_free(made: Path, path: Path) -> Path:
    """Give the file `made` the first name as by `free`, and nobody else the same, at whatever moment."""
    for name in _names(path):
        try:
            os.link(made, name)
        except FileExistsError:
            continue
        except OSError:  # a file system without links
            try:
                name.touch(exist_ok=False)
            except FileExistsError:
                continue
            made.replace(name)
        made.unlink(missing_ok=True)
        with suppress(OSError):
            sync(path.parent)
        return name
    raise BackupError(f"there are too many files like {path}", hint="move some of them away")


def _names(path: Path) -> Iterator[Path]:
    yield path
    yield from (path.with_name(f"{path.name}-{number}") for number in range(2, 1000))


def check(path: Path) -> str:
    """Look whether the file at `path` is a sound outbox; its schema.

    Raises BackupError, SchemaError, and NoOutboxError if nobody can read it.
    """
    try:
        path.open("rb").close()  # it is nobody's who works with it: there are no locks to lose
    except OSError as error:
        raise NoOutboxError(f"{path} cannot be read: {error.strerror}", hint=f"look: ls -l {path}") from error
    try:
        with closing(plain(path, mode="ro")) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            revision = database.revision(connection)
    except (sqlite3.Error, OutboxdError) as error:
        raise BackupError(f"{path} is not a sound database ({error})", hint="take another backup") from error
    if found != "ok":
        raise BackupError(f"{path} is damaged ({found})", hint="take another backup")
    if revision is None:
        raise BackupError(f"{path} is a database, but no outbox", hint="name a file made by: outboxd backup")
    database.check_newer(path, revision)
    return revision


def create(path: Path) -> None:
    """An empty file for the directory's group, to be filled; one that a killed process left is replaced."""
    try:
        discard(path)
        database.create(path)
        with suppress(PermissionError):  # setgid has done it, or the group is not ours to give
            os.chown(path, -1, path.parent.stat().st_gid)
    except OSError as error:
        raise database.unmade(path, error) from error


def discard(path: Path) -> None:
    """Remove a copy that is not wanted, with what may have come to stand beside it."""
    for suffix in ("", "-wal", "-shm", "-journal", ".turn"):
        with suppress(FileNotFoundError, NotADirectoryError):
            path.with_name(path.name + suffix).unlink()


def plain(path: Path, *, mode: str = "rw") -> sqlite3.Connection:
    """A connection to a file of our own, with which nobody else works."""
    try:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise DatabaseError(f"{path} cannot be opened: {error}") from error


def sync(path: Path) -> None:
    """Have the file, or the names in the directory, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
