"""A backup is one whole state of the outbox; a restore loses nothing and sends nothing again unasked."""

import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import outboxd
from outboxd import app, clock, config, database, intake, place
from outboxd import restore as restoring
from outboxd.backup import BackupError, back_up, copy, copy_of, move_to_free
from outboxd.errors import DatabaseError, HeldError, NoOutboxError, OutboxdError, SchemaError
from outboxd.locks import drainer
from outboxd.part import making
from outboxd.restore import Restored, UndecidedError
from tests.conftest import until
from tests.processes import Daemon, write_config
from tests.shop import KEY, MakeShop, Shop
from tests.test_cli import exit_code, run
from tests.test_erase import ANN, BODY, PHONE, assert_gone
from tests.test_metrics import bring_to
from tests.test_schema import assert_depth_is_right
from tests.users import needs_mounts, needs_users


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tmp_path / "saved.db"


def restore(saved: Path, outbox: Path, now: datetime, **options: Any) -> Restored:
    """Restore `saved`, whose events are read as by the least configuration."""
    settings = config.from_mapping({"database": str(outbox), "skills": {"customer-sync": {}}}, "test")
    admit = partial(app.admit, settings, now=now)
    return restoring.restore(saved, outbox, now, **{"who": "a test", "admit": admit, **options})


def back(shop: Shop, saved: Path, *, hold: bool | None = None) -> Restored:
    """Restore `saved`, and drain from it from now on."""
    shop.close()
    restored = restore(saved, shop.path, shop.clock(), hold=hold)
    shop.reopen()
    return restored


def rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_a_backup_is_complete_checked_and_one_file(shop: Shop, saved: Path) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    shop.enqueue("created", id=2, email="tom@example.com")
    size = back_up(shop.path, saved)
    assert size == saved.stat().st_size
    assert rows(saved, "SELECT id, status FROM outbox") == [(1, "delivered"), (2, "pending")]
    assert rows(saved, "PRAGMA integrity_check") == [("ok",)]
    assert sorted(file.name for file in saved.parent.glob("*saved*")) == ["saved.db"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_backup_is_its_groups_and_nobody_elses(db: Path, saved: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        back_up(db, saved)
    finally:
        os.umask(before)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o660
    assert saved.stat().st_gid == saved.parent.stat().st_gid


def test_a_backup_is_one_state_while_others_write(db: Path, saved: Path) -> None:
    """Each transaction writes two events: no state holds an odd number of them."""
    pair = [intake.checked("customer_updated", {"id": 5, "notes": "x" * 4000})] * 2
    for _ in range(20):
        intake.write(db, pair)
    told: list[int] = []

    def advance(done: int, pages: int) -> None:
        told.append(done)
        intake.write(db, pair)

    back_up(db, saved, advance=advance)
    assert told
    assert rows(saved, "SELECT count(*) FROM outbox") == [(40,)]


def test_nothing_is_overwritten_unasked_and_the_outbox_itself_never(db: Path, saved: Path) -> None:
    back_up(db, saved)
    with pytest.raises(BackupError, match="is there already"):
        back_up(db, saved)
    back_up(db, saved, force=True)
    for force in (False, True):
        for own in place.files(db):
            with pytest.raises(BackupError, match="the outbox itself"):
                back_up(db, own, force=force)
    key = db.with_name("key")
    key.write_text("xkeysib-a")
    with pytest.raises(BackupError, match="is needed"):
        back_up(db, key, force=True, needed=[key])
    other = db.with_name("other.db")
    database.migrate(other)
    with closing(database.connect(other)) as connection:
        connection.execute("SELECT * FROM outbox").fetchall()
        with pytest.raises(BackupError, match="in use"):
            back_up(db, other, force=True)


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path, db: Path) -> None:
    with pytest.raises(NoOutboxError):
        back_up(tmp_path / "missing.db", tmp_path / "saved.db")
    with pytest.raises(NoOutboxError):
        back_up(db, tmp_path / "no" / "saved.db")
    assert [file.name for file in tmp_path.iterdir() if "saved" in file.name] == []


def test_what_is_restored_is_what_was_saved_and_what_was_there_is_kept(shop: Shop, saved: Path) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    back_up(shop.path, saved)
    shop.sent("created", id=2, email="tom@example.com")
    shop.enqueue("created", id=3, email="ida@example.com")
    restored = back(shop, saved)
    assert (restored.then.pending, restored.then.lost, restored.then.undelivered) == (0, 2, 1)
    assert shop.rows("SELECT id FROM outbox") == [(1,)]
    assert restored.aside is not None
    assert rows(restored.aside, "SELECT id FROM outbox") == [(1,), (2,), (3,)]
    assert stat.S_IMODE(shop.path.stat().st_mode) == stat.S_IMODE(restored.aside.stat().st_mode) == 0o660
    assert shop.rows("PRAGMA journal_mode") == [("wal",)]


def test_what_may_have_been_delivered_since_is_not_sent_unless_somebody_says_so(
    shop: Shop, saved: Path
) -> None:
    waiting = shop.enqueue("created", id=1, email="mara@example.com")
    back_up(shop.path, saved)
    shop.drain()
    calls = len(shop.calls)
    shop.close()
    told: list[int] = []
    with pytest.raises(UndecidedError, match=r"^pending in .*: 1 \(1 of them surely\)$") as caught:
        restore(saved, shop.path, shop.clock(), advance=lambda done, _: told.append(done))
    assert told == [], "it is asked before anything is copied"
    assert "--hold" in (caught.value.hint or "")
    shop.reopen()
    assert shop.event(waiting)["status"] == "delivered"
    assert list(shop.path.parent.glob("*before*")) == []
    back(shop, saved, hold=True)
    shop.drain()
    held = shop.event(waiting)
    assert (held["status"], len(shop.calls)) == ("dead", calls)
    assert held["last_error"] == "restored from a backup: it may have been delivered since"
    with closing(app.outbox(shop.settings)) as outbox:
        outbox.revive([waiting], shop.clock())
    shop.drain()
    assert shop.event(waiting)["status"] == "delivered"


def test_all_of_it_is_sent_again_where_that_is_wanted(shop: Shop, saved: Path) -> None:
    waiting = shop.enqueue("created", id=1, email="mara@example.com")
    back_up(shop.path, saved)
    shop.drain()
    back(shop, saved, hold=False)
    assert shop.status()["pending"] == 1
    shop.drain()
    assert shop.event(waiting)["status"] == "delivered"


def test_no_id_is_given_out_twice_and_the_depth_is_right(shop: Shop, saved: Path) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    back_up(shop.path, saved)
    lost = outboxd.enqueue("customer_created", {"id": 2}, db=shop.path, idempotency_key="order-2")
    back(shop, saved)
    with closing(sqlite3.connect(shop.path)) as connection:
        assert_depth_is_right(connection)
    again = outboxd.enqueue("customer_created", {"id": 2}, db=shop.path, idempotency_key="order-2")
    assert again > lost
    assert shop.status()["pending"] == 1


def erase_ann(shop: Shop) -> None:
    with app.erasing(shop.settings, KEY, shop.clock) as eraser:
        shop.later(seconds=1)
        eraser.erase(ANN)


def test_who_was_erased_since_stays_erased(shop: Shop, saved: Path) -> None:
    shop.sent("created", id=7, **BODY)
    shop.sent("created", id=8, email="bob@example.com")
    back_up(shop.path, saved)
    erase_ann(shop)
    restored = back(shop, saved)
    assert restored.then.erased == 1
    assert shop.rows("SELECT count(*) FROM outbox WHERE customer_key = 'custom:8'") == [(1,)]
    shop.later(minutes=1)
    late = shop.sent("updated", id=7, **BODY)
    assert late["attempts_made"][0]["verdict"] == "superseded"
    assert_gone(shop)


def test_of_who_was_erased_and_registered_again_since_the_new_life_alone_is_known(
    shop: Shop, saved: Path
) -> None:
    shop.sent("created", id=7, **BODY)
    back_up(shop.path, saved)
    erase_ann(shop)
    shop.later(seconds=1)
    shop.sent("created", id=7, email=ANN, firstName="Anna")
    assert back(shop, saved).then.erased == 1
    shop.later(seconds=1)
    shop.sent("updated", id=7, lastName="Baker")
    assert shop.contact(ANN)["attributes"] == {"FIRSTNAME": "Anna", "LASTNAME": "Baker"}
    assert_gone(shop, "Annabel", PHONE)


@pytest.mark.parametrize("behavior", ["soft", "hard"])
def test_of_who_was_erased_and_came_and_left_again_since_no_former_life_comes_back(
    make_shop: MakeShop, saved: Path, behavior: str
) -> None:
    shop = make_shop(options={"delete_behavior": behavior})
    shop.sent("created", id=7, **BODY)
    shop.sent("created", id=8, email="bob@example.com")
    back_up(shop.path, saved)
    erase_ann(shop)
    shop.later(seconds=1)
    shop.sent("created", id=7, email="anna@example.com")
    shop.later(seconds=1)
    for customer in (7, 8):
        shop.sent("deleted", id=customer)
    assert back(shop, saved).then.erased == 1
    assert shop.rows("SELECT customer_key FROM outbox") == [("custom:8",)]
    assert_gone(shop)


def test_a_redaction_that_is_older_than_the_deletion_before_it_is_one(shop: Shop, saved: Path) -> None:
    shop.sent("created", id=7, **BODY)
    shop.later(minutes=1)
    before = clock.to_text(shop.clock())
    shop.later(minutes=1)
    shop.sent("deleted", id=7)
    back_up(shop.path, saved)
    shop.insert("customer_redacted", {"id": 7, "updatedAt": before})
    shop.drain()
    shop.later(minutes=1)
    shop.sent("created", id=7, email="anna@example.com")
    assert back(shop, saved).then.erased == 1
    assert_gone(shop)


@pytest.mark.parametrize("was_pending", [False, True], ids=["written since", "pending in the backup"])
def test_where_what_happened_since_was_pruned_whoever_left_since_counts_as_erased(
    shop: Shop, saved: Path, was_pending: bool
) -> None:
    """Nothing tells of the erasure any more, and of those who were only deleted less comes than could."""
    shop.sent("created", id=7, **BODY)
    for customer, email in ((8, "bob@example.com"), (9, "cid@example.com")):
        shop.sent("created", id=customer, email=email)
    if was_pending:
        shop.enqueue("redacted", id=7)
        back_up(shop.path, saved)
        shop.drain()
    else:
        back_up(shop.path, saved)
        shop.sent("redacted", id=7)
    shop.later(days=31)
    shop.drain()
    shop.sent("created", id=7, email="anna@example.com")
    shop.later(seconds=1)
    for customer in (7, 8):
        shop.sent("deleted", id=customer)
    assert back(shop, saved, hold=True).then.erased == 2
    assert shop.rows("SELECT DISTINCT customer_key FROM outbox") == [("custom:9",)]
    assert_gone(shop)


@pytest.mark.parametrize("hold", [True, False])
def test_a_second_life_that_was_erased_since_does_not_come_back_from_a_backup_of_its_beginning(
    shop: Shop, saved: Path, hold: bool
) -> None:
    """They were erased in the backup already, and registered again, which nobody had delivered yet."""
    for _ in "two", "lives":
        shop.enqueue("created", id=7, **BODY)
        back_up(shop.path, saved, force=True)
        shop.drain()
        erase_ann(shop)
        shop.later(seconds=1)
    restored = back(shop, saved, hold=hold)
    assert (restored.then.erased, restored.then.pending) == (1, 0)
    shop.drain()
    assert shop.sandbox.contacts == []
    assert_gone(shop)


@pytest.mark.parametrize("hold", [True, False])
def test_who_was_erased_since_stays_erased_if_nobody_knew_yet_whose_the_event_was(
    shop: Shop, saved: Path, hold: bool
) -> None:
    """The backup was made before the daemon had looked at it."""
    shop.enqueue("created", id=7, **BODY)
    others = shop.enqueue("created", id=8, email="bob@example.com")
    back_up(shop.path, saved)
    shop.drain()
    erase_ann(shop)
    restored = back(shop, saved, hold=hold)
    assert (restored.then.erased, restored.then.pending) == (1, 1)
    assert shop.rows("SELECT id, status FROM outbox") == [(others, "dead" if hold else "pending")]
    with closing(sqlite3.connect(shop.path)) as connection:
        assert_depth_is_right(connection)
    shop.drain()
    assert_gone(shop)


@pytest.mark.parametrize("is_old", [False, True], ids=["current", "not yet upgraded"])
def test_who_was_erased_since_is_kept_apart_from_others_at_the_address(
    shop: Shop, saved: Path, is_old: bool
) -> None:
    """What was written of a guest goes with the one who turned out to be them; late news comes to nothing."""
    shop.sent("created", email=ANN, firstName="Annabel")
    shop.sent("created", id=8, email="bob@example.com")
    back_up(shop.path, saved)
    shop.sent("updated", id=7, firstName="Annabel")
    shop.later(seconds=1)
    shop.sent("updated", id=7, email=ANN)
    shop.later(seconds=1)
    shop.sent("redacted", id=7)
    if is_old:
        with closing(sqlite3.connect(shop.path)) as connection, connection:
            for column in ("out_at", "is_heir"):
                connection.execute(f"ALTER TABLE addresses DROP COLUMN {column}")
    assert back(shop, saved).then.erased == 1
    assert shop.rows("SELECT customer_key FROM outbox") == [("custom:8",)]
    shop.later(minutes=1)
    assert shop.sent("updated", email=ANN)["attempts_made"][0]["verdict"] == "superseded"
    assert [contact["email"] for contact in shop.sandbox.contacts] == ["bob@example.com"]


def test_a_shop_that_never_stops_writing_does_not_hold_up_a_restore(shop: Shop, saved: Path) -> None:
    """And each event is where the restore left off: in the copy that is kept, or in the outbox.

    Somebody was redacted since, which is seen to once.
    """
    shop.sent("created", id=7, **BODY)
    shop.enqueue("created", id=1, email="mara@example.com", note="x" * 200_000)
    back_up(shop.path, saved)
    shop.later(seconds=1)
    shop.sent("redacted", id=7)
    shop.close()
    written: list[int] = []
    is_restored = threading.Event()

    def write() -> None:
        while not is_restored.is_set():
            written.append(shop.insert("customer_created", {"id": 5, "email": "late@example.com"}))

    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write)
        restored = restore(saved, shop.path, clock.wall(), hold=True)
        until(lambda: shop.rows("SELECT max(id) FROM outbox") != [(2,)])
        is_restored.set()
        writing.result()
    assert restored.aside is not None
    kept = [number for (number,) in rows(restored.aside, "SELECT id FROM outbox WHERE id > 3")]
    after = [number for (number,) in shop.rows("SELECT id FROM outbox WHERE id > 3")]
    assert kept + after == written
    assert (restored.then.lost, restored.then.undelivered) == (len(kept) + 1, len(kept))
    with closing(sqlite3.connect(shop.path)) as connection:
        assert_depth_is_right(connection)


