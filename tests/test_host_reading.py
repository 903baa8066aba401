"""What a delivery must know and the host does not read is the host's fault, and said as such."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import outboxd
from outboxd import database, locks, pool
from outboxd.brevo.sandbox import Sandbox
from outboxd.errors import DatabaseError
from tests.conftest import until
from tests.processes import Daemon, status, write_config
from tests.shop import Shop

ANN = {"email": "ann@example.com", "firstName": "Ann"}


class Page:
    """Where it stands who else has a contact: one page of the file, which a failing disk spoils."""

    def __init__(self, path: Path) -> None:
        self._path = path
        pool.close()  # closing the plain file would take the locks from what this process has open
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            found = "SELECT rootpage FROM sqlite_master WHERE name = 'contacts_synced_email'"
            [(number,)] = connection.execute(found).fetchall()
            [(self._size,)] = connection.execute("PRAGMA page_size").fetchall()
        self._place = (number - 1) * self._size
        with path.open("rb") as file:
            file.seek(self._place)
            self._content = file.read(self._size)

    def spoil(self) -> None:
        self._write(bytes(self._size))

    def heal(self) -> None:
        self._write(self._content)

    def _write(self, content: bytes) -> None:
        pool.close()
        with self._path.open("r+b") as file:
            file.seek(self._place)
            file.write(content)


SPOILED = "is not a sound SQLite database"


def shared(db: Path, until_idle: Callable[[], object]) -> None:
    """Two customers with one contact: what one says from now on, the other one may have said otherwise."""
    for customer_id in (1, 2):
        outboxd.enqueue("customer_created", {"id": customer_id, **ANN}, db=db)
        until_idle()


def test_a_failure_to_read_spends_no_attempt_and_is_told_until_it_is_over(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        config = write_config(tmp_path / "config.yaml", sandbox.url)
        db = tmp_path / "outbox.db"
        database.migrate(db)
        with Daemon(config) as daemon:
            shared(db, lambda: until(lambda: status(db)["pending"] == 0))
            page = Page(db)
            page.spoil()
            event = outboxd.enqueue("customer_updated", {"id": 1, "firstName": "Anne"}, db=db)
            daemon.says("stuck")
            assert SPOILED in daemon.words
            assert SPOILED in str(locks.word(db))
            page.heal()
            outboxd.enqueue("customer_created", {"id": 3, "email": "bob@example.com"}, db=db)  # it reads anew
            daemon.says("unstuck")
            until(lambda: status(db)["pending"] == 0)
            assert daemon.words.count(" stuck ") == 1
        with closing(sqlite3.connect(db)) as connection:
            made = "SELECT number, verdict FROM attempts WHERE event_id = ?"
            assert connection.execute(made, [event]).fetchall() == [(1, "delivered")]


def test_a_drain_that_cannot_read_says_so(shop: Shop) -> None:
    shared(shop.path, shop.drain)
    shop.close()
    Page(shop.path).spoil()
    outboxd.enqueue("customer_updated", {"id": 1, "firstName": "Anne"}, db=shop.path)
    shop.reopen()
    with pytest.raises(DatabaseError, match=SPOILED):
        shop.drain()
    assert shop.rows("SELECT status, attempts FROM outbox WHERE id = 3") == [("pending", 0)]
