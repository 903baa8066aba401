"""One person leaves while a daemon delivers others: nobody else's contact leaves with them."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

import outboxd
from outboxd import app, config, database, erase
from outboxd.brevo.sandbox import Sandbox
from outboxd.delivery import Delivery
from outboxd.erase import Eraser, PutOffError
from outboxd.event import Others
from tests.conftest import until
from tests.processes import Daemon, let_leases_lapse, status, write_config
from tests.shop import KEY, MakeShop, Shop

ANN = "ann@example.com"
OLD = {"id": 7, "email": ANN, "firstName": "Annabel", "lastName": "Archer"}
NEW = {"id": 9, "email": ANN, "firstName": "Anna"}
ANNA = {"FIRSTNAME": "Anna"}


def test_whom_a_daemon_tells_just_then_keeps_a_contact(tmp_path: Path) -> None:
    """It stands still between Brevo's having it and the record of that."""
    with Sandbox(latency=timedelta(seconds=2)) as sandbox:
        path = write_config(tmp_path / "config.yaml", sandbox.url, brevo={"timeout_seconds": 60})
        db = tmp_path / "outbox.db"
        database.migrate(db)
        with Daemon(path) as daemon:
            outboxd.enqueue("customer_created", OLD, db=db)
            until(lambda: status(db)["delivered"] == 1)
            outboxd.enqueue("customer_created", NEW, db=db)
            until(lambda: attributes(sandbox)[0]["FIRSTNAME"] == "Anna")
            until(lambda: stands_still(daemon))
            with app.erasing(config.read(path), KEY) as eraser:
                assert eraser.erase("7").told == {"custom:7": "removed"}
            assert sandbox.contacts == []
            daemon.send(signal.SIGCONT)
            daemon.says("lost")
            let_leases_lapse(db)
            until(lambda: status(db)["pending"] == 0)
        assert attributes(sandbox) == [ANNA]


def stands_still(daemon: Daemon) -> bool:
    """Stop it, unless that is in the middle of writing or reading, for an erasure waits for that."""
    daemon.send(signal.SIGSTOP)
    until(lambda: os.waitid(os.P_PID, daemon.process.pid, os.WSTOPPED | os.WNOHANG))
    with closing(sqlite3.connect(daemon.database, timeout=0)) as connection:
        [(is_busy, _, _)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if is_busy:
        daemon.send(signal.SIGCONT)
    return not is_busy


def attributes(sandbox: Sandbox) -> list[dict[str, str]]:
    return [contact["attributes"] for contact in sandbox.contacts]


@contextmanager
def eraser_beside(shop: Shop) -> Iterator[Eraser]:
    """One who is beaten to it: somebody else registers once it is known that nobody else has the contact."""
    plan, courier = app.plan(shop.settings), app.brevo(shop.settings, KEY)
    with closing(app.outbox(shop.settings)) as outbox:

        def others(customer_key: str, email: str) -> Others:
            told = outbox.others(customer_key, email)
            shop.sent("created", **NEW)
            return told

        delivery = Delivery(courier, plan, others, clock=shop.clock)
        yield Eraser(outbox, delivery, plan, clock=shop.clock, lease=timedelta(minutes=1))


def test_whom_a_daemon_told_meanwhile_is_told_again(shop: Shop) -> None:
    shop.sent("created", **OLD)
    with eraser_beside(shop) as eraser:
        shop.later(seconds=1)
        eraser.erase("7")
    assert shop.sandbox.contacts == []
    shop.later(seconds=1)
    shop.drain()
    assert shop.contact(ANN)["attributes"] == ANNA


def test_an_import_with_the_address_is_waited_for(
    make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "PATIENCE", 0.0)
    shop = make_shop({"import_delay": timedelta(hours=1)}, options={"sync_mode": "batch", "list_id": 5})
    shop.sent("created", **OLD)
    shop.fill("created", [NEW, *({"id": n, "email": f"c{n}@example.com"} for n in range(100, 200))])
    under_way = "SELECT count(*) FROM import_rows"
    shop.run_until(lambda: shop.rows(under_way) == [(101,)])
    with app.erasing(shop.settings, KEY, shop.clock) as eraser, pytest.raises(PutOffError, match="import"):
        eraser.erase("7")
    assert shop.contact(ANN)