def test_what_is_written_during_a_restore_is_in_the_copy_and_gives_its_id_to_nobody(
    shop: Shop, saved: Path
) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    back_up(shop.path, saved)
    shop.close()
    wrote: list[int] = []

    def advance(done: int, pages: int) -> None:
        if not wrote:
            wrote.append(shop.insert("customer_created", {"id": 5, "email": "late@example.com"}))

    restored = restore(saved, shop.path, clock.wall(), advance=advance)
    assert restored.aside is not None
    assert rows(restored.aside, "SELECT id FROM outbox") == [(1,), (2,)]
    assert (restored.then.lost, restored.then.undelivered) == (1, 1)
    assert shop.insert("customer_created", {"id": 6}) == 3


def test_who_is_erased_during_a_restore_stays_erased(shop: Shop, saved: Path) -> None:
    shop.sent("created", id=7, **BODY)
    back_up(shop.path, saved)
    shop.close()
    erased: list[int] = []

    def advance(done: int, pages: int) -> None:
        if not erased:
            with app.erasing(shop.settings, KEY, shop.clock) as eraser:
                shop.later(seconds=1)
                eraser.erase(ANN)
            erased.append(7)

    restored = restore(saved, shop.path, shop.clock(), advance=advance)
    assert restored.then.erased == 1
    shop.reopen()
    assert_gone(shop)


