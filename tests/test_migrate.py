"""How the file is made and brought to the schema: at once or not at all, by whoever comes first."""

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

import outboxd
from outboxd import database
from outboxd.errors import EX_CONFIG, DatabaseError, NoOutboxError, SchemaError
from outboxd.keys import address_key
from outboxd.locks import drainer, turn

MARA = "mara@example.com"

MIGRATE = """
import sys
from pathlib import Path
import alembic.command
from outboxd import database
print("ready", flush=True)
sys.stdin.readline()
database.migrate(Path(sys.argv[1]))
"""


def outline(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}


def test_a_new_file_is_made_and_a_current_one_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    assert database.migrate(path) == (None, database.REVISIONS[-1])
    outboxd.enqueue("customer_created", {"id": 5}, db=path)
    assert database.migrate(path) == (database.REVISIONS[-1],) * 2
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (1,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        assert connection.execute("PRAGMA page_size").fetchone() == (database.PAGE_SIZE,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_is_current_costs_no_library_of_migrations(tmp_path: Path) -> None:
    """They would take a quarter of a daemon's memory."""
    path = tmp_path / "outbox.db"
    database.migrate(path)
    program = f"""
import sys
from pathlib import Path
from outboxd import daemon, database
from outboxd.outbox import Outbox
database.migrate(Path({str(path)!r}))
Outbox(Path({str(path)!r}), default_source="custom").close()
print({{"sqlalchemy", "alembic"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_known_revisions_are_those_of_the_migrations() -> None:
    script = Config()
    script.set_main_option("script_location", database.migrations())
    revisions = [each.revision for each in ScriptDirectory.from_config(script).walk_revisions()]
    assert tuple(reversed(revisions)) == database.REVISIONS


def test_whom_an_older_version_left_with_one_contact_is_told_again(tmp_path: Path) -> None:
    """Nobody knows any more what of it is whose."""
    path = tmp_path / "outbox.db"
    migrate_to("0007", path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO contacts (customer_key, source, synced_email) VALUES (?, 'custom', ?)",
            [("custom:1", "a@example.com"), ("custom:2", "a@example.com"), ("custom:3", "b@example.com")]
            + [(f"custom:{number}", None) for number in (4, 5)],
        )
    database.migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT customer_key FROM contacts WHERE is_overtaken ORDER BY 1")
        assert found.fetchall() == [("custom:1",), ("custom:2",)]


def test_whoever_had_an_address_second_is_found_by_it_after_an_upgrade(tmp_path: Path) -> None:
    """Whoever turned out to be a guest is still known as such; what another program spoiled is nobody's."""
    path = tmp_path / "outbox.db"
    migrate_to("0008", path)
    guest = f"custom:@{address_key(MARA)}"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO contacts (customer_key, source, email, synced_email) VALUES (?, 'custom', ?, ?)",
            [
                (guest, None, None),
                ("custom:1", MARA, MARA),
                ("custom:2", MARA, "other@example.com"),
                ("custom:3", MARA.encode(), None),
            ],
        )
        connection.execute(
            "INSERT INTO contacts (customer_key, source, email) VALUES ('4', 'c', CAST(X'ff' AS TEXT))"
        )
        rows = [(address_key(MARA), "custom:1"), (address_key("former@example.com"), "custom:1")]
        connection.executemany("INSERT INTO addresses VALUES (?, 'custom', ?)", rows)
    database.migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        found = connection.execute(
            "SELECT address_key, customer_key, is_heir, out_at FROM addresses"
        ).fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchone() == (b"ok",)
    known = {(address.decode(), key.decode(), heir) for address, key, heir, _ in found}
    assert {each for each in known if each[1] != "4"} == {
        (address_key(MARA), "custom:1", 1),
        (address_key("former@example.com"), "custom:1", 1),
        (address_key(MARA), "custom:2", 0),
        (address_key("other@example.com"), "custom:2", 0),
    }


def migrate_to(revision: str, path: Path) -> None:
    database.create(path)
    database.upgrade(path, revision)


@pytest.mark.parametrize("is_there", [False, True], ids=["no file", "an empty file"])
def test_of_four_that_migrate_at_once_all_end_well(tmp_path: Path, is_there: bool) -> None:
    path = tmp_path / "outbox.db"
    if is_there:
        path.touch()
    command = [sys.executable, "-c", MIGRATE, str(path)]
    pipe = subprocess.PIPE
    ran = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)
        for _ in range(4)
    ]
    for each in ran:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in ran:
        assert each.stdin is not None
        each.stdin.write("now\n")
    assert [each.communicate(timeout=60)[1] for each in ran] == [""] * 4
    assert [each.returncode for each in ran] == [0] * 4
    assert outboxd.enqueue("customer_created", {"id": 5}, db=path) == 1


