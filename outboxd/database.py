"""The SQLite file: how it is made, opened and brought to the current schema.

Clients and the daemon open it alike, through `connect`. What is written is none of this room's business.
The file, its -wal and its -shm are never opened as plain files: closing those would drop SQLite's locks.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

from outboxd.errors import DatabaseError, NoOutboxError, RightsError, SchemaError, TooManyFilesError
from outboxd.locks import turn

TYPE_CHECKING = False  # the intake imports this module at every event: what it does not need is not loaded
if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path


DEFAULT_PATH = "/var/lib/outboxd/outbox.db"
FILE_MODE = 0o660
BUSY_TIMEOUT = 30.0  # seconds
PAGE_SIZE = 1024
"""Bytes. An event changes a few of them in a dozen places, and for each a whole page is written, to the log
and to the file: with SQLite's own 4096 two thirds more. A row that fills more than half a page has it alone,
which takes room.
"""

LOG_LIMIT = 16 * 1024 * 1024  # bytes that the write-ahead log keeps once it could be reset

SETTINGS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",  # what is deleted is wiped at once, pages that are freed as well
    f"PRAGMA journal_size_limit = {LOG_LIMIT}",
)
"""Those that each connection makes anew."""

LOST_FRAMES = sqlite3.SQLITE_IOERR_SHORT_READ
"""What is read ends early: others began a log of their own by an index that is still that of the old one."""

NO_ROOM = (
    "the disk that holds {path} is full",
    "make room, such as by: sudo journalctl --vacuum-size=100M; see it with: df -h {directory}",
)
UNSOUND = (
    "{path} is not a sound SQLite database ({error})",
    "name another file with `database:`, or restore a backup",
)
LOCKED = (
    "{path} stayed locked by another program for {seconds} seconds",
    "find the program that holds it: fuser {path}",
)
MEANINGS = {
    LOST_FRAMES: (
        "the log of {path} was removed under programs that have it open",
        "restart them; leave what ends in -wal and -shm alone: SQLite makes it, and removes it",
    ),
    sqlite3.SQLITE_FULL: ("the disk that holds {path} or temporary files is full", f"{NO_ROOM[1]} /var/tmp"),
    sqlite3.SQLITE_IOERR: (
        "the disk that holds {path} does not read or write ({error})",
        "see what the kernel says of it: sudo dmesg | tail",
    ),
    sqlite3.SQLITE_CORRUPT: UNSOUND,
    sqlite3.SQLITE_NOTADB: UNSOUND,
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    # It is of a statement, and ours fit the schema of this version.
    sqlite3.SQLITE_ERROR: (
        "{path} holds no outbox of this version ({error})",
        "create it with: outboxd migrate",
    ),
}
"""What an error says of a file that can be opened, and its mend, by its kind."""

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")
"""Every revision of the schema that this version knows, oldest first (a test holds it to migrations/)."""


TAKEN = """
SELECT 1 FROM sqlite_master WHERE name IN (
    'outbox', 'attempts', 'contacts', 'addresses', 'depth', 'stats', 'state', 'imports', 'import_rows',
    'notifications', 'totals'
)
"""


def connect(path: str | PathLike[str], *, read_only: bool = False) -> sqlite3.Connection:
    """An autocommit connection to an existing outbox; never creates the file.

    Raises NoOutboxError, RightsError or DatabaseError.
    """
    with explained(path):
        connection = _opened(path, "ro" if read_only else "rw")
        connection.text_factory = decoded
        try:
            for setting in SETTINGS:
                connection.execute(setting)
        except sqlite3.Error:
            connection.close()
            raise
    return connection


def _opened(path: str | PathLike[str], mode: str) -> sqlite3.Connection:
    if os.path.exists(path) and not os.path.isfile(path):  # whoever opened a pipe would wait for ever
        raise sqlite3.OperationalError("no regular file")
    return sqlite3.connect(
        f"file:{_quoted(os.fspath(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,  # the pool hands connections from thread to thread, one at a time
    )


@contextmanager
def outlasted(path: str | PathLike[str]) -> Iterator[None]:
    """What is closed within this is not the last one to have the file at `path` open.

    That one only reads, and so it neither folds a log into the file nor removes one.
    """
    with ExitStack() as stack:
        # If it cannot be opened, it is not at its place, and SQLite leaves the log alone. If it cannot be
        # read, because the log is not the one that it was, the lock that readers have is held all the same.
        with suppress(sqlite3.Error):
            last = stack.enter_context(closing(_opened(path, "ro")))
            last.execute("PRAGMA busy_timeout = 0")
            last.execute("SELECT 1 FROM sqlite_master").fetchone()
        yield


def decoded(raw: bytes) -> str:
    """What a client wrote as text. Not every client sees to it that this is UTF-8; what is not becomes \\xfc,
    so that one row of a shop in Latin-1 can be read, and refused, instead of stopping every other.
    """
    return raw.decode("utf-8", "backslashreplace")


def _quoted(path: str) -> str:
    """`path` within a URI; what urllib's quote does, without its import."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


