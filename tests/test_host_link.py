"""The outbox is reached by a link: what lies beside the file itself counts, and the link may be changed."""

import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from outboxd import app, backup, clock, database, pool
from outboxd.brevo.sandbox import Sandbox
from outboxd.errors import NoOutboxError
from outboxd.outbox.pruning import Pruning
from outboxd.restore import restore
from tests.conftest import until
from tests.outboxes import new_outbox
from tests.processes import Daemon, write_config
from tests.shop import KEY, Clock, Shop
from tests.test_host_file import created, pending
from tests.users import DAEMON, SHOP, needs_users, shared_directory


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """To an outbox, which lies elsewhere."""
    (tmp_path / "real").mkdir()
    new_outbox(tmp_path / "real" / "outbox.db")
    made = tmp_path / "outbox.db"
    made.symlink_to("real/outbox.db")
    return made


@pytest.fixture
def looking(link: Path) -> Iterator[sqlite3.Connection]:
    """Another program that has the outbox open, so that its log stays."""
    with closing(sqlite3.connect(link)) as connection:
        connection.execute("SELECT count(*) FROM outbox").fetchone()
        yield connection


def log_of(link: Path) -> Path:
    return Path(f"{link.resolve()}-wal")


@pytest.mark.usefixtures("looking")
def test_nothing_of_a_person_is_left_in_the_log_of_a_linked_outbox(link: Path) -> None:
    with Sandbox() as sandbox, closing(Shop(link, sandbox, Clock())) as shop:
        shop.sent("created", id=7, email="ann.archer@example.com")
        assert b"ann.archer" in log_of(link).read_bytes()
        shop.later(seconds=1)
        with app.erasing(shop.settings, KEY, shop.clock) as eraser:
            assert eraser.erase("ann.archer@example.com").is_complete
        assert b"ann.archer" not in log_of(link).read_bytes()


@pytest.mark.usefixtures("looking")
def test_the_log_of_a_linked_outbox_is_measured_and_cut(link: Path) -> None:
    created(link, 1)
    size = log_of(link).stat().st_size
    assert size > 0
    assert database.sizes(link) == (link.stat().st_size, size)
    with closing(Pruning(link)) as pruning:
        assert pruning.cut_log(limit=0)
    assert database.sizes(link)[1] == log_of(link).stat().st_size == 0


def swing(link: Path, target: str) -> None:
    """Let it lead elsewhere, at once."""
    new = link.with_name("new")
    new.symlink_to(target)
    new.replace(link)


@pytest.mark.parametrize("of", ["file", "directory"])
def test_a_link_that_leads_elsewhere_while_a_daemon_runs_is_followed(tmp_path: Path, of: str) -> None:
    """As shops follow it, who would write for nobody otherwise."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        new_outbox(tmp_path / name / "outbox.db")
    (tmp_path / "here").mkdir()
    link, end = (tmp_path / "here/outbox.db", "/outbox.db") if of == "file" else (tmp_path / "data", "")
    link.symlink_to(f"{tmp_path}/one{end}")
    with Sandbox() as sandbox:
        directory = link.parent if of == "file" else link
        with Daemon(write_config(directory / "config.yaml", sandbox.url), said_to=tmp_path) as daemon:
            created(daemon.ready().database, 1)
            until(lambda: daemon.status()["delivered"] == 1)
            if of == "directory":
                write_config(tmp_path / "two/config.yaml", sandbox.url)
            swing(link, f"{tmp_path}/two{end}")
            created(daemon.database, 2)
            daemon.says(f"another file has taken the place of {daemon.database}")
            until(lambda: sandbox.contact("ann2@example.com"))
            until(lambda: daemon.status()["delivered"] == 1)


def test_an_outbox_that_is_moved_behind_a_link_while_a_daemon_runs_is_spoilt_by_nobody(
    tmp_path: Path,
) -> None:
    """It is the same file, with another log: that of the daemon does not fit any more."""
    new_outbox(tmp_path / "outbox.db")
    with Sandbox() as sandbox, Daemon(write_config(tmp_path / "config.yaml", sandbox.url)) as daemon:
        created(daemon.ready().database, 1)
        until(lambda: daemon.status()["delivered"] == 1)
        daemon.database.rename(tmp_path / "real.db")
        daemon.database.symlink_to("real.db")
        pool.close()  # another program of the shop's
        created(daemon.database, 2)
        daemon.says(f"another file has taken the place of {daemon.database}")
        until(lambda: sandbox.contact("ann2@example.com"))
        daemon.send(signal.SIGTERM)
        assert daemon.ended() == 0
    backup.check(tmp_path / "real.db")


def test_a_link_that_leads_nowhere_is_given_an_outbox_where_it_leads(tmp_path: Path) -> None:
    link = tmp_path / "outbox.db"
    link.symlink_to("real/outbox.db")
    with pytest.raises(NoOutboxError, match=f"the directory {tmp_path}/real does not exist") as told:
        database.migrate(link)
    assert (told.value.hint or "").endswith(f" {tmp_path}/real")
    (tmp_path / "real").mkdir()
    with pytest.raises(NoOutboxError, match=f"there is no outbox at {link}") as told:
        created(link, 1)
    assert told.value.hint == "create it with: outboxd migrate"
    database.migrate(link)
    assert created(link, 1) == 1
    pool.close()
    assert pending(tmp_path / "real/outbox.db") == [1]


LOCKED = """
import sys
from outboxd import OutboxdError, database, enqueue
database.BUSY_TIMEOUT = 0.1
try:
    enqueue("customer_created", {"id": 1}, db=sys.argv[1])
except OutboxdError as error:
    print(error)
"""


@needs_users
def test_who_may_not_write_where_the_link_is_is_not_told_so() -> None:
    """It is the file's own directory that must be open to them."""
    with shared_directory() as directory:
        database.migrate(directory / "outbox.db")
        link = directory.parent / "outbox.db"
        link.symlink_to(directory / "outbox.db")
        with closing(sqlite3.connect(link, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            told = SHOP.run(sys.executable, "-c", LOCKED, str(link), reads_all=True)
        assert told.stdout == f"{link} stayed locked by another program for 0.1 seconds\n", told.stderr


@needs_users
def test_what_root_makes_by_a_link_belongs_to_whom_the_files_directory_belongs() -> None:
    with shared_directory() as directory:
        link = directory.parent / "outbox.db"
        link.symlink_to(directory / "outbox.db")
        database.migrate(link)
        found = (directory / "outbox.db").stat()
        assert (found.st_uid, found.st_gid) == (DAEMON.number, DAEMON.number)


def test_a_damaged_outbox_behind_a_link_is_moved_itself_and_the_link_leads_to_the_restored_one(
    link: Path,
) -> None:
    saved = link.with_name("saved.db")
    created(link, 1)
    pool.close()
    backup.back_up(link, saved)
    real = link.resolve()
    real.write_bytes(b"no database any more" * 1000)
    restored = restore(saved, link, clock.wall(), who="a test", admit=lambda _: None, hold=False)
    assert os.readlink(link) == "real/outbox.db"
    assert restored.aside is not None
    assert restored.aside.parent == real.parent
    assert restored.aside.read_bytes().startswith(b"no database")
    assert not restored.aside.is_symlink()
    assert pending(link) == [1]
