"""The recipes for other languages, as they stand: run by a shop's user while another user's daemon drains."""

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest

from outboxd import database, place
from outboxd.brevo.sandbox import Sandbox
from tests.conftest import until
from tests.outboxes import new_outbox
from tests.processes import Daemon, status, write_config
from tests.users import DAEMON, SHOP, STRANGER, User, needs_users, shared_directory

pytestmark = needs_users

NODE_PATH = os.environ.get("NODE_PATH", "")
RECIPES = Path(__file__).parent.parent / "recipes"

LANGUAGES = {
    "php": ("php", "enqueue.php"),
    "node": ("node", "enqueue.cjs"),
    "ruby": ("ruby", "enqueue.rb"),
    "python": ("/usr/bin/python3", "enqueue.py"),
    "shell": ("sh", "enqueue.sh"),
}

NEEDS = {
    "php": ("php", "-r", "exit(in_array('sqlite', PDO::getAvailableDrivers()) ? 0 : 1);"),
    "node": ("node", "-e", "require('better-sqlite3')(':memory:')"),
    "ruby": ("ruby", "-r", "sqlite3", "-e", ""),
    "python": ("/usr/bin/python3", "-c", "import sqlite3"),
    "shell": ("sqlite3", "-version"),
}
"""A command that succeeds for SHOP where the language has what its recipe needs."""

NAME = "O'Brien \"Bob\" \\ $HOME `id` $(id) ü🎉 '); DROP TABLE outbox; --"

GUARDED = (
    "INSERT INTO outbox (event, payload, status, finished_at) VALUES ('e', '{}', 'delivered', '2026')",
    "INSERT INTO outbox (id, event, payload) VALUES (9, 'e', '{}')",
    "INSERT OR REPLACE INTO outbox (id, event, payload) VALUES (1, 'e', '{}')",
    "UPDATE outbox SET payload = '{}'",
    "UPDATE outbox SET event = 'customer_deleted'",
    "DELETE FROM outbox",
)
"""The mistakes that a member of the group is kept from. Ill will is not: SQLite knows no users."""


@pytest.fixture
def directory() -> Iterator[Path]:
    """The outbox's directory with its configuration beside it, and the recipes where a shop keeps them."""
    with shared_directory() as made:
        shutil.copytree(RECIPES, made.parent / "shop")
        yield made


@pytest.fixture
def outbox(directory: Path) -> Path:
    return new_outbox(directory / "outbox.db")


@cache
def is_available(language: str) -> bool:
    """Whether this host has the language; $NODE_PATH is where Node's packages are."""
    return SHOP.run(*NEEDS[language], NODE_PATH=NODE_PATH).returncode == 0


def languages() -> list[str]:
    return [language for language in LANGUAGES if is_available(language)]


def enqueue(
    language: str, outbox: Path, event: str, *key: str, user: User = SHOP, **customer: object
) -> subprocess.CompletedProcess[str]:
    """Run a recipe as `user`."""
    command, file = LANGUAGES[language]
    return user.run(
        command,
        str(outbox.parent.parent / "shop" / file),
        event,
        *key,
        given=json.dumps(customer),
        OUTBOXD_DATABASE=str(outbox),
        NODE_PATH=NODE_PATH,
    )


def rows(outbox: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(outbox)) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    if not is_available(request.param):
        pytest.skip(f"{' '.join(NEEDS[request.param][:2])} is not here, or lacks SQLite")
    return str(request.param)


def test_every_recipe_is_run() -> None:
    assert {file for _, file in LANGUAGES.values()} == {file.name for file in RECIPES.iterdir()}


def test_a_customer_arrives_as_the_shop_has_them_and_a_repeat_changes_nothing(
    language: str, outbox: Path
) -> None:
    for _ in range(2):
        done = enqueue(language, outbox, "customer_updated", f"hook-{NAME}", id=7, lastName=NAME, tags=[1])
        assert done.returncode == 0, done.stderr
    done = enqueue(language, outbox, "customer_deleted", id=7)
    assert done.returncode == 0, done.stderr
    [first, second] = rows(outbox, "SELECT event, payload, idempotency_key FROM outbox ORDER BY id")
    assert (first[0], first[2]) == ("customer_updated", f"hook-{NAME}")
    assert json.loads(str(first[1])) == {"id": 7, "lastName": NAME, "tags": [1]}
    assert (second[0], second[2]) == ("customer_deleted", None)


