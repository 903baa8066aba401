"""Restore: a backup takes the place of the outbox, and nothing is lost, or sent again, behind anybody's back.

Nobody may drain meanwhile. Shops may write: the file stays the same one for them, its content is replaced in
one transaction, and all that they wrote before it is in the copy that is kept aside. What has to be mended in
a backup is `restoring`'s business.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from outboxd import database, locks
from outboxd.backup import (
    Advance,
    BackupError,
    check,
    copy,
    copy_of,
    copying,
    discard,
    free,
    part_of,
    plain,
    sync,
)
from outboxd.errors import EX_USAGE, HeldError, OutboxdError, SchemaError
from outboxd.outbox.restoring import Then, compare, prepare

PAGES = 2_000
"""Pages between two looks whether somebody has written."""


DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR)
"""What SQLite says of a file that it cannot make anything of."""


class UndecidedError(OutboxdError):
    """The backup has pending events, and nobody has said what is to become of them."""

    exit_code = EX_USAGE


@dataclass(frozen=True, slots=True)
class Restored:
    """What the backup had that the outbox has not, and where that is kept now; None if there was none."""

    then: Then
    aside: Path | None


class _ErasedError(Exception):
    """Somebody was erased after the backup had been made fit."""


class _Kept:
    """The copy at `path` that is kept of the outbox, whole and on the disk, made while shops write."""

    def __init__(self, path: Path, outbox: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._outbox = outbox
        self._connection = connection
        self._is_last = False
        self._copy()

    def complete(self) -> bool:
        """Once nobody else can write: copy it anew if somebody did since; whether that was so."""
        has_changed = self._look() != self._version
        self._is_last = True
        if has_changed:
            self._copy()
        return has_changed

    def is_replaced(self) -> bool:
        """Whether the outbox is another one by now, so that what stood there is here alone."""
        return self._is_last and self._look() != self._version

    def _copy(self) -> None:
        self._version = self._look()
        part = part_of(self.path)  # what has the name of a copy is whole
        try:
            with copying(self._outbox, part):
                copy_of(self._connection, part)
            if not self._is_last:
                check(part)
            part.replace(self.path)
            sync(self.path.parent)
        finally:
            discard(part)

    def _look(self) -> int:
        with database.explained(self._outbox):
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])


def restore(
    backup: Path,
    outbox: Path,
    now: datetime,
    *,
    who: str,
    hold: bool | None = None,
    advance: Advance = lambda _d, _a: None,
) -> Restored:
    """Put the content of `backup` into `outbox`, of which a copy is kept beside it.

    `hold`: whether the backup's pending events become dead letters, to be retried by hand, or are sent.
    Raises UndecidedError if there are any and it is None, HeldError with who drains, BackupError and
    SchemaError.
    """
    if backup.exists() and outbox.exists() and backup.samefile(outbox):
        raise BackupError(f"{backup} is the outbox itself", hint="name a file made by: outboxd backup")
    check(backup)
    outbox = Path(os.path.realpath(outbox))  # the file itself, and what lies beside it, not a link to it
    part = part_of(outbox)
    aside = free(outbox.with_name(f"{outbox.name}.before-{now:%Y%m%dT%H%M%SZ}"))
    with _alone(outbox, who), ExitStack() as stack:
        stack.callback(discard, part)
        while (restored := _try(backup, outbox, part, aside, now, hold, advance)) is None:
            pass
    return restored


def _try(
    backup: Path, outbox: Path, part: Path, aside: Path, now: datetime, hold: bool | None, advance: Advance
) -> Restored | None:
    """One try; None if somebody was erased meanwhile."""
    with ExitStack() as stack:
        kept = _kept(stack, outbox, aside)
        if kept is not None:
            stack.enter_context(_undone(lambda: discard(aside), unless=kept.is_replaced))
        copy(backup, part, advance)
        database.migrate(part)
        with closing(plain(part)) as made, database.explained(part):
            then = compare(made, aside if kept else None)
            if then.pending and hold is None:
                raise _undecided(backup, then)
            prepare(made, then, now, hold=hold is True)
        if kept is None:
            _move(outbox, aside)
            stack.enter_context(_undone(lambda: _move(aside, outbox), unless=lambda: _is_filled(outbox)))
            database.create(outbox)
        try:
            then = _replace(part, outbox, kept, then, now)
        except _ErasedError:
            return None
    return Restored(then, aside if aside.exists() else None)


@contextmanager
def _undone(undo: Callable[[], None], *, unless: Callable[[], bool]) -> Iterator[None]:
    """If it breaks off, do `undo`, unless the outbox is another one by now: what stood there is aside."""
    try:
        yield
    except BaseException:
        if not unless():
            undo()
        raise


def _kept(stack: ExitStack, outbox: Path, aside: Path) -> _Kept | None:
    """Keep a copy of the outbox; None if it is missing or damaged."""
    if not outbox.exists():
        return None
    try:
        connection = stack.enter_context(closing(database.connect(outbox, read_only=True)))
        return _Kept(aside, outbox, connection)
    except OutboxdError as error:
        if not _is_beyond_reading(error):
            raise
        return None


def _is_beyond_reading(error: OutboxdError) -> bool:
    """Whether it is the outbox that is at fault: no outbox, damaged, or of a newer version than this."""
    code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, BackupError | SchemaError) or code in DAMAGED


def _move(outbox: Path, aside: Path) -> None:
    """Move a damaged outbox out of the way as it is, with its log; or back, if nothing came of it."""
    for suffix in ("", "-wal", "-shm"):
        file, place = outbox.with_name(outbox.name + suffix), aside.with_name(aside.name + suffix)
        place.unlink(missing_ok=True)
        if file.exists():
            file.rename(place)


def _replace(part: Path, outbox: Path, kept: _Kept | None, then: Then, now: datetime) -> Then:
    """Replace the content of the outbox in one transaction; what lies between the two, to the last event."""
    with closing(plain(part)) as made, closing(database.connect(outbox)) as live:

        def look(status: int, left: int, _pages: int) -> None:
            # The first step takes the lock, and the last one gives it back: in between nobody writes. What
            # this connection changes in the backup meanwhile, SQLite changes in what it has copied, too.
            nonlocal then
            has_lock = status == sqlite3.SQLITE_OK and left
            if has_lock and kept is not None and kept.complete():
                since = compare(made, kept.path)
                if since.erased:
                    raise _ErasedError
                prepare(made, since, now, hold=False)  # what it had pending has been seen to
                then = then.followed_by(since)

        with database.explained(outbox), locks.turn(outbox):
            _align(made, live)
            (pages,) = made.execute("PRAGMA page_count").fetchone()
            database.keep_log(outbox, live)  # of a new file; it stays so from the start
            made.backup(live, pages=max(1, min(PAGES, pages - 1)), progress=look)
        with suppress(sqlite3.Error):  # there may be no room for both; the log is cut later, then
            live.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return then


def _is_filled(outbox: Path) -> bool:
    """Whether the content is in the new file already."""
    with suppress(OutboxdError, sqlite3.Error), database.reading(outbox) as connection:
        return database.revision(connection) is not None
    return False


def _align(made: sqlite3.Connection, live: sqlite3.Connection) -> None:
    """Give both one page size, or SQLite copies nothing: an outbox keeps its own, a new file has none."""
    (size,) = made.execute("PRAGMA page_size").fetchone()
    live.execute(f"PRAGMA page_size = {int(size)}")
    (kept,) = live.execute("PRAGMA page_size").fetchone()
    if kept != size:
        made.execute("PRAGMA journal_mode = DELETE").fetchone()  # or it would keep its own as well
        made.execute(f"PRAGMA page_size = {int(kept)}")
        made.execute("VACUUM")


@contextmanager
def _alone(outbox: Path, who: str) -> Iterator[None]:
    hint = "stop it first: sudo systemctl stop outboxd"
    try:
        with locks.drainer(outbox, who=who, shared=False) as held:
            if not held.is_alone:
                raise HeldError(f"{outbox} is drained by another process")
            yield
    except HeldError as error:
        raise HeldError(str(error), hint=hint) from error


def _undecided(backup: Path, then: Then) -> UndecidedError:
    known = f" ({then.delivered:,} of them surely)" if then.delivered else ""
    return UndecidedError(
        f"{then.pending:,} events are pending in {backup} that may have been delivered since{known}",
        hint="say --hold to make dead letters of them, to look at and retry; or --resend to send them all",
    )
