"""Salvage: what is open here was removed from its place, and nobody but this process has it any more.

Once it is closed the kernel forgets it, with whatever was pending in there, so it is copied first.
"""

import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from pathlib import Path

from outboxd import database
from outboxd.backup import code, copy_of, is_damage, move_to_free, plain
from outboxd.errors import DatabaseError
from outboxd.logs import line, logger
from outboxd.outbox import Outbox
from outboxd.outbox.restoring import PENDING
from outboxd.part import making
from outboxd.trouble import AGAIN, Trouble


def salvage(outbox: Outbox, lost_at: datetime) -> Path:
    """Copy what `outbox` has open to a file beside its place. Raises DatabaseError and RightsError."""
    lost = outbox.path.with_name(f"{outbox.path.name}.lost-{lost_at:%Y%m%dT%H%M%SZ}")
    with ExitStack() as stack:
        try:
            origin = stack.enter_context(outbox.opened())  # at once, whether or not there is room for a copy
        except sqlite3.Error as error:
            raise DatabaseError(f"the log of {outbox.path} cannot be read or emptied ({error})") from error
        part = stack.enter_context(making(lost))
        try:
            copy_of(origin, part)
        except sqlite3.Error as error:  # the outbox itself may lie there no more
            raise database.unusable(outbox.path if is_damage(error) else part, error) from error
        pending = _pending(part)
        target = move_to_free(part, lost)
    logger.warning(line("salvaged", file=target, pending=pending, hint=_hint(outbox, target, pending)))
    return target


def _pending(copied: Path) -> int | None:
    """Counted, for the depth may be that of another state of a damaged file; None if that cannot be done."""
    with suppress(sqlite3.Error), closing(plain(copied)) as connection:
        return int(connection.execute(PENDING).fetchone()[0])
    return None


def _hint(outbox: Outbox, target: Path, pending: int | None) -> str | None:
    """What is to be done about what the copy has; nothing, where the outbox has it, too."""
    if outbox.is_log_lost:
        return "shops wrote without what is in there: send its customers again with outboxd backfill"
    if pending != 0 and not outbox.anchor.holds_file:
        return f"to have it back: outboxd restore {target}"
    return None


def leave(
    outbox: Outbox, clock: Callable[[], datetime], trouble: Trouble, wait: Callable[[float], bool]
) -> None:
    """Salvage what is open, if it is adrift, however long that takes; `wait` seconds, True to give it up."""
    lost_at = clock()  # once: under one name each reason is told once, however often this is tried
    while True:
        try:
            if not outbox.anchor.holds:
                salvage(outbox, lost_at)
            return
        except Exception as error:  # no room for a copy: it may mend
            trouble.tell(error)
            if is_damage(error) or code(error) == database.LOST_FRAMES or wait(AGAIN):
                return  # nothing will ever be made of what is damaged: nobody is to wait for it
