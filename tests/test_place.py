"""Where the outbox lies: each thing that is wrong there is found, and mended by the command that is named."""

import os
import shlex
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from outboxd import database, place
from outboxd.brevo.sandbox import Sandbox
from tests.outboxes import new_outbox
from tests.processes import Daemon, write_config
from tests.users import DAEMON, SHOP, STRANGER, User, needs_mounts, needs_users, shared_directory

FAULTS = "import pathlib, sys; from outboxd import place; print(place.faults(pathlib.Path(sys.argv[1])))"


@pytest.fixture
def outbox() -> Iterator[Path]:
    """An outbox in a directory as the installation makes it."""
    with shared_directory() as directory:
        yield new_outbox(directory / "outbox.db")


def mended(path: Path) -> None:
    """Do what each fault says mends it, as an administrator."""
    for fault in place.faults(path):
        subprocess.run(shlex.split(fault.mend.removeprefix("sudo ")), check=True, timeout=10)


def test_a_fresh_outbox_has_no_fault(db: Path) -> None:
    assert place.faults(db) == []


def test_where_there_is_no_directory_nothing_else_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, told in (
        ("pipe", "is no regular file"),
        ("no/outbox.db", "no does not exist"),
        ("file/outbox.db", "file is a file"),
        (".", "is a directory"),
    ):
        [fault] = place.faults(tmp_path / name)
        assert fault.what == "place"
        assert told in fault.told


@pytest.mark.parametrize("mode", [0o770, 0o2777, 0o2730, 0o777])
def test_a_directory_with_wrong_rights_is_mended_by_what_is_told(db: Path, mode: int) -> None:
    db.parent.chmod(mode)
    assert {fault.what for fault in place.faults(db)} == {"rights"}
    mended(db)
    assert place.faults(db) == []
    assert stat.S_IMODE(db.parent.stat().st_mode) == 0o2770 | (mode & 0o005)


@pytest.mark.parametrize("mode", [0o666, 0o640, 0o600, 0o060, 0o664, 0o000])
@pytest.mark.parametrize("suffix", ["", "-wal", ".turn"])
def test_a_file_with_wrong_rights_is_mended_by_what_is_told(db: Path, suffix: str, mode: int) -> None:
    db.parent.chmod(0o2770)
    file = db.with_name(db.name + suffix)
    with closing(database.connect(db)) as connection:
        connection.execute("SELECT count(*) FROM outbox").fetchone()
        file.touch()
        file.chmod(mode)
        assert {fault.what for fault in place.faults(db)} == {"rights"}
        mended(db)
    assert place.faults(db) == []


def test_a_directory_of_ones_own_needs_no_group(db: Path) -> None:
    db.parent.chmod(0o700)
    db.chmod(0o600)
    assert place.faults(db) == []


@needs_users
def test_a_backup_that_root_put_back_is_told_and_mended(outbox: Path) -> None:
    shutil.copy(outbox, outbox.with_name("backup.db"))
    outbox.with_name("backup.db").replace(outbox)
    os.chown(outbox, 0, 0)
    outbox.chmod(0o644)
    assert {fault.what for fault in place.faults(outbox)} == {"owner", "rights"}
    assert f"{outbox} belongs to root, its directory to {DAEMON.number}" in str(place.faults(outbox))
    mended(outbox)
    assert place.faults(outbox) == []
    assert (outbox.stat().st_uid, outbox.stat().st_gid) == (DAEMON.number, DAEMON.number)


@needs_users
def test_what_root_makes_belongs_to_whom_the_directory_belongs(outbox: Path) -> None:
    with closing(database.connect(outbox)) as connection:
        connection.execute("INSERT INTO outbox (event, payload) VALUES ('e', '{}')")
        made = [outbox.with_name(outbox.name + suffix).stat() for suffix in ("", "-wal", "-shm")]
        assert [(file.st_uid, file.st_gid) for file in made] == [(DAEMON.number, DAEMON.number)] * 3
        assert place.faults(outbox) == []


@needs_users
@pytest.mark.parametrize(
    ("user", "mend"),
    [(STRANGER, f"usermod -aG {DAEMON.number} {STRANGER.number}"), (SHOP, None), (DAEMON, None)],
)
def test_who_may_not_write_is_told_which_group_to_join(outbox: Path, user: User, mend: str | None) -> None:
    told = user.run(sys.executable, "-c", FAULTS, str(outbox), reads_all=True)
    assert told.returncode == 0, told.stderr
    assert mend in told.stdout if mend else told.stdout == "[]\n"


REFUSED = """
import sys
from outboxd import OutboxdError, database
try:
    database.connect(sys.argv[1])
except OutboxdError as error:
    print(error.hint)
"""


