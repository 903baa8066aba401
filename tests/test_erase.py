"""One person leaves everywhere, and the bytes of the file say so; nobody else does."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from outboxd import app, database, pool
from outboxd.brevo.sandbox import Fault
from outboxd.erase import Eraser, PutOffError
from outboxd.errors import OutboxdError
from outboxd.locks import drainer
from outboxd.person import UnknownPersonError
from outboxd.search import count, occurrences
from tests.shop import KEY, MakeShop, Shop, elsewhere
from tests.test_cli import exit_code, run
from tests.test_redaction import everything_stored
from tests.test_schema import assert_depth_is_right

ANN = "ann.archer@example.com"
PHONE = "+12025550117"
BODY = {"email": ANN, "firstName": "Annabel", "lastName": "Archer", "phone": PHONE}
BOB = {"id": 8, "email": "bob@example.com", "firstName": "Robert"}


@pytest.fixture
def eraser(shop: Shop) -> Iterator[Eraser]:
    """The same as `outboxd erase` has, on the shop's clock."""
    with app.erasing(shop.settings, KEY, shop.clock) as made:
        shop.later(seconds=1)
        yield made


@pytest.fixture
def operate(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    return lambda *arguments: run(shop, tmp_path, *arguments)


def bytes_of(shop: Shop) -> bytes:
    """What stands in the file and its log. All of this process's connections to them must be closed."""
    shop.close()
    pool.close()
    files = [shop.path, shop.path.with_name(shop.path.name + "-wal")]
    return b"".join(file.read_bytes() for file in files if file.exists()).lower()


def assert_gone(shop: Shop, *said: str) -> None:
    left = bytes_of(shop)
    assert [text for text in said or (ANN, "Annabel", "Archer", PHONE) if text.lower().encode() in left] == []


@pytest.mark.parametrize("whom", [ANN, ANN.upper(), "7", "custom:7"])
def test_a_person_leaves_everywhere_and_others_stay(shop: Shop, whom: str) -> None:
    shop.sent("created", **BOB)
    shop.sent("created", id=7, **BODY)
    shop.sent("updated", id=7, firstName="Annie")
    with app.erasing(shop.settings, KEY, shop.clock) as eraser:
        shop.later(seconds=1)
        erasure = eraser.erase(whom)
    assert erasure.is_complete
    assert (erasure.told, erasure.events, erasure.left) == ({"custom:7": "removed"}, 2, 0)
    assert [contact["email"] for contact in shop.sandbox.contacts] == [BOB["email"]]
    assert shop.rows("SELECT event, payload FROM outbox WHERE customer_key = 'custom:7'") == [
        ("customer_redacted", "{}")
    ]
    assert "Robert" in everything_stored(shop)
    assert_gone(shop, ANN, "Annabel", "Annie", "Archer", PHONE)


def test_what_is_pending_and_what_is_dead_goes_too(shop: Shop, eraser: Eraser) -> None:
    shop.sent("created", id=7, **BODY)
    shop.sandbox.faults.add(Fault(status=422, times=1, method="PUT"))
    dead = shop.sent("updated", id=7, lastName="Baker")
    assert dead["status"] == "dead"
    shop.sandbox.faults.add(Fault(status=503, times=1))
    waiting = shop.sent("updated", id=7, lastName="Carter")
    assert waiting["status"] == "pending"
    shop.enqueue("updated", id=7, lastName="Dyer")
    calls = len(shop.calls)
    assert eraser.erase(ANN).is_complete
    of_redaction, of_others = [call.method for call in shop.calls[calls:]]
    assert (of_redaction, of_others) == ("DELETE", "DELETE")
    status = shop.status()
    assert (status["pending"], status["dead"]) == (0, 0)
    with closing(sqlite3.connect(shop.path)) as connection:
        assert_depth_is_right(connection)
    assert_gone(shop, ANN, "Archer", "Baker", "Carter", "Dyer")


def test_a_tombstone_keeps_late_events_out_and_a_new_registration_brings_them_back(
    shop: Shop, eraser: Eraser
) -> None:
    shop.sent("created", id=7, **BODY)
    eraser.erase(ANN)
    shop.later(minutes=1)
    late = shop.sent("updated", id=7, **BODY)
    assert late["attempts_made"][0]["verdict"] == "superseded"
    assert shop.sandbox.contacts == []
    assert ANN not in everything_stored(shop)
    shop.later(minutes=1)
    shop.sent("created", id=7, **BODY)
    assert shop.contact(ANN)["attributes"]["FIRSTNAME"] == "Annabel"


def test_an_id_that_names_a_person_is_left_as_a_hash_alone_and_still_met(shop: Shop, eraser: Eraser) -> None:
    shop.sent("created", id="ann-archer", **BODY)
    assert eraser.erase("ann-archer").is_complete
    assert "ann-archer" not in everything_stored(shop)
    shop.later(minutes=1)
    late = shop.sent("updated", id="ann-archer", email="other@example.com")
    assert late["attempts_made"][0]["verdict"] == "superseded"
    assert eraser.erase("ann-archer").is_complete


def test_events_in_which_others_mention_them_are_told_and_stay(shop: Shop, eraser: Eraser) -> None:
    shop.sent("created", id=7, **BODY)
    mention = shop.sent("updated", **BOB, invitedBy=ANN.upper())
    erasure = eraser.erase(ANN)
    assert list(erasure.mentions) == [mention["id"]]
    assert not erasure.is_complete
    assert erasure.shared["address"] == 1
    assert ANN.upper() in everything_stored(shop)


def test_a_name_that_others_have_too_proves_nothing_and_is_said_so(shop: Shop, eraser: Eraser) -> None:
    shop.sent("created", id=7, **BODY)
    shop.sent("created", id=8, email="bob@example.com", firstName="Annabel")
    erasure = eraser.erase("7")
    assert erasure.is_complete
    assert erasure.shared == {"name": 1}
    assert erasure.searched == {"address": 1, "phone": 1, "name": 1}
    assert len(shop.sandbox.contacts) == 1


def test_an_event_of_nobody_that_holds_the_address_is_theirs(shop: Shop, eraser: Eraser) -> None:
    unreadable = shop.insert("customer_updated", f'{{"who": "{ANN}"}}')
    shop.drain()
    assert shop.event(unreadable)["status"] == "dead"
    shop.sent("created", id=7, **BODY)
    erasure = eraser.erase(ANN)
    assert (erasure.is_complete, erasure.events) == (True, 2)
    assert shop.rows("SELECT count(*) FROM outbox WHERE id = ?", unreadable) == [(0,)]


def test_an_address_that_nobody_here_knows_is_removed_from_brevo(shop: Shop, eraser: Eraser) -> None:
    shop.sent("created", id=7, **BODY)
    with closing(sqlite3.connect(shop.path)) as connection, connection:
        for table in ("outbox", "attempts", "contacts", "addresses"):
            connection.execute(f"DELETE FROM {table}")
    assert eraser.erase(ANN).is_complete
    assert shop.sandbox.contacts == []


def test_of_somebody_brevo_does_not_have_nothing_is_said_to_be_removed(shop: Shop, eraser: Eraser) -> None:
    erasure = eraser.erase(ANN)
    assert (erasure.is_complete, *erasure.told.values()) == (True, "Brevo does not have the contact")


def test_who_came_to_brevo_from_elsewhere_after_an_erasure_is_erased_there_again(
    shop: Shop, eraser: Eraser
) -> None:
    shop.sent("created", id=7, **BODY)
    assert eraser.erase(ANN).is_complete
    elsewhere(shop, "POST", "/contacts", {"email": ANN})
    shop.later(seconds=1)
    assert eraser.erase(ANN).told == {"custom:7": "removed"}
    assert shop.sandbox.contacts == []


def test_who_has_moved_away_leaves_the_former_address_too(shop: Shop, eraser: Eraser) -> None:
    shop.sent("created", id=7, **BODY)
    shop.sent("updated", id=7, email="ann.baker@example.com")
    elsewhere(shop, "POST", "/contacts", {"email": ANN})
    shop.later(seconds=1)
    assert eraser.erase(ANN).told == {"custom:7": "removed"}
    assert shop.sandbox.contacts == []


@pytest.mark.parametrize(("status", "code"), [(405, 1), (503, 75)])
def test_what_is_here_is_gone_though_brevo_keeps_what_it_has_from_elsewhere(
    shop: Shop, eraser: Eraser, status: int, code: int
) -> None:
    shop.sent("created", id=7, **BODY)
    shop.sandbox.faults.add(Fault(status=status, method="DELETE", after=1, times=1))
    with pytest.raises(OutboxdError) as caught:
        eraser.erase(ANN)
    assert (caught.value.exit_code, ANN in str(caught.value)) == (code, False)
    assert ANN not in everything_stored(shop)
    assert eraser.erase(ANN).is_complete


def test_traces_of_what_was_deleted_earlier_are_found_and_removed(shop: Shop, eraser: Eraser) -> None:
    """Another program deleted, without wiping: the bytes stay in a page that is in use."""
    shop.sent("created", id=7, **BODY)
    shop.sent("created", **BOB)
    with closing(sqlite3.connect(shop.path)) as connection, connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("CREATE TABLE notes (text)")
        connection.executemany("INSERT INTO notes VALUES (?)", [(ANN,), ("kept",)])
        connection.execute("DELETE FROM notes WHERE text = ?", (ANN,))
    erasure = eraser.erase(ANN)
    assert erasure.was_rewritten
    assert erasure.is_complete
    with closing(sqlite3.connect(shop.path)) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        assert connection.execute("SELECT text FROM notes").fetchall() == [("kept",)]
    assert_gone(shop)


KILLED = """
import os, signal, sys
from datetime import timedelta
from outboxd import app, clock, config
from outboxd.outbox.erasing import Erasing
from outboxd.outbox.pruning import Pruning
room, name = (Pruning, "shrink") if sys.argv[2] == "shrink" else (Erasing, sys.argv[2])
setattr(room, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
settings = config.read(__import__("pathlib").Path(sys.argv[1]))
with app.erasing(settings, sys.argv[3], lambda: clock.wall() + timedelta(seconds=1)) as eraser:
    eraser.erase(sys.argv[4])
"""


@pytest.mark.parametrize("where", ["claim", "forget", "bury", "shrink"])
def test_an_erasure_that_is_killed_is_finished_by_the_next_one(
    shop: Shop, operate: Any, tmp_path: Path, where: str
) -> None:
    shop.sent("created", id=7, **BODY)
    shop.sent("created", **BOB)
    operate("status")  # writes the configuration
    command = [sys.executable, "-c", KILLED, str(tmp_path / "config.yaml"), where, KEY, ANN]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    with app.erasing(shop.settings, KEY, shop.clock) as eraser:
        shop.later(seconds=60 if where == "claim" else 2)
        assert eraser.erase(ANN).is_complete
    assert [contact["email"] for contact in shop.sandbox.contacts] == [BOB["email"]]
    assert_gone(shop)


def test_what_brevo_does_not_let_happen_now_is_put_off(shop: Shop, eraser: Eraser) -> None:
    shop.sent("created", id=7, **BODY)
    shop.sandbox.faults.add(Fault(status=503, times=1, method="DELETE"))
    with pytest.raises(PutOffError, match="Brevo could not be told") as caught:
        eraser.erase(ANN)
    assert caught.value.exit_code == 75
    assert ANN not in str(caught.value)
    assert shop.status()["pending"] == 1
    shop.drain()
    assert shop.sandbox.contacts == []
    assert eraser.erase(ANN).is_complete
    assert_gone(shop)


def test_it_erases_beside_whoever_drains(shop: Shop) -> None:
    shop.sent("created", id=7, **BODY)
    with (
        drainer(shop.path, who="a test", shared=False),
        app.erasing(shop.settings, KEY, shop.clock) as eraser,
    ):
        shop.later(seconds=1)
        assert eraser.erase("7").is_complete


def test_two_accounts_with_one_address_are_one_person_by_address_and_two_by_id(make_shop: MakeShop) -> None:
    shop = make_shop()
    shop.sent("created", id=7, **BODY)
    shop.sent("created", id=9, **BODY)
    with app.erasing(shop.settings, KEY, shop.clock) as eraser:
        shop.later(seconds=1)
        by_id = eraser.erase("7")
        assert "another customer has the same contact" in by_id.told["custom:7"]
        assert by_id.mentions
        assert len(shop.sandbox.contacts) == 1
        shop.later(seconds=1)
        assert eraser.erase(ANN).is_complete
    assert shop.sandbox.contacts == []
    assert_gone(shop)


@pytest.mark.parametrize("whom", [ANN, "7"])
def test_what_only_they_said_is_emptied_where_the_contact_stays_another_customers(
    shop: Shop, eraser: Eraser, whom: str
) -> None:
    shop.sent("created", id=7, **BODY)
    shop.sent("created", id=9, email=ANN, firstName="Anna")
    stays = "another customer has the same contact: it stays"
    assert eraser.erase(whom).told == {"custom:7": stays, **({"custom:9": "removed"} if whom == ANN else {})}
    assert [each["attributes"] for each in shop.sandbox.contacts] == [{"FIRSTNAME": "Anna"}] * (whom == "7")
    assert_gone(shop, "Annabel", PHONE)


def before_it_is_read(shop: Shop, meanwhile: Callable[[], object]) -> Callable[[], datetime]:
    """A clock at whose word a daemon does something: between the writing of a redaction and its end."""
    written = "SELECT count(*) FROM outbox WHERE event = 'customer_redacted' AND customer_key IS NOT NULL"

    def clock() -> datetime:
        if shop.rows(written) == [(1,)]:
            shop.later(seconds=1)
            meanwhile()
            shop.later(seconds=1)
            shop.sent("redacted", id=7)
        return shop.clock()

    return clock


def test_a_contact_that_stays_is_told_so_where_the_shop_redacts_it_too(shop: Shop) -> None:
    shop.sent("created", id=7, **BODY)
    shop.sent("created", id=9, **BODY)
    with app.erasing(shop.settings, KEY, before_it_is_read(shop, shop.drain)) as eraser:
        shop.later(seconds=1)
        assert "another customer has the same contact" in eraser.erase("7").told["custom:7"]


def test_a_contact_that_stays_is_not_said_to_be_removed_after_a_registration_in_between(shop: Shop) -> None:
    """It was not the redaction written here that ended it, for which the new registration was newer news."""
    shop.sent("created", id=7, **BODY)
    shop.sent("created", id=9, **BODY)
    anew = {**BODY, "firstName": "Anna"}
    clock = before_it_is_read(shop, lambda: shop.sent("created", id=7, **anew))
    with app.erasing(shop.settings, KEY, clock) as eraser:
        shop.later(seconds=1)
        with pytest.raises(OutboxdError, match="newer news") as caught:
            eraser.erase("7")
        assert caught.value.hint == "run the same again"
        assert "deleted before" in eraser.erase("7").told["custom:7"]
    assert len(shop.sandbox.contacts) == 1


def test_an_id_of_nobody_and_of_several_shops_is_told(shop: Shop, eraser: Eraser) -> None:
    for source in ("custom", "shopify"):
        shop.insert("customer_created", {"id": 7, "email": f"{source}@example.com"}, source=source)
    shop.drain()
    with pytest.raises(UnknownPersonError, match="no customer") as caught:
        eraser.known("4711")
    assert caught.value.exit_code == 66
    with pytest.raises(UnknownPersonError, match="not a valid one") as caught:
        eraser.known("ann.archer@example,com")
    assert "archer" not in str(caught.value)
    with pytest.raises(UnknownPersonError, match="several shops") as caught:
        eraser.known("7")
    assert caught.value.hint == "name one of: custom:7, shopify:7"
    assert eraser.erase("shopify:7").is_complete
    assert [contact["email"] for contact in shop.sandbox.contacts] == ["custom@example.com"]


def told(result: Result) -> str:
    return result.output + (result.stderr if result.stderr_bytes else "")


def test_the_command_asks_first_and_names_nobody(shop: Shop, operate: Any) -> None:
    shop.sent("created", id=7, **BODY)
    dry = operate("erase", "--dry-run", "--json", ANN)
    assert json.loads(dry.output) == {"customers": ["custom:7"], "events": {"1": "delivered"}, "mentions": []}
    asked = operate("erase", ANN)
    assert "Erase for good?" in told(asked)
    assert len(shop.sandbox.contacts) == 1
    done = operate("erase", ANN, "--yes")
    assert exit_code(done) == 0, told(done)
    assert "byte by byte, for 1 of kind address" in done.output
    for output in (dry, asked, done):
        assert not [text for text in (ANN, "Annabel", "Archer", PHONE) if text in told(output)]


def test_while_the_question_stands_whoever_begins_to_drain_is_alone(
    shop: Shop, operate: Any, tmp_path: Path
) -> None:
    shop.sent("created", id=7, **BODY)
    operate("status")  # writes the configuration
    command = [sys.executable, "-m", "outboxd", "erase", "--config", str(tmp_path / "config.yaml"), ANN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
        assert asking.stderr is not None
        said = b""
        while not said.endswith(b"[y/N]: ") and (letter := asking.stderr.read(1)):
            said += letter
        assert b"Erase for good?" in said
        with drainer(shop.path, who="a test", shared=False) as held:
            assert held.is_alone
        asking.communicate(b"n\n", timeout=60)
    assert asking.returncode == 1
    assert len(shop.sandbox.contacts) == 1


def test_what_was_erased_is_told_to_programs_too(shop: Shop, operate: Any) -> None:
    shop.sent("created", id=7, **BODY)
    shop.sent("created", id=8, email="bob@example.com", firstName="Annabel")
    done = operate("erase", "7", "--yes", "--json")
    assert exit_code(done) == 0
    facts = json.loads(done.stdout)
    assert (facts["is_complete"], facts["told"], facts["events"]) == (True, {"custom:7": "removed"}, 1)
    assert (facts["searched"], facts["shared"]) == ({"address": 1, "phone": 1, "name": 1}, {"name": 1})
    assert "backups" not in done.stdout


def test_the_search_runs_nothing_that_lies_where_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An administrator may be in a directory that anybody can write to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    (tmp_path / "outbox.db").write_text("mara@example.com")
    assert occurrences([tmp_path / "outbox.db"], ["mara@example.com"]) == [1]


def test_what_is_pruned_while_it_is_looked_at_is_gone_and_the_rest_is_erased(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon beside it takes the oldest event away right before its payload is read."""
    oldest = shop.sent("created", id=7, **BODY)["id"]
    shop.sent("updated", id=7, firstName="Annie")
    connect = database.connect

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(prune)
        return connection

    def prune(statement: str) -> None:
        if statement.startswith("SELECT event, payload, source"):
            with closing(connect(shop.path)) as daemon:
                daemon.execute("DELETE FROM outbox WHERE id = ?", [oldest])

    with app.erasing(shop.settings, KEY, shop.clock) as eraser:
        shop.later(seconds=1)
        monkeypatch.setattr(database, "connect", watched)
        assert eraser.erase(ANN).is_complete
    assert_gone(shop)


def test_the_search_finds_a_text_across_blocks_and_as_json_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    half = (1 << 20) - 3
    file.write_bytes(
        b"x" * half + b"Mara@example.com" + b"y" * half + rb"M\u00fcller" + b"\0mara@example.com"
    )
    assert count(file, [b"mara@example.com", b"x"]) == [2, half + 2]
    assert occurrences([file, tmp_path / "missing"], ["mara@EXAMPLE.com", "Müller", "nobody"]) == [2, 1, 0]


def test_a_shop_may_write_a_redaction_itself(shop: Shop) -> None:
    shop.insert("customer_created", {"id": 7, "email": ANN, "first_name": "Annabel"}, source="shopify")
    shop.drain()
    shop.later(seconds=1)
    shop.insert("customer_redacted", {"id": 7}, source="shopify")
    shop.drain()
    assert shop.sandbox.contacts == []
    assert "Annabel" not in everything_stored(shop)
    assert database.revision(sqlite3.connect(shop.path)) == database.REVISIONS[-1]


def test_an_address_that_is_no_text_is_refused(operate: Any) -> None:
    done = operate("erase", "--dry-run", "\udcff@example.com")
    assert "is not text" in str(done.exception)
