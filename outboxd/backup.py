"""Backup: the outbox as one file that can be kept elsewhere, taken while shops write and the daemon drains.

What is copied is one state of the file, whole and checked. It knows nothing of what is in there.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from outboxd import database, place
from outboxd.errors import EX_DATA, DatabaseError, NoOutboxError, OutboxdError
from outboxd.part import create, making, sync

PAGES = 2_000
"""Pages between two words on how far it is."""

SIZE = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"

Advance = Callable[[int, int], None]
"""Told how many pages are done, of how many."""


class BackupError(OutboxdError):
    """The file is no backup that can be made, or used."""

    exit_code = EX_DATA


class DamagedError(DatabaseError):
    """The file is no database, or not a sound one."""


def back_up(
    source: Path,
    target: Path,
    *,
    force: bool = False,
    needed: Iterable[Path] = (),
    advance: Advance = lambda _d, _a: None,
) -> int:
    """Copy the outbox at `source` to `target`, whole and checked, or not at all; its size in bytes.

    Raises BackupError if something is there already, unless it is a file and `force`, or if it is `needed` or
    part of the outbox; DamagedError and SchemaError of `source`.
    """
    file = place.target(target)  # a link stays, and leads to the backup
    if file is None:
        raise BackupError(f"{target} is no regular file", hint="name another one")
    if place.is_among(file, place.files(source)):
        raise BackupError(f"{file} belongs to the outbox itself", hint="name another file")
    if place.is_among(file, needed):
        raise BackupError(f"{file} would be overwritten, and is needed", hint="name another file")
    if os.path.exists(file) and not force:
        raise BackupError(f"{file} is there already", hint="name another file, or say --force")
    if os.path.exists(f"{file}-wal"):
        raise BackupError(f"{file} is a database in use", hint="name another file")
    with making(file) as part:
        copy(source, part, advance)
        revision = schema(part, of=source)
        if revision not in database.REVISIONS:
            database.check_revision(source, revision)
        size = part.stat().st_size
        part.replace(file)
        sync(file.parent)
    return size


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
        is_reading = code(error) in (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ)
        is_writing = code(error) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) and not is_reading
        raise database.unusable(target.resolve() if is_writing else source, error) from error


def copy_of(origin: sqlite3.Connection, target: Path, advance: Advance = lambda _d, _a: None) -> None:
    """The same of an open database. Raises sqlite3.Error, too."""
    create(target)
    with closing(plain(target)) as copied:
        # Read within one transaction: whoever writes meanwhile would make the copy begin again and again.
        origin.execute("BEGIN")
        try:
            _expect_room(origin, target)
            origin.backup(copied, pages=PAGES, progress=lambda _s, left, pages: advance(pages - left, pages))
        finally:
            if origin.in_transaction:  # SQLite has ended it after some errors, which are to be told
                origin.execute("ROLLBACK")
        copied.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, without a log beside it
    sync(target)


def _expect_room(origin: sqlite3.Connection, target: Path) -> None:
    """Raise DatabaseError rather than fill the disk, on which shops may write, and then find it full."""
    (size,) = origin.execute(SIZE).fetchone()
    directory, found = target.parent, os.statvfs(target.parent)
    if found.f_blocks and size > found.f_bavail * found.f_frsize:
        raise DatabaseError(
            f"the disk that holds {directory} has no room for a copy of {size / 2**20:,.1f} MB",
            hint=f"make room, such as by: sudo journalctl --vacuum-size=100M; see it with: df -h {directory}",
        )


def free(path: Path) -> Path:
    """`path`, or with a number that makes it a name which nothing has yet, nor a log beside it."""
    return next(each for each in _names(path) if not any(map(os.path.lexists, database_files(each))))


def database_files(path: Path) -> list[Path]:
    """The log, the index to that, and the database at `path`, there or not."""
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "")]


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

    Raises BackupError, SchemaError, NoOutboxError if nobody can read it, and DatabaseError.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise BackupError(f"{path} is no regular file", hint="name a file made by: outboxd backup")
    try:
        path.open("rb").close()  # it is nobody's who works with it: there are no locks to lose
    except OSError as error:
        raise NoOutboxError(f"{path} cannot be read: {error.strerror}", hint=f"look: ls -l {path}") from error
    try:
        revision = schema(path)
    except DamagedError as error:
        raise BackupError(str(error), hint="take another backup") from error
    except OutboxdError as error:
        if code(error) & 0xFF != sqlite3.SQLITE_CANTOPEN or os.access(path.parent, os.W_OK):
            raise
        raise BackupError(
            f"{path} cannot be opened where it lies: it keeps a log, and {path.parent} cannot be written to",
            hint="copy it elsewhere, with what ends in -wal beside it, and restore that",
        ) from error
    if revision is None:
        raise BackupError(f"{path} is a database, but no outbox", hint="name a file made by: outboxd backup")
    database.check_newer(path, revision)
    return revision


def schema(path: Path, *, of: Path | None = None) -> str | None:
    """The schema of the database at `path`, which is read from end to end; None if there is no outbox in it.

    Raises DamagedError, of the file that it is a copy `of`, and other errors as `database.connect` does.
    """
    try:
        with database.reading(path) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            revision = database.revision(connection)
    except OutboxdError as error:
        if not is_damage(error):
            raise
        found = str(error.__cause__)
    if found != "ok":
        raise DamagedError(
            f"{of or path} is not a sound database ({found.splitlines()[-1]})",
            hint="put a sound one there: outboxd restore BACKUP",
        )
    return revision


def is_damage(error: Exception) -> bool:
    """Whether it is the content of a file that SQLite cannot make anything of."""
    return code(error) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def code(error: Exception) -> int:
    """What SQLite calls what is behind the error; 0 if that is none of its errors."""
    cause = error if isinstance(error, sqlite3.Error) else error.__cause__
    return int(getattr(cause, "sqlite_errorcode", 0))


def plain(path: Path) -> sqlite3.Connection:
    """A connection to a file of our own, with which nobody else works."""
    try:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise DatabaseError(f"{path} cannot be opened: {error}") from error