@contextmanager
def explained(path: str | PathLike[str]) -> Iterator[None]:
    """What SQLite raises of the file at `path` within this becomes an error of ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise unusable(path, error) from error


def unusable(path: str | PathLike[str], error: Exception) -> DatabaseError | NoOutboxError | RightsError:
    """What an error of SQLite means for the file at `path`, with its mend."""
    code = getattr(error, "sqlite_errorcode", 0)
    kind = code if code == LOST_FRAMES else code & 0xFF  # the rest says in which of several ways
    if kind == sqlite3.SQLITE_CANTOPEN and not _may_open():  # and nothing can be imported, perhaps
        return TooManyFilesError(path)
    from pathlib import Path

    from outboxd import place

    directory = os.path.dirname(os.path.realpath(path))  # that of the file, not of a link to it
    if (fault := place.impossible(Path(path))) is not None:
        return NoOutboxError(fault.told, hint=fault.mend)
    is_open = os.access(directory, os.X_OK)
    if is_open and not os.path.exists(path):
        return NoOutboxError(f"there is no outbox at {path}", hint="create it with: outboxd migrate")
    if is_open and (fault := place.read_only(Path(directory))) is not None:
        return DatabaseError(fault.told, hint=fault.mend)
    if (fault := place.in_the_way(Path(path))) is not None:
        # Never by removing it: what is committed and not yet in the database stands in the log.
        return RightsError(fault.told, hint=fault.mend or None)
    told, hint = MEANINGS.get(kind, ("{path} cannot be used: {error}", ""))
    if kind in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) and place.is_full(directory):
        told, hint = NO_ROOM
    known = {"path": path, "directory": directory, "error": error, "seconds": f"{BUSY_TIMEOUT:g}"}
    return DatabaseError(told.format_map(known), hint=hint.format_map(known) or None)


def _may_open(files: int = 3) -> bool:
    """Whether this process may have so many more files open: a database, its log, and the index to that."""
    opened = []
    try:
        for _ in range(files):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return True


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection for one look; SQLite's errors become ours."""
    with closing(connect(path, read_only=True)) as connection, explained(path):
        yield connection


def identity(path: str | PathLike[str], *, follows: bool = True) -> tuple[int, int] | None:
    """Which file lies at `path`, whatever it holds; None if there is none. It is looked at, never opened.

    A link is that which it leads to, if one `follows` it.
    """
    try:
        found = os.stat(path, follow_symlinks=follows)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unusable(path, error) from error
    return found.st_dev, found.st_ino


def look_through(path: Path) -> None:
    """Raise DatabaseError unless the whole file at `path` is sound; of a large one that takes seconds."""
    with reading(path) as connection:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise DatabaseError(
            f"{path} is damaged ({found})", hint="put a sound one there: outboxd restore BACKUP"
        )


def revision(connection: sqlite3.Connection) -> str | None:
    """The schema revision of an open database, None where there is no outbox in it."""
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'outboxd_schema'").fetchone()
    row = known and connection.execute("SELECT version_num FROM outboxd_schema").fetchone()
    return str(row[0]) if row else None


def log(path: str | PathLike[str]) -> str:
    """Where the write-ahead log of the database at `path` is, if it has one.

    SQLite makes it beside the file itself, and `path` may be a link to that.
    """
    return f"{os.path.realpath(path)}-wal"


def sizes(path: Path) -> tuple[int, int]:
    """The bytes of the database file and of its write-ahead log."""
    try:
        size = path.stat().st_size
        with suppress(FileNotFoundError):  # whoever closed the file last has removed it
            return size, os.stat(log(path)).st_size
    except OSError as error:
        raise unusable(path, error) from error
    return size, 0