def test_a_program_that_has_the_outbox_open_goes_on_writing_to_it(shop: Shop, saved: Path) -> None:
    back_up(shop.path, saved)
    with closing(sqlite3.connect(shop.path)) as connection:
        connection.execute("SELECT count(*) FROM outbox").fetchall()
        back(shop, saved)
        with connection:
            connection.execute(
                "INSERT INTO outbox (event, payload) VALUES ('customer_created', '{\"id\": 5}')"
            )
    assert shop.status()["pending"] == 1


def test_a_lost_or_a_damaged_outbox_is_restored(shop: Shop, saved: Path) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    back_up(shop.path, saved)
    shop.close()
    shop.path.write_bytes(b"no database any more" * 1000)
    restored = restore(saved, shop.path, clock.wall())
    assert restored.aside is not None
    assert restored.aside.read_bytes().startswith(b"no database")
    shop.path.unlink()
    restored = restore(saved, shop.path, clock.wall())
    assert (restored.aside, restored.then.lost) == (None, None)
    assert shop.rows("SELECT id FROM outbox") == [(1,)]
    assert stat.S_IMODE(shop.path.stat().st_mode) == 0o660
    assert shop.reopen().sent("updated", id=1, email="mara@example.com")["status"] == "delivered"


@pytest.mark.parametrize("content", [b"", b"not a database" * 500, None])
def test_what_is_no_sound_backup_is_refused_and_the_outbox_left(
    shop: Shop, saved: Path, content: bytes | None
) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    if content is None:
        copy(shop.path, saved)
        damaged = bytearray(saved.read_bytes())
        damaged[8192 : 8192 + 30_000] = b"\xff" * 30_000
        saved.write_bytes(damaged)
    else:
        saved.write_bytes(content)
    with pytest.raises(OutboxdError) as caught:
        back(shop, saved)
    assert caught.value.exit_code == 65
    assert shop.rows("SELECT id FROM outbox") == [(1,)]


def test_the_outbox_is_no_backup_of_itself_and_a_missing_file_is_none(shop: Shop, saved: Path) -> None:
    waiting = shop.enqueue("created", id=1, email="mara@example.com")
    with pytest.raises(BackupError, match="is the outbox itself"):
        back(shop, shop.path, hold=True)
    with pytest.raises(NoOutboxError, match="No such file") as caught:
        back(shop, saved, hold=True)
    assert caught.value.exit_code == 66
    assert shop.rows("SELECT id, status FROM outbox") == [(waiting, "pending")]


def test_a_path_where_no_file_can_lie_is_told_by_its_name(shop: Shop, saved: Path) -> None:
    long = saved.with_name("x" * 300)
    with pytest.raises(DatabaseError, match=f"^{long} cannot be created: File name too long"):
        back_up(shop.path, long)
    with pytest.raises(NoOutboxError, match=f"^{long} cannot be read: File name too long"):
        back(shop, long)


CLOSED = """
import os, sys
from pathlib import Path
from outboxd import clock, errors, place
from outboxd.backup import back_up
from outboxd.restore import restore
outbox, closed = map(Path, sys.argv[1:])
os.setgroups([])
os.setuid(65534)
for attempt in (
    lambda: back_up(outbox, closed),
    lambda: restore(closed, outbox, clock.wall(), who="a test", admit=None),
):
    try:
        attempt()
    except errors.OutboxdError as error:
        print(error)
"""
"""As somebody who may not look where the backup is; what is to be imported is read before."""


