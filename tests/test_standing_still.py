"""A drainer that stands still for longer than its lease does not answer for its customers any more."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest
import requests

import outboxd
from outboxd import app
from outboxd.admit import admission
from outboxd.brevo.deadline import Allowance, DeadlineAdapter
from outboxd.brevo.sandbox import Fault, Sandbox
from outboxd.delivery import Delivery
from outboxd.errand import Errand
from tests.conftest import until
from tests.outboxes import new_outbox
from tests.processes import Daemon, let_leases_lapse, status, write_config
from tests.shop import KEY, Shop
from tests.torture.judge import account

ANN = {"id": 7, "email": "ann@example.com"}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


def stands_still(daemon: Daemon) -> bool:
    """Stop it, unless that is in the middle of a transaction: everybody else would wait for the end of it."""
    daemon.send(signal.SIGSTOP)
    until(lambda: os.waitid(os.P_PID, daemon.process.pid, os.WSTOPPED | os.WNOHANG))
    with closing(sqlite3.connect(daemon.database, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            daemon.send(signal.SIGCONT)
            return False
    return True


def test_what_was_begun_before_a_stop_is_neither_sent_nor_recorded_after_it(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    """One daemon stands still at a call; another one, which may share, tells what happened meanwhile."""
    sandbox.faults.add(Fault(behaviour="held_answer", path="/contacts", times=1))
    config = write_config(tmp_path / "config.yaml", sandbox.url, brevo={"timeout_seconds": 2})
    outbox = new_outbox(tmp_path / "outbox.db")
    told = [outboxd.enqueue("customer_created", {**ANN, "firstName": "Ann"}, db=outbox)]
    with Daemon(config) as first:
        until(lambda: sandbox.contacts)
        until(lambda: stands_still(first))
        let_leases_lapse(outbox)
        with Daemon(config) as alone:
            assert alone.ended() == 75
        with Daemon(config, "--shared") as second:
            told.append(outboxd.enqueue("customer_updated", {**ANN, "firstName": "Anna"}, db=outbox))
            until(lambda: status(outbox)["delivered"] == 2)
            first.send(signal.SIGCONT)
            first.says("lost=lease")
            told.append(outboxd.enqueue("customer_updated", {**ANN, "lastName": "Archer"}, db=outbox))
            until(lambda: status(outbox)["delivered"] == 3)
            for daemon in (first, second):
                daemon.send(signal.SIGTERM)
            assert [daemon.ended() for daemon in (first, second)] == [0, 0]
    [contact] = sandbox.contacts
    assert contact["attributes"] == {"FIRSTNAME": "Anna", "LASTNAME": "Archer"}
    found = account(outbox, told, sandbox.calls)
    assert (found["lost"], found["recorded more than once"], found["miscounted"]) == (0, 0, 0)
    assert sandbox.stats["largest_overlap"] == 1


def test_no_change_is_told_once_its_lease_might_not_outlast_it(shop: Shop) -> None:
    """Also one that was found in time: others of a convoy may have taken long."""
    shop.enqueue("created", **ANN)
    courier, plan = app.brevo(shop.settings, KEY), app.plan(shop.settings)
    with closing(app.outbox(shop.settings)) as outbox:
        delivery = Delivery(courier, plan, outbox.others, clock=shop.clock)
        outbox.admit([admission(each, plan.reading) for each in outbox.fresh()], shop.clock())
        [claim] = outbox.claim(shop.clock(), limit=1, lease=courier.longest + timedelta(seconds=5))
        errand = delivery.begin(claim)
    assert isinstance(errand, Errand)
    assert errand.change is not None
    shop.later(seconds=6)
    result = delivery.finish(errand)
    assert (result.outcomes, shop.calls) == ({}, [])


def test_nothing_is_sent_after_the_end_of_the_time_for_it(sandbox: Sandbox) -> None:
    """Whatever the process did meanwhile: the end is looked at right before the bytes leave."""
    with requests.Session() as session:
        session.mount("http://", DeadlineAdapter(max_retries=0))
        session.get(f"{sandbox.url}/account", timeout=Allowance(monotonic() + 5), headers={"api-key": KEY})
        with pytest.raises(requests.exceptions.ConnectionError):
            session.get(f"{sandbox.url}/account", timeout=Allowance(monotonic() - 1))
    assert len(sandbox.calls) == 1


def test_a_call_whose_delivery_is_over_is_not_made(sandbox: Sandbox, shop: Shop) -> None:
    brevo = app.brevo(shop.settings, KEY)
    answer = brevo.call("GET", "/account", give_up=monotonic())
    assert answer.status == 0
    assert shop.calls_of("GET", "/account") == []
