"""Whose event is whose: the shop's id decides, an address finds, and one person's events meet."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from outboxd.event import Result, Stamp
from outboxd.keys import address_key
from outboxd.outbox import Admission, Outbox
from tests.test_outbox import DELIVERED, NOON, admit, claim, keys, outbox, write

__all__ = ["outbox"]  # the fixture

JANE, NEW = "jane@example.com", "jane@example.org"


@pytest.mark.parametrize("is_one_batch", [True, False])
@pytest.mark.parametrize(
    "names",
    [
        [("5", JANE), (None, JANE)],
        [("5", JANE), (None, "Jane@Example.COM ")],
        [(None, JANE), ("5", JANE)],
        [(None, JANE), (None, JANE)],
        [(None, JANE), ("5", JANE), ("5", None), (None, JANE)],
        [("5", JANE), ("5", NEW), (None, JANE), (None, NEW)],
        [(None, JANE), ("5", JANE), (None, JANE), ("5", NEW)],
    ],
)
def test_events_of_one_person_meet(
    outbox: Outbox, names: list[tuple[str | None, str | None]], is_one_batch: bool
) -> None:
    """By id, by address, or first as a guest and then registered: one customer, one lease."""
    for part in [names] if is_one_batch else [[name] for name in names]:
        admit(outbox, *part)
    assert len(set(keys(outbox))) == 1
    assert len(claim(outbox)) == 1


@pytest.mark.parametrize("is_one_batch", [True, False])
def test_two_accounts_with_one_address_stay_apart(outbox: Outbox, is_one_batch: bool) -> None:
    names: list[tuple[str | None, str | None]] = [("5", JANE), ("6", JANE), ("5", None), ("6", None)]
    for part in [names] if is_one_batch else [[name] for name in names]:
        admit(outbox, *part)
    assert keys(outbox) == ["custom:5", "custom:6", "custom:5", "custom:6"]


def test_an_address_of_two_accounts_goes_to_the_first(outbox: Outbox) -> None:
    admit(outbox, ("5", JANE))
    admit(outbox, ("6", JANE), (None, JANE))
    assert keys(outbox) == ["custom:5", "custom:6", "custom:5"]


def test_two_shops_keep_their_customers_apart(db: Path) -> None:
    for source in ("shopify", "shopify:second", "magento"):
        with closing(Outbox(db, default_source=source)) as opened:
            admit(opened, ("5", JANE))
            admit(opened, (None, JANE))
    with closing(sqlite3.connect(db)) as connection:
        counted = connection.execute(
            "SELECT customer_key, count(*) FROM outbox GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert counted == [("magento:5", 2), ("shopify:5", 2), ("shopify:second:5", 2)]


def test_a_former_address_still_finds_its_customer(outbox: Outbox) -> None:
    admit(outbox, ("5", JANE))
    (held,) = claim(outbox)
    moved = replace(held.contact, email=NEW, email_at=Stamp(NOON, 1), synced_email=NEW)
    outbox.record([Result(held, {1: DELIVERED}, moved)], NOON)
    admit(outbox, (None, JANE), (None, NEW))
    assert keys(outbox) == ["custom:5"] * 3


def test_the_address_of_the_gone_goes_to_whoever_has_it_next(outbox: Outbox) -> None:
    admit(outbox, ("5", JANE))
    (held,) = claim(outbox)
    gone = replace(held.contact, deleted_at=Stamp(NOON, 1))
    outbox.record([Result(held, {1: DELIVERED}, gone)], NOON)
    admit(outbox, ("6", JANE))
    admit(outbox, (None, JANE))
    assert keys(outbox) == ["custom:5", "custom:6", "custom:6"]


@pytest.mark.parametrize("customer_id", [JANE, "Jane Doe", "x" * 41, "a:b", "@1", "#1", "Zoë"])
def test_no_key_holds_what_may_name_a_person(outbox: Outbox, customer_id: str) -> None:
    admit(outbox, (customer_id, JANE), (None, NEW))
    assert all(not {"@" + JANE, JANE, NEW, customer_id} & {key, key[7:]} for key in keys(outbox))
    assert len(set(keys(outbox))) == 2
    with closing(sqlite3.connect(outbox.path)) as connection:
        told = str(connection.execute("SELECT * FROM addresses").fetchall())
    assert JANE not in told
    assert NEW not in told


def test_an_id_and_an_address_that_look_alike_are_two(outbox: Outbox) -> None:
    admit(outbox, ("@" + address_key(JANE), None), (None, JANE), ("#x", None))
    assert len(set(keys(outbox))) == 3


def test_an_admission_that_came_to_nothing_leaves_no_customer(outbox: Outbox) -> None:
    write(outbox)
    outbox.admit([Admission(outbox.fresh()[0], outcome=DELIVERED)], NOON)
    with closing(sqlite3.connect(outbox.path)) as connection:
        assert connection.execute("SELECT count(*) FROM contacts").fetchone() == (0,)


@pytest.mark.parametrize("is_delivered", [True, False])
def test_an_id_takes_over_the_guest_who_had_its_address(outbox: Outbox, is_delivered: bool) -> None:
    """An order of a guest, news of an id without an address, then news of both: one person after all."""
    admit(outbox, (None, JANE))
    if is_delivered:
        (held,) = claim(outbox)
        known = replace(held.contact, email=JANE, synced_email=JANE, is_overtaken=True)
        outbox.record([Result(held, {1: DELIVERED}, known)], NOON)
    admit(outbox, ("5", None))
    admit(outbox, ("5", JANE), (None, JANE))
    assert keys(outbox)[1:] == ["custom:5"] * 3
    (held,) = claim(outbox)
    assert len(held.events) == (3 if is_delivered else 4)
    assert held.contact.synced_email == (JANE if is_delivered else None)
    assert held.contact.is_overtaken == is_delivered
    assert not outbox.others("custom:5", JANE).are_alive


def test_one_batch_can_reveal_that_a_guest_has_an_id(outbox: Outbox) -> None:
    admit(outbox, ("5", None))
    admit(outbox, (None, JANE), ("5", JANE), (None, JANE))
    assert keys(outbox) == ["custom:5"] * 4