def test_a_recipe_makes_no_file_where_there_is_no_outbox(language: str, directory: Path) -> None:
    assert enqueue(language, directory / "outbox.db", "customer_created", id=7).returncode != 0
    assert list(directory.iterdir()) == []


def test_every_recipe_waits_for_another_writer(outbox: Path) -> None:
    with closing(database.connect(outbox)) as writer, ThreadPoolExecutor(len(LANGUAGES)) as pool:
        writer.execute("BEGIN IMMEDIATE")
        waiting = [
            pool.submit(enqueue, language, outbox, "customer_created", id=7) for language in languages()
        ]
        assert wait(waiting, timeout=0.6).done == set()
        writer.execute("COMMIT")
        assert [each.result().returncode for each in waiting] == [0] * len(waiting)


def test_who_is_not_in_the_group_writes_nothing(language: str, outbox: Path) -> None:
    assert enqueue(language, outbox, "customer_created", user=STRANGER, id=7).returncode != 0
    assert rows(outbox, "SELECT id FROM outbox") == []


def test_what_the_first_visitor_makes_is_open_to_the_daemon_whatever_their_umask(
    language: str, outbox: Path
) -> None:
    """The daemon has stopped, nobody has the file open, and the log that the shop's user makes is theirs."""
    assert list(outbox.parent.glob("outbox.db-*")) == []
    reader = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM outbox'); "
    reader += "print(flush=True); sys.stdin.read()"
    visitor = subprocess.Popen(
        SHOP.command(sys.executable, "-c", reader, str(outbox), reads_all=True),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with visitor:
        assert visitor.stdout is not None
        visitor.stdout.readline()
        done = enqueue(language, outbox, "customer_created", id=7)
        assert done.returncode == 0, done.stderr
        made = {file.name: file.stat() for file in outbox.parent.glob("outbox.db-*")}
        assert {name: (file.st_uid, file.st_gid) for name, file in made.items()} == {
            f"outbox.db-{part}": (SHOP.number, DAEMON.number) for part in ("wal", "shm")
        }
        assert {stat.S_IMODE(file.st_mode) for file in made.values()} == {0o660}
        assert place.faults(outbox) == []
        insert = "from outboxd.intake.command import main; main()"
        event = ("--db", str(outbox), "--event", "customer_created", "--data", '{"id": 8}')
        done = DAEMON.run(sys.executable, "-c", insert, *event, reads_all=True)
        assert done.stdout == "2\n", done.stderr


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 command")
def test_a_member_of_the_group_can_write_events_and_spoils_none_by_mistake(outbox: Path) -> None:
    assert enqueue("shell", outbox, "customer_created", id=7).returncode == 0
    before = rows(outbox, "SELECT * FROM outbox")
    for sql in GUARDED:
        done = SHOP.run("sqlite3", str(outbox), sql)
        assert done.returncode != 0, sql
        assert "outbox: " in done.stderr, sql
    assert rows(outbox, "SELECT * FROM outbox") == before


def test_all_languages_write_at_once_while_the_daemon_drains(directory: Path) -> None:
    """Its user is one, theirs another; nobody sees a locked database, and every customer arrives."""
    each = 6
    with Sandbox() as sandbox:
        config = write_config(directory.parent / "config.yaml", sandbox.url)
        outbox = directory / "outbox.db"
        config.write_text(config.read_text().replace('"outbox.db"', f'"{outbox}"'))
        with Daemon(config, user=DAEMON) as daemon, ThreadPoolExecutor(4) as pool:
            daemon.ready()
            assert outbox.stat().st_uid == DAEMON.number
            writes = [
                pool.submit(
                    enqueue,
                    language,
                    outbox,
                    "customer_created",
                    f"{language}-{number}",
                    id=f"{language}-{number}",
                    email=f"{language}{number}@example.com",
                    lastName=NAME,
                )
                for number in range(each)
                for language in languages()
            ]
            for write in writes:
                assert write.result().returncode == 0, write.result().stderr
            until(lambda: status(outbox)["delivered"] == len(writes))
        assert "locked" not in daemon.words
        names = [contact["attributes"]["LASTNAME"] for contact in sandbox.contacts]
        assert names == [NAME] * len(writes)