@needs_users
@pytest.mark.parametrize(("mode", "mend"), [(0o2770, "sudo usermod -aG"), (0o2700, "sudo -u")])
def test_who_comes_to_a_closed_outbox_is_told_what_the_check_tells(
    outbox: Path, mode: int, mend: str
) -> None:
    """Which group that is, and whether there is one to join, the directory alone says."""
    outbox.parent.chmod(mode)
    told = STRANGER.run(sys.executable, "-c", REFUSED, str(outbox), reads_all=True)
    checked = STRANGER.run(sys.executable, "-c", FAULTS, str(outbox), reads_all=True)
    assert f"{mend} {DAEMON.number}" in told.stdout, told.stderr
    assert told.stdout.strip() in checked.stdout


@needs_mounts
def test_a_full_disk_is_told_by_every_door_and_costs_no_event(db: Path) -> None:
    """On a disk of 2 MiB of its own, which goes with the process that mounted it."""
    script = f"""
        set -eu
        mount -t tmpfs -o size=2m,mode=700 none {db.parent}
        cd {db.parent}
        echo 'database: outbox.db' > config.yaml
        say() {{ "$@" 2>&1 || echo "exit $?"; }}
        export PATH={Path(sys.executable).parent}:$PATH
        say outboxd migrate --config config.yaml
        say outboxd-intake --db outbox.db --event customer_created --data '{{"id": 5}}'
        cat /dev/zero > fill 2> /dev/null || true
        echo '--- full'
        say outboxd-intake --db outbox.db --event customer_created --data '{{"id": 6}}'
        say outboxd check --offline --config config.yaml
        rm fill
        echo '--- mended'
        say outboxd-intake --db outbox.db --event customer_created --data '{{"id": 7}}'
    """
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    full = done.stdout.partition("--- full")[2].partition("--- mended")
    assert full[0].count("exit 74") == 1
    assert "the disk that holds outbox.db is full" in full[0]
    assert "FAIL  disk: the disk is full: 0 KiB are left" in full[0]
    assert "mend it: sudo journalctl --vacuum-size=100M" in full[0]
    assert full[2].strip() == "2"


def test_the_daemon_tells_at_its_start_what_is_wrong_and_drains_all_the_same(db: Path) -> None:
    db.chmod(0o666)
    with Sandbox() as sandbox:
        with Daemon(write_config(db.with_name("config.yaml"), sandbox.url)) as daemon:
            daemon.ready()
    assert f'mend="sudo chmod o= {db}"' in daemon.words


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (sqlite3.SQLITE_FULL, "the disk that holds {} or temporary files is full"),
        (sqlite3.SQLITE_IOERR, "the disk that holds {} does not read or write (as it says)"),
        (sqlite3.SQLITE_IOERR_WRITE, "the disk that holds {} does not read or write (as it says)"),
        (sqlite3.SQLITE_IOERR_SHORT_READ, "the log of {} was removed under programs that have it open"),
        (sqlite3.SQLITE_CORRUPT_INDEX, "{} is not a sound SQLite database (as it says)"),
        (sqlite3.SQLITE_NOTADB, "{} is not a sound SQLite database (as it says)"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "{} stayed locked by another program for 30 seconds"),
        (sqlite3.SQLITE_ERROR, "{} holds no outbox of this version (as it says)"),
        (sqlite3.SQLITE_NOMEM, "{} cannot be used: as it says"),
    ],
)
def test_what_sqlite_cannot_do_is_told_by_its_code(db: Path, code: int, told: str) -> None:
    """Its words are another version's perhaps."""
    error = sqlite3.OperationalError("as it says")
    error.sqlite_errorcode = code
    found = database.unusable(db, error)
    assert str(found) == told.format(db)
    assert bool(found.hint) == (code != sqlite3.SQLITE_NOMEM)


CLOSED = """
import os, sys
from outboxd import database, place
from outboxd.errors import RightsError
os.setgroups([])
os.setuid(65534)
for path in sys.argv[1:]:
    try:
        database.connect(path)
    except RightsError as error:
        print(error, error.hint)
"""
"""As somebody who may not even look; what is to be imported is read before."""


@needs_users
def test_who_may_not_even_look_is_told_so_wherever_the_outbox_is_said_to_lie(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "there").mkdir()
    places = [tmp_path / name for name in ("outbox.db", "there/outbox.db", "nowhere/outbox.db")]
    told = subprocess.run([sys.executable, "-c", CLOSED, *places], capture_output=True, text=True, timeout=60)
    assert told.stderr == ""
    for path, line in zip(places, told.stdout.splitlines(), strict=True):
        assert line.startswith(
            f"this user may not write to {path} and its directory be the one it belongs to: sudo -u root"
        )