def check_revision(path: Path, found: str | None) -> None:
    """Raise SchemaError unless `found` is the schema this version works on."""
    if found == REVISIONS[-1]:
        return
    if found is None or found in REVISIONS:
        raise SchemaError(f"{path} has an older schema ({found or 'none'})", hint="run: outboxd migrate")
    raise SchemaError(
        f"{path} was made by a newer outboxd (schema {found}; this one knows up to {REVISIONS[-1]})",
        hint="upgrade outboxd on this host: pip install --upgrade outboxd",
    )


@contextmanager
def immediate(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction, committed in the end, or rolled back by what is raised in it.

    A deferred one that turns to writing fails at once with "database is locked", whatever the time-out.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def keep_log(path: Path, connection: sqlite3.Connection) -> None:
    """Have the file at `path` keep a write-ahead log from now on. Raises DatabaseError, and sqlite3.Error.

    For whoever has the turn: of two that switch one file at once SQLite lets the second one fail, at once.
    """
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":  # which is no error to a SQLite that was built without, or that shares no memory
        raise DatabaseError(
            f"this SQLite cannot keep a write-ahead log for {path}",
            hint="run outboxd with the Python of the operating system",
        )


def create(path: Path) -> None:
    """Make the empty file, ready for writers of its group, unless it exists."""
    from pathlib import Path

    path = Path(os.path.realpath(path))  # a link that leads nowhere is no file yet
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE)
    except FileExistsError:
        return
    except (FileNotFoundError, NotADirectoryError) as error:
        raise unusable(path, error) from error
    except OSError as error:
        raise unmade(path, error) from error
    try:
        if os.geteuid() == 0:  # made for the one who drains, as SQLite makes the files beside it
            directory = path.parent.stat()
            os.fchown(descriptor, directory.st_uid, directory.st_gid)
        os.fchmod(descriptor, FILE_MODE)  # whatever the umask of whoever came first
    finally:
        os.close(descriptor)


def unmade(path: Path, error: OSError) -> DatabaseError | RightsError:
    """What it means that the file at `path` cannot be made, with its mend."""
    from outboxd import place

    told = f"{path} cannot be created: {error.strerror}"
    if isinstance(error, PermissionError):
        return RightsError(told, hint=f"give this user write access to {path.parent}")
    mends = (fault.mend for fault in place.faults(path) if fault.what == "disk")
    return DatabaseError(told, hint=next(mends, None))


def migrate(path: Path) -> tuple[str | None, str]:
    """Bring the database at `path` to the current schema, making it if need be; (before, after).

    The whole upgrade is one transaction: a failing one leaves nothing behind, and of several started at
    once one works and the others find it done. Raises SchemaError for a database of a newer outboxd.
    """
    create(path)
    with turn(path):
        return _migrate(path)


def _migrate(path: Path) -> tuple[str | None, str]:
    with closing(connect(path)) as connection, explained(path):
        before = revision(connection)
        if before == REVISIONS[-1]:
            return before, before
        if before is not None:
            check_newer(path, before)
        if before is None and connection.execute(TAKEN).fetchone():
            raise DatabaseError(
                f"{path} has a table of its own under a name that outboxd needs (outbox, contacts, state, …)",
                hint="name a file of outboxd's own with `database:`",
            )
        # Properties of the file; the first two can only be set while it is empty.
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        keep_log(path, connection)
    upgrade(path)
    return before, REVISIONS[-1]


def check_newer(path: Path, found: str) -> None:
    """Raise SchemaError if `found` is a revision from the future."""
    if found not in REVISIONS:
        check_revision(path, found)


def upgrade(path: Path, to: str = "head") -> None:
    """Run the migrations that an existing file lacks, up to one of REVISIONS, in one transaction."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import DBAPIError

    script = Config()
    script.set_main_option("script_location", migrations())
    made = create_engine("sqlite://", creator=lambda: connect(path), poolclass=NullPool)
    try:
        with made.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            script.attributes["connection"] = connection
            command.upgrade(script, to)
    except DBAPIError as error:
        raise unusable(path, error.orig or error) from error


def migrations() -> str:
    """The migrations: inside the package when installed, beside it in a checkout."""
    package = os.path.dirname(os.path.abspath(__file__))
    inside = os.path.join(package, "migrations")
    return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(package), "migrations")
