"""Another program holds the database: the daemon waits, says so, is not taken for dead, and goes on then."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic

import pytest

from outboxd import database, locks
from outboxd.brevo.sandbox import Sandbox
from outboxd.errors import DatabaseError, HeldError
from outboxd.heartbeat import EVERY
from outboxd.outbox.pruning import Pruning
from tests.conftest import until
from tests.outboxes import new_outbox
from tests.processes import write_config
from tests.shop import Shop
from tests.test_host_disk import outboxd_says
from tests.test_relay import running

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process holds the lock that writers need, until the block ends."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        try:
            yield
        finally:
            other.stdin.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real wait is of thirty seconds."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 0.2)


@pytest.mark.usefixtures("impatient")
def test_a_lock_that_is_held_for_long_is_told_once_and_waited_for(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "outboxd")
    shop.reopen()
    with running(shop.relay):
        until(lambda: shop.status()["heartbeat_at"])
        event_id = shop.enqueue("created", id=1, email="ann@example.com")
        until(lambda: shop.event(event_id)["status"] == "delivered")
        shop.insert("customer_updated", {"id": 1, "email": "ann@example.com", "firstName": "Ann"})
        with held(shop.path):
            until(lambda: "stuck" in caplog.text or shop.status()["delivered"] == 2)
            shop.later(seconds=EVERY.total_seconds() + 1)  # at the latest the heartbeat meets it
            shop.relay.bell.set()
            until(lambda: "stuck" in caplog.text)
            before = shop.relay.lively_at
            until(lambda: shop.relay.lively_at > before + 1)
        until(lambda: "unstuck" in caplog.text)
        until(lambda: shop.status()["delivered"] == 2)
    said = [record.message for record in caplog.records if "stuck" in record.message]
    assert len(said) == 2
    assert said[0].startswith(f'stuck reason="{shop.path} stayed locked by another program for 0.2 seconds"')
    assert f'hint="find the program that holds it: fuser {shop.path}"' in said[0]


@pytest.mark.usefixtures("impatient")
def test_whoever_waits_for_the_lock_gives_a_sign_of_life_before_each_wait(shop: Shop) -> None:
    """Three waits in one round, each of which ends just in time, are longer than the watchdog's patience."""
    seen = []
    with held(shop.path):
        for _ in range(3):
            before = monotonic()
            with pytest.raises(DatabaseError, match="stayed locked"):
                shop.relay.step()
            seen.append(before <= shop.relay.lively_at <= monotonic())
    assert seen == [True, True, True]


def test_status_says_what_keeps_the_daemon_though_it_can_write_nothing(tmp_path: Path) -> None:
    """It stands in the file of its lock, until it is over."""
    path = new_outbox(tmp_path / "outbox.db")
    with Sandbox() as sandbox:
        config = write_config(tmp_path / "config.yaml", sandbox.url)
    with locks.drainer(path, who="process 4711", shared=False) as drainer:
        drainer.say('{"since": "2026-11-23T16:12:51.821Z", "reason": "it is locked", "hint": "unlock it"}')
        assert re.search(r"trouble +it is locked \(since .* ago\); unlock it", outboxd_says(config, "status"))
        assert "FAIL  daemon: it is locked" in outboxd_says(config, "check", "--offline")
        drainer.say(None)
        assert "trouble" not in outboxd_says(config, "status")
        drainer.say('{"since": "2026-11-23T16:12:51.821Z", "reason": "it is locked", "hint": null}')
        with pytest.raises(HeldError, match=r"by process 4711$"):
            with locks.drainer(path, who="another", shared=False):
                pass
    assert locks.word(path) is None
    drainer.say("too late")
    assert locks.word(path) is None


def test_the_log_is_cut_once_a_reader_of_an_old_state_has_gone(shop: Shop) -> None:
    """It grows as long as somebody looks at what was; the daemon drains all the same."""
    log = shop.path.with_name(shop.path.name + "-wal")
    with closing(sqlite3.connect(shop.path)) as reader, closing(Pruning(shop.path)) as pruning:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM outbox").fetchone()
        shop.fill("created", [{"id": n, "email": f"ann{n}@example.com"} for n in range(600)])
        shop.drain()
        assert shop.status()["delivered"] == 600
        grown = log.stat().st_size
        assert grown > 1024 * 1024
        assert not pruning.cut_log(limit=0)
        reader.execute("ROLLBACK")
        assert pruning.cut_log(limit=0)
    assert log.stat().st_size < grown
