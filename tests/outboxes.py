"""Outboxes as `outboxd migrate` leaves them, for the tests that begin with one."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from outboxd import database


def new_outbox(path: Path) -> Path:
    """An empty outbox at `path`, where nothing is yet.

    A copy of one that was migrated: to migrate it anew takes longer than most of what tests do with it.
    """
    assert not path.exists()
    database.create(path)
    path.write_bytes(_migrated())
    return path


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "outbox.db"
        database.migrate(path)
        return path.read_bytes()