def test_a_failing_migration_leaves_nothing(tmp_path: Path) -> None:
    """The shop has a table with the name of an index that comes late in the migration."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE contacts_synced_email (name TEXT)")
        connection.execute("INSERT INTO contacts_synced_email VALUES ('Utah')")
        connection.commit()
    with pytest.raises(DatabaseError, match="already a table named"):
        database.migrate(path)
    assert outline(path) == {"contacts_synced_email"}
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE contacts_synced_email")
    assert database.migrate(path)[0] is None


def test_an_outbox_stands_beside_a_shops_own_tables(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, total REAL)")
        connection.execute("INSERT INTO orders (total) VALUES (9.5), (12)")
        connection.commit()
    database.migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO orders (total) VALUES (3)")
        outboxd.enqueue("customer_created", {"id": 5}, connection=connection)
        connection.commit()
        assert connection.execute("SELECT id, total FROM orders").fetchall() == [(1, 9.5), (2, 12), (3, 3)]


@pytest.mark.parametrize("revision", ["9999", "zzz"])
def test_a_newer_schema_is_refused_and_left_alone(db: Path, revision: str) -> None:
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("UPDATE outboxd_schema SET version_num = ?", (revision,))
        connection.commit()
    before = outline(db)
    with pytest.raises(
        SchemaError, match=f"newer outboxd \\(schema {revision}; this one knows up to"
    ) as caught:
        database.migrate(db)
    assert caught.value.exit_code == EX_CONFIG == 78
    assert "pip install --upgrade outboxd" in (caught.value.hint or "")
    assert outline(db) == before


def test_a_file_without_a_schema_is_told_from_a_current_one(db: Path) -> None:
    database.check_revision(db, database.REVISIONS[-1])
    with pytest.raises(SchemaError, match="older schema") as caught:
        database.check_revision(db, None)
    assert caught.value.hint == "run: outboxd migrate"


def test_a_file_that_is_no_database_is_told_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, only a long enough text\n" * 20)
    with pytest.raises(DatabaseError, match="not a database") as caught:
        database.migrate(path)
    assert "name another file" in (caught.value.hint or "")
    assert path.read_text().startswith("not a database")


def test_a_missing_directory_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(NoOutboxError, match="does not exist") as caught:
        database.migrate(tmp_path / "no" / "outbox.db")
    assert "install -d" in (caught.value.hint or "")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_every_file_is_its_groups_and_nobody_elses_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "outbox.db"
    before = os.umask(umask)
    try:
        database.migrate(path)
        with (
            closing(database.connect(path)) as connection,
            turn(path),
            drainer(path, who="a test", shared=False),
        ):
            connection.execute("INSERT INTO outbox (event, payload) VALUES ('e', '{}')")
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
    names = ("", "-wal", "-shm", ".turn", ".daemon", ".drainers")
    assert modes == {f"outbox.db{suffix}": 0o660 for suffix in names}


@pytest.mark.parametrize("name", ["a b.db", "50%.db", "what?.db", "#1.db", "Zoë.db", "file:x.db", "it's.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    database.migrate(path)
    assert outboxd.enqueue("customer_created", {"id": 5}, db=path) == 1
    assert "outbox" in outline(path)
