"""Restore: a backup takes the place of the outbox, and nothing is lost, or sent again, behind anybody's back.

Nobody may drain meanwhile. Shops may write: the file stays the same one for them, its content is replaced in
one transaction, and all that they wrote before it is in the copy that is kept aside. What has to be mended in
a backup is `restoring`'s business.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from outboxd import database, locks, place
from outboxd.backup import (
    Advance,
    BackupError,
    DamagedError,
    check,
    copy,
    copy_of,
    copying,
    database_files,
    free,
    plain,
    schema,
)
from outboxd.errors import EX_USAGE, HeldError, NoOutboxError, OutboxdError
from outboxd.outbox.restoring import Then, compare, prepare
from outboxd.part import discard, making, sync

PAGES = 2_000
"""Pages between two looks whether somebody has written."""

Make = Callable[[Path | None], Then]
"""Makes of the backup what is to stand in the outbox, whose present state, as far as it is known, is here."""


class UndecidedError(OutboxdError):
    """The backup has pending events, and nobody has said what is to become of them."""

    exit_code = EX_USAGE


@dataclass(frozen=True, slots=True)
class Restored:
    """What the backup had that the outbox has not, and where that is kept now; None if there was none.

    `was_moved`: it is the file itself, for it was damaged, and not a copy.
    """

    then: Then
    aside: Path | None
    was_moved: bool = False


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
        with making(self.path) as part:  # what has the name of a copy is whole
            with copying(self._outbox, part):
                copy_of(self._connection, part)
            part.replace(self.path)
            sync(self.path.parent)

    def _look(self) -> int:
        with database.explained(self._outbox):
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])


def restore(
    backup: Path,
    outbox: Path,
    now: datetime,
    *,
    who: str,
    admit: Callable[[Path], None],
    hold: bool | None = None,
    advance: Advance = lambda _d, _a: None,
) -> Restored:
    """Put the content of `backup` into `outbox`, of which a copy is kept beside it.

    `hold`: whether the backup's pending events become dead letters, to be retried by hand, or are sent.
    `admit` finds out whose the new events are in the outbox at a path, of which nobody else knows.
    Raises UndecidedError if there are pending events and `hold` is None, HeldError with who drains,
    BackupError and SchemaError; and, unless it is damaged, whatever keeps the outbox from being read.
    """
    if place.is_among(backup, [outbox]):
        raise BackupError(f"{backup} is the outbox itself", hint="name a file made by: outboxd backup")
    check(backup)
    outbox = Path(os.path.realpath(outbox))  # the file itself, and what lies beside it, not a link to it
    if (fault := place.impossible(outbox)) is not None:
        raise NoOutboxError(fault.told, hint=fault.mend)
    aside = free(outbox.with_name(f"{outbox.name}.before-{now:%Y%m%dT%H%M%SZ}"))
    with _alone(outbox, who), making(outbox) as part:
        is_sound, is_known = _seen(outbox)
        if hold is None:
            _expect_nothing_pending(backup, outbox if is_known else None)
        make = partial(_make, backup, part, admit, advance, now, hold is True)
        if not is_sound:
            return _instead(outbox, aside, part, make)
        present = aside if is_known else None
        while (restored := _over(outbox, aside, part, make, now, present)) is None:
            pass
        return restored


def _seen(outbox: Path) -> tuple[bool, bool]:
    """Whether a sound database lies at `outbox`, and one whose events and persons this version can tell."""
    if not outbox.exists():
        return False, False
    try:
        return True, schema(outbox) in database.REVISIONS
    except DamagedError:
        return False, False


def _expect_nothing_pending(backup: Path, present: Path | None) -> None:
    with database.reading(backup) as connection:
        then = compare(connection, present)
    if then.pending:
        raise _undecided(backup, then)


def _make(
    backup: Path,
    part: Path,
    admit: Callable[[Path], None],
    advance: Advance,
    now: datetime,
    hold: bool,
    present: Path | None,
) -> Then:
    """Make the file `part` of the backup: see `Make`."""
    copy(backup, part, advance)
    database.migrate(part)
    with closing(plain(part)) as made, database.explained(part):
        then = compare(made, present)
        if then.erased:
            admit(part)  # an event that nobody had admitted yet may be theirs
        return replace(then, pending=prepare(made, then, now, hold=hold))


def _instead(outbox: Path, aside: Path, part: Path, make: Make) -> Restored:
    """In place of a missing or a damaged outbox, which is moved aside as it is."""
    then = make(None)
    with closing(plain(part)) as made, database.explained(part):
        made.execute("PRAGMA journal_mode = DELETE").fetchone()  # all of it is in the file, …
        database.keep_log(part, made)  # … which begins a new log
    sync(part)
    with locks.turn(outbox):
        _move(outbox, aside)
        part.replace(outbox)
        sync(outbox.parent)
    return Restored(then, aside if aside.exists() else None, was_moved=True)


def _move(outbox: Path, aside: Path) -> None:
    """Nobody may find the log without its file: SQLite removes one that lies beside another, or reads it."""
    names = zip(database_files(outbox), database_files(aside), strict=True)
    moves = [(file, target) for file, target in names if file.exists()]
    try:
        for file, target in moves:
            os.link(file, target)
    except OSError:  # a file system without links: at least the log is never there alone
        for file, target in moves:
            target.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                file.rename(target)
    else:
        for file, _ in reversed(moves):
            file.unlink(missing_ok=True)


def _over(
    outbox: Path, aside: Path, part: Path, make: Make, now: datetime, present: Path | None
) -> Restored | None:
    """Over a sound one, which stays the same file; None if somebody was erased meanwhile."""
    with closing(database.connect(outbox, read_only=True)) as watch:
        kept = _Kept(aside, outbox, watch)
        try:
            then = _replace(part, outbox, kept, present, make(present), now)
        except BaseException as error:
            if not kept.is_replaced():
                discard(aside)
            if isinstance(error, _ErasedError):
                return None
            raise
    return Restored(then, aside)


def _replace(part: Path, outbox: Path, kept: _Kept, present: Path | None, then: Then, now: datetime) -> Then:
    """Replace the content of the outbox in one transaction; what lies between the two, to the last event."""
    with closing(plain(part)) as made, closing(database.connect(outbox)) as live:

        def look(status: int, left: int, _pages: int) -> None:
            # The first step takes the lock, and the last one gives it back: in between nobody writes. What
            # this connection changes in the backup meanwhile, SQLite changes in what it has copied, too.
            nonlocal then
            if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):  # for the whole time-out, already
                locked = sqlite3.OperationalError("database is locked")
                locked.sqlite_errorcode = status
                raise locked
            if status == sqlite3.SQLITE_OK and left and kept.complete():
                since = compare(made, present)
                if since.erased:
                    raise _ErasedError
                prepare(made, since, now, hold=False)  # what it had pending has been seen to
                then = then.followed_by(since)

        with database.explained(outbox), locks.turn(outbox):
            _align(made, live)
            (pages,) = made.execute("PRAGMA page_count").fetchone()
            database.keep_log(outbox, live)
            made.backup(live, pages=max(1, min(PAGES, pages - 1)), progress=look)
        with suppress(sqlite3.Error):  # there may be no room for both; the log is cut later, then
            live.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return then


def _align(made: sqlite3.Connection, live: sqlite3.Connection) -> None:
    """Give both one page size, or SQLite copies nothing: an outbox keeps its own, an empty file has none."""
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
        f"pending in {backup}, and perhaps delivered since: {then.pending:,}{known}",
        hint="say --hold to make dead letters of them, to look at and retry; or --resend to send them all",
    )