@needs_users
def test_a_backup_where_this_user_may_not_look_is_told_by_its_name(tmp_path: Path, db: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    tmp_path.chmod(0o700)
    command = [sys.executable, "-c", CLOSED, str(db), str(closed / "saved.db")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert told.stderr == ""
    assert told.stdout.splitlines() == [
        f"{closed}/saved.db cannot be created: Permission denied",
        f"{closed}/saved.db cannot be read: Permission denied",
    ]


def test_a_backup_of_a_newer_outboxd_is_refused(shop: Shop, saved: Path) -> None:
    back_up(shop.path, saved)
    with closing(sqlite3.connect(saved)) as connection, connection:
        connection.execute("UPDATE outboxd_schema SET version_num = '9999'")
    with pytest.raises(SchemaError, match="newer"):
        back(shop, saved)


def test_a_restore_beside_a_drainer_is_refused(shop: Shop, saved: Path) -> None:
    back_up(shop.path, saved)
    shop.close()
    for shared in (False, True):
        with drainer(shop.path, who="process 4711", shared=shared):
            with pytest.raises(HeldError) as caught:
                restore(saved, shop.path, clock.wall())
            assert "systemctl stop" in (caught.value.hint or "")


def test_a_restore_beside_a_daemon_is_refused(tmp_path: Path, shop: Shop, saved: Path) -> None:
    config = write_config(tmp_path / "config.yaml", shop.sandbox.url)
    with Daemon(config) as daemon:
        daemon.ready()
        back_up(daemon.database, saved)
        with pytest.raises(HeldError, match="drained already, by process"):
            restore(saved, daemon.database, clock.wall())


KILLED = """
import os, signal, sys
from outboxd import clock, restore
from pathlib import Path
looks = 0
def kill_at(number):
    global looks
    looks += 1
    if looks == number:
        os.kill(os.getpid(), signal.SIGKILL)
backup, outbox, where, number = sys.argv[1:]
if where == "copying":
    advance = lambda *_: kill_at(int(number))
    restore.restore(Path(backup), Path(outbox), clock.wall(), who="x", admit=None, advance=advance)
restore.PAGES = 5
was = restore._Kept.complete
restore._Kept.complete = lambda kept: kill_at(int(number)) or was(kept)
restore.restore(Path(backup), Path(outbox), clock.wall(), who="x", admit=None)
"""


@pytest.mark.parametrize(("where", "number"), [("copying", 1), ("replacing", 1), ("replacing", 8)])
def test_a_restore_that_is_killed_has_done_all_or_nothing(
    shop: Shop, saved: Path, where: str, number: int
) -> None:
    shop.sent("created", id=1, email="mara@example.com", note="x" * 100_000)
    back_up(shop.path, saved)
    shop.enqueue("created", id=2, email="tom@example.com", note="x" * 100_000)
    shop.close()
    command = [sys.executable, "-c", KILLED, str(saved), str(shop.path), where, str(number)]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    assert shop.rows("SELECT id FROM outbox") == [(1,), (2,)]
    assert shop.rows("PRAGMA integrity_check") == [("ok",)]
    assert shop.rows("PRAGMA journal_mode") == [("wal",)]
    restore(saved, shop.path, shop.clock())
    assert shop.rows("SELECT id FROM outbox") == [(1,)]
    assert [file.name for file in shop.path.parent.iterdir() if "part" in file.name] == []
    for copied in shop.path.parent.glob("*.before-*Z*"):
        assert rows(copied, "SELECT id FROM outbox") == [(1,), (2,)], "what has the name of a copy is whole"


def test_what_a_killed_backup_left_goes_with_the_next_one(db: Path, saved: Path) -> None:
    """It holds personal data, under a name that nobody looks for."""
    code = (
        "import os, signal, sys; from pathlib import Path; from outboxd.backup import back_up\n"
        "kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "back_up(Path(sys.argv[1]), Path(sys.argv[2]), advance=kill)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(db), str(saved)], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert [file.name for file in saved.parent.glob("*saved*")] != []
    back_up(db, saved.with_name("other.db"))
    assert [file.name for file in saved.parent.glob("*saved*")] == []


def test_what_stood_in_the_outbox_is_kept_if_somebody_interrupts_once_it_is_replaced(
    shop: Shop, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too late: the outbox is the restored one."""
    back_up(shop.path, saved)
    shop.enqueue("created", id=1, email="mara@example.com")
    shop.close()
    replace = restoring._replace

    def interrupted(*arguments: Any) -> None:
        replace(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(restoring, "_replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        restore(saved, shop.path, shop.clock())
    assert shop.rows("SELECT count(*) FROM outbox") == [(0,)]
    aside = next(shop.path.parent.glob(f"{shop.path.name}.before-*Z"))
    assert rows(aside, "SELECT count(*) FROM outbox") == [(1,)]


MOVING = """
import os, signal, sys
from outboxd import clock, restore
from pathlib import Path
backup, outbox, number = sys.argv[1:]
moves = 0
def watch(event, arguments):
    global moves
    touched = arguments if event in ("os.link", "os.remove", "os.rename") else ()
    if any(str(each).startswith(outbox) for each in touched):
        moves += 1
        if moves == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
restore.restore(Path(backup), Path(outbox), clock.wall(), who="x", admit=None)
"""


@pytest.mark.parametrize("number", range(1, 8))
def test_a_damaged_outbox_and_its_log_are_kept_together_whenever_a_restore_is_killed(
    db: Path, saved: Path, number: int
) -> None:
    """Also if `outboxd migrate` is said then, which is the hint where there is no outbox."""
    back_up(db, saved)
    files = {"": b"no database any more" * 1000, "-wal": b"a log" * 1000}
    for suffix, content in files.items():
        db.with_name(db.name + suffix).write_bytes(content)
    command = [sys.executable, "-c", MOVING, str(saved), str(db), str(number)]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    if not db.exists():
        database.migrate(db)
    else:
        assert db.with_name(f"{db.name}-wal").exists(), "nobody opens it without its log"
    restored = restore(saved, db, clock.wall())
    assert rows(db, "PRAGMA integrity_check") == [("ok",)]
    kept = [each for each in db.parent.glob("*.before-*") if each.with_name(each.name + "-wal").exists()]
    found = [{suffix: each.with_name(each.name + suffix).read_bytes() for suffix in files} for each in kept]
    assert files in found
    assert restored.aside is not None


@pytest.mark.parametrize("content", [b"", "foreign", "newer"])
def test_what_holds_no_outbox_of_this_version_is_replaced_as_the_file_that_it_is(
    db: Path, saved: Path, content: bytes | str
) -> None:
    """Programs may have it open, and none of them is to write to a file that nobody looks at any more."""
    back_up(db, saved)
    if content == "newer":
        with closing(sqlite3.connect(db)) as connection, connection:
            connection.execute("UPDATE outboxd_schema SET version_num = '9999'")
    else:
        db.write_bytes(b"")
    if content == "foreign":
        with closing(sqlite3.connect(db)) as connection:
            connection.execute("CREATE TABLE orders (id)")
    before = database.identity(db)
    restored = restore(saved, db, clock.wall())
    assert database.identity(db) == before
    assert rows(db, "SELECT version_num FROM outboxd_schema") == [(database.REVISIONS[-1],)]
    assert rows(db, "PRAGMA journal_mode") == [("wal",)]
    assert restored.then.lost is None
    assert restored.aside is not None
    assert restored.aside.exists()


def test_a_sound_outbox_is_left_where_its_copy_cannot_be_written(
    shop: Shop, saved: Path, tmp_path: Path
) -> None:
    """A quota, or as here a limit to the size of files: it is the copy that is at fault, and said to be."""
    back_up(shop.path, saved)
    shop.enqueue("created", id=1, email="mara@example.com", note="x" * 200_000)
    shop.close()
    config = write_config(tmp_path / "config.yaml", shop.sandbox.url)
    config.write_text(config.read_text().replace("outbox.db", shop.path.name))
    before = database.identity(shop.path)
    limited = 'ulimit -f 200; exec "$@"'
    command = [sys.executable, "-m", "outboxd", "restore", str(saved), "--hold", "--config", str(config)]
    done = subprocess.run(["sh", "-c", limited, "sh", *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 74, done.stderr
    assert f"{shop.path.parent}/.{shop.path.name}.before-" in done.stderr
    assert database.identity(shop.path) == before
    assert shop.rows("SELECT status FROM outbox") == [("pending",)]
    assert list(shop.path.parent.glob("*before*")) == []


def test_a_restore_beside_a_program_that_keeps_the_lock_ends_with_that_reason(
    db: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 0.1)
    back_up(db, saved)
    with closing(sqlite3.connect(db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseError, match=r"stayed locked by another program for 0\.1 seconds"):
            restore(saved, db, clock.wall())
        assert [
            each.name for each in db.parent.iterdir() if "part" in each.name or "before" in each.name
        ] == []
        other.execute("ROLLBACK")
        restore(saved, db, clock.wall())


def test_an_outbox_takes_a_backup_whose_pages_are_of_another_size(shop: Shop, saved: Path) -> None:
    """SQLite copies between files of one size alone; the outbox, which others have open, keeps its own."""
    shop.sent("created", id=1, email="mara@example.com")
    back_up(shop.path, saved)
    with closing(sqlite3.connect(saved)) as connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("VACUUM")
    back(shop, saved)
    assert shop.rows("SELECT status FROM outbox") == [("delivered",)]
    assert shop.rows("PRAGMA page_size") == [(database.PAGE_SIZE,)]
    assert shop.rows("PRAGMA journal_mode") == [("wal",)]
    assert rows(saved, "PRAGMA page_size") == [(4096,)]


@pytest.mark.parametrize("before", ["0001", "0005"])
def test_a_backup_of_an_older_schema_is_brought_to_the_current_one(
    shop: Shop, tmp_path: Path, before: str
) -> None:
    old = tmp_path / "old.db"
    bring_to(old, before)
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("INSERT INTO outbox (event, payload) VALUES ('customer_created', '{\"id\": 5}')")
    shop.sent("created", id=1, email="mara@example.com")
    restored = back(shop, old, hold=True)
    assert (restored.then.pending, restored.then.lost) == (1, 0)
    assert shop.status()["dead"] == 1
    assert shop.rows("SELECT version_num FROM outboxd_schema") == [(database.REVISIONS[-1],)]
    assert rows(old, "SELECT version_num FROM outboxd_schema") == [(before,)]


@needs_mounts
def test_what_stood_in_the_outbox_is_kept_if_the_disk_fills_up_once_it_is_replaced(
    db: Path, saved: Path
) -> None:
    """Room for the new content in the log, and not a second time in the file."""
    with closing(sqlite3.connect(db)) as connection, connection:
        long = "x" * 900
        connection.executemany(
            "INSERT INTO outbox (event, payload) VALUES ('customer_created', json_object('id', ?, 'x', ?))",
            [(number, long) for number in range(600)],
        )
    back_up(db, saved)
    script = f"""
        set -eu
        export PATH={Path(sys.executable).parent}:$PATH
        mkdir {db.parent}/near
        mount -t tmpfs -o size=2200k,mode=700 none {db.parent}/near
        cd {db.parent}/near
        echo 'database: outbox.db' > config.yaml
        outboxd migrate --config config.yaml
        echo '{{"event": "customer_created", "data": {{"id": 7}}}}' | outboxd enqueue --config config.yaml
        outboxd restore --hold --config config.yaml {saved}
        test -s outbox.db-wal
        outboxd status --config config.yaml
        echo "database: $(ls outbox.db.before*)" > aside.yaml
        outboxd status --config aside.yaml
    """
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^pending +(\d+)", done.stdout, re.M) == ["0", "1"]
    assert re.findall(r"^dead +(\d+)", done.stdout, re.M) == ["600", "0"]


@needs_mounts
def test_a_disk_that_fills_up_is_named_and_nothing_is_left_on_it(db: Path, saved: Path) -> None:
    """The outbox lies on a disk of 2 MiB of its own, the backup too small for it on another one."""
    script = f"""
        set -eu
        export PATH={Path(sys.executable).parent}:$PATH
        mkdir {db.parent}/far {db.parent}/near
        mount -t tmpfs -o size=24k,mode=700 none {db.parent}/far
        mount -t tmpfs -o size=2m,mode=700 none {db.parent}/near
        cd {db.parent}/near
        echo 'database: outbox.db' > config.yaml
        say() {{ "$@" 2>&1 || echo "exit $?"; }}
        say outboxd migrate --config config.yaml
        say outboxd backup --config config.yaml ../far/saved.db
        say outboxd backup --config config.yaml {saved}
        cat /dev/zero > fill 2> /dev/null || true
        say outboxd restore --config config.yaml {saved}
        rm fill
        echo "left:" $(ls -A ../far . | grep -e part -e before -e saved) "and nothing else"
        say outboxd status --config config.yaml
    """
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"the disk that holds (\S+) has no room for a copy", done.stdout) == [
        f"{db.parent}/far",
        f"{db.parent}/near",
    ]
    assert done.stdout.count("exit 74") == 2
    assert "left: and nothing else" in done.stdout
    assert "lane            running" in done.stdout


def test_the_commands_say_what_they_did(shop: Shop, saved: Path, tmp_path: Path) -> None:
    shop.enqueue("created", id=1, email="mara@example.com")
    made = run(shop, tmp_path, "backup", str(saved))
    assert exit_code(made) == 0, made.output
    assert "checked" in made.output
    assert exit_code(run(shop, tmp_path, "backup", str(saved))) == 65
    shop.close()
    assert exit_code(run(shop, tmp_path, "restore", str(saved))) == 64
    done = run(shop, tmp_path, "restore", str(saved), "--hold")
    assert exit_code(done) == 0, done.output
    assert "pending in the backup: 1 (dead letters now" in done.output
    assert "outboxd verify" in done.output + done.stderr if done.stderr_bytes else done.output
    assert json.loads(run(shop, tmp_path, "status", "--json").output)["dead"] == 1
    assert "restart" not in done.output
    shop.path.write_bytes(b"no database any more" * 1000)
    told = run(shop, tmp_path, "restore", str(saved), "--hold").output
    assert "restart programs that have it open" in told


@needs_mounts
def test_what_lies_on_a_disk_that_takes_no_writes_is_told_as_that(db: Path) -> None:
    """A plain copy of an outbox is sound, and SQLite opens it only where it can write beside it."""
    script = f"""
        export PATH={Path(sys.executable).parent}:$PATH
        cd {db.parent}
        mkdir disk
        mount -t tmpfs -o mode=700 none disk
        echo 'database: outbox.db' > config.yaml
        cp outbox.db disk/plain.db
        outboxd backup disk/proper.db
        mount -o remount,ro disk
        outboxd restore disk/plain.db
        echo "exit $?"
        outboxd backup disk/another.db
        echo "exit $?"
        outboxd restore disk/proper.db
        echo "exit $?"
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"exec 2>&1\n{script}"], capture_output=True, text=True, timeout=60
    )
    assert re.findall(r"exit (\d+)", done.stdout) == ["65", "74", "0"], done.stdout
    disk = db.parent / "disk"
    assert f"{disk}/plain.db cannot be opened where it lies" in done.stdout
    assert "hint: copy it elsewhere" in done.stdout
    assert f"{disk}/another.db cannot be created: Read-only file system" in done.stdout
    assert f"hint: sudo mount -o remount,rw {disk}" in done.stdout


def test_a_backup_that_cannot_be_made_is_the_outboxs_fault_where_it_is(db: Path, saved: Path) -> None:
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("UPDATE outboxd_schema SET version_num = '9999'")
    with pytest.raises(SchemaError, match=f"^{db} was made by a newer outboxd"):
        back_up(db, saved)
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("DROP TABLE outboxd_schema")
        connection.execute(
            "INSERT INTO outbox (event, payload) VALUES ('customer_created', json_object('x', ?))",
            ["x" * 100_000],
        )
    with pytest.raises(SchemaError, match=f"^{db} has an older schema"):
        back_up(db, saved)
    damaged = bytearray(db.read_bytes())
    damaged[-50_000:] = b"\xff" * 50_000
    db.write_bytes(damaged)
    with pytest.raises(DatabaseError, match=f"^{db} is not a sound database") as caught:
        back_up(db, saved)
    assert caught.value.exit_code == 74
    assert "outboxd restore" in (caught.value.hint or "")
    assert not saved.exists()


def test_a_log_that_others_cut_off_is_told_as_that(db: Path, saved: Path) -> None:
    """SQLite ends the transaction by itself then, and to end it again would be another error."""
    with closing(database.connect(db, read_only=True)) as origin, closing(sqlite3.connect(db)) as other:
        other.execute("CREATE TABLE orders (id)")
        os.truncate(f"{db}-wal", 0)
        with pytest.raises(sqlite3.OperationalError) as caught:
            copy_of(origin, saved)
        assert caught.value.sqlite_errorcode == database.LOST_FRAMES
        with pytest.raises(
            DatabaseError, match=r"the log of .* was removed under programs that have it open"
        ):
            back_up(db, saved, force=True)


def test_nothing_is_copied_to_where_there_is_no_room_for_it(
    db: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shops may write to the same disk, and would find it full."""
    found = os.statvfs(saved.parent)
    size = db.stat().st_size
    told: list[int] = []

    def leaving(free: int) -> None:
        values = list(found)
        values[1], values[4] = 1, free  # bytes
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(values))

    leaving(size - 1)
    with pytest.raises(DatabaseError, match=f"the disk that holds {saved.parent} has no room") as caught:
        back_up(db, saved, advance=lambda done, _: told.append(done))
    assert f"df -h {saved.parent}" in (caught.value.hint or "")
    assert (told, list(saved.parent.glob("*saved*"))) == ([], [])
    leaving(size)
    back_up(db, saved, advance=lambda done, _: told.append(done))
    assert told


def test_a_backup_goes_through_a_link_and_over_nothing_but_a_file(db: Path, saved: Path) -> None:
    link, pipe = saved.with_name("latest.db"), saved.with_name("pipe")
    link.symlink_to(saved.name)
    back_up(db, link)
    assert link.is_symlink()
    assert rows(saved, "SELECT count(*) FROM outbox") == [(0,)]
    with pytest.raises(BackupError, match=f"{saved} is there already"):
        back_up(db, link)
    back_up(db, link, force=True)
    os.mkfifo(pipe)
    with pytest.raises(BackupError, match="is no regular file"):
        back_up(db, pipe, force=True)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_what_is_no_file_is_neither_waited_for_nor_replaced(db: Path, saved: Path) -> None:
    back_up(db, saved)
    pipe = saved.with_name("pipe")
    os.mkfifo(pipe)
    with pytest.raises(BackupError, match="is no regular file"):
        restore(pipe, db, clock.wall())
    for at, told in ((pipe, "is no regular file"), (Path("/"), "is a directory")):
        with pytest.raises(NoOutboxError, match=told):
            restore(saved, at, clock.wall())
    with pytest.raises(NoOutboxError, match="is no regular file"):
        database.connect(pipe)


@needs_mounts
def test_what_is_being_made_is_left_by_programs_that_see_other_processes(db: Path, saved: Path) -> None:
    """Two containers with one volume: the number of a process says nothing in the other one."""
    code = (
        "import sys; from pathlib import Path; from outboxd.backup import back_up\n"
        "back_up(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    with making(saved) as part:
        part.write_text("half")
        other = str(saved.with_name("other.db"))
        command = ["unshare", "--pid", "--fork", sys.executable, "-c", code, str(db), other]
        subprocess.run(command, check=True, timeout=60)
        assert part.read_text() == "half"
    assert [each.name for each in saved.parent.iterdir() if "part" in each.name] == []


def test_each_of_many_that_make_a_file_has_a_part_of_its_own(tmp_path: Path) -> None:
    """However they begin and end: what one of them holds no other one removes or writes to."""

    def make(number: int) -> None:
        for turn in range(50):
            with making(tmp_path / "made") as part:
                assert not part.exists()
                part.write_text(f"{number} {turn}")
                assert part.read_text() == f"{number} {turn}"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(8)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_is_moved_to_the_first_name_that_nothing_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:

        def refuse(_: Path, name: Path) -> None:
            raise FileExistsError if name.exists() else PermissionError

        monkeypatch.setattr("os.link", refuse)
    names = []
    for word in ("first", "second", "third"):
        made = tmp_path / "made"
        made.write_text(word)
        names.append(move_to_free(made, tmp_path / "lost").name)
    assert names == ["lost", "lost-2", "lost-3"]
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {
        "lost": "first",
        "lost-2": "second",
        "lost-3": "third",
    }
