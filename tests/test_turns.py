"""Turns at an address: whose they are, how long others wait for them, and that nobody keeps one for ever."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta

import pytest

from outboxd import addresses
from outboxd.addresses import LEAST_ASIDE, LONG_ASIDE, MOST_ASIDE, Addresses, Turn
from outboxd.importing import FEW
from tests.shop import MakeShop, Shop

ANN, BOB, CLEO = ("custom:ann", "1"), ("custom:bob", "1"), ("custom:cleo", "1")
LATER = ("custom:ann", "2")


class Watch:
    """A clock that stands until it is told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def begins(addresses: Addresses, turn: Turn, *wanted: str) -> bool:
    addresses.expect([(turn, wanted)])
    return addresses.take(turn, wanted) is None


def test_the_late_end_of_a_lost_claim_lets_go_of_nothing_that_the_next_one_has() -> None:
    taken = Addresses()
    assert begins(taken, ANN, "x")
    assert begins(taken, LATER, "x")
    taken.leave(ANN)
    assert not begins(taken, BOB, "x")
    taken.leave(LATER)
    assert begins(taken, CLEO, "x")


def test_the_late_end_of_a_lost_claim_takes_no_turn_from_the_next_one() -> None:
    taken = Addresses()
    assert begins(taken, ANN, "x")
    taken.expect([(LATER, ["x"])])
    taken.leave(ANN)
    assert taken.take(LATER, ["x"]) == "x", "it knows nothing of what the first one told"


def test_a_claim_lets_go_of_what_an_earlier_one_of_its_customer_left_behind() -> None:
    """Also of addresses that it does not know of: events that are given up say nothing."""
    taken = Addresses()
    assert begins(taken, ANN, "x", "y")
    assert begins(taken, LATER, "x")
    taken.leave(LATER)
    assert begins(taken, BOB, "x", "y")


def test_whoever_steps_aside_comes_back_one_after_the_other() -> None:
    watch = Watch()
    taken = Addresses(watch)
    assert begins(taken, ANN, "x")
    assert [taken.line_up("x") for _ in range(3)] == pytest.approx([LEAST_ASIDE * n for n in (1, 2, 3)])
    assert taken.line_up("y") == pytest.approx(LEAST_ASIDE), "the lines are one for each address"
    watch.seconds += 1.0
    assert taken.line_up("x") == pytest.approx(LEAST_ASIDE), "and over when their time is"


@pytest.mark.parametrize(("held", "aside"), [(0.001, LEAST_ASIDE), (0.1, 0.05), (60.0, MOST_ASIDE)])
def test_to_step_aside_takes_as_long_as_deliveries_do(held: float, aside: float) -> None:
    watch = Watch()
    taken = Addresses(watch)
    assert begins(taken, ANN, "x")
    watch.seconds += held
    taken.leave(ANN)
    assert taken.line_up("x") == pytest.approx(aside)


def test_an_import_is_waited_for_for_long_and_says_nothing_of_deliveries() -> None:
    watch = Watch()
    taken = Addresses(watch)
    taken.bar(ANN, "x")
    assert taken.line_up("x") == LONG_ASIDE
    watch.seconds += 60.0
    taken.leave(ANN)
    assert taken.line_up("x") == pytest.approx(LEAST_ASIDE)


# In a relay


def counting_claims(shop: Shop) -> Callable[[], int]:
    with closing(sqlite3.connect(shop.path)) as connection, connection:
        connection.execute("CREATE TABLE claims (id INTEGER)")
        connection.execute(
            "CREATE TRIGGER claimed AFTER UPDATE OF claimed_at ON outbox WHEN NEW.claimed_at IS NOT NULL"
            " BEGIN INSERT INTO claims VALUES (NEW.id); END"
        )
    return lambda: int(shop.rows("SELECT count(*) FROM claims")[0][0])


def test_a_hundred_customers_with_one_address_are_claimed_a_few_times_each(make_shop: MakeShop) -> None:
    """If all came back together it would be a thousand and more in all, however fast they are delivered."""
    shop = make_shop({"latency": timedelta(milliseconds=5)})
    claims = counting_claims(shop)
    people = 100
    shop.fill("created", [{"id": n, "email": "ann@example.com", "firstName": str(n)} for n in range(people)])
    shop.drain()
    assert shop.status()["delivered"] == people
    assert claims() < 9 * people


SLOW = {"import_delay": timedelta(seconds=1)}


def test_a_drain_waits_for_whoever_stepped_aside_for_an_import(
    make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "LONG_ASIDE", 3.5)
    shop = make_shop(SLOW, options={"sync_mode": "batch", "list_id": 5})
    shop.fill("created", [{"id": n, "email": f"ann{n}@example.com"} for n in range(FEW + 1)])
    shop.fill("created", [{"id": "last", "email": "ann7@example.com", "firstName": "Anna"}])
    shop.drain()
    assert shop.relay.is_drained
    assert shop.status()["pending"] == 0
    assert shop.contact("ann7@example.com")["attributes"] == {"FIRSTNAME": "Anna"}


@pytest.mark.parametrize("many", [1, FEW + 2])
def test_a_row_that_was_lost_before_it_is_sent_keeps_nobody_waiting(shop: Shop, many: int) -> None:
    """Whether it was to go alone or in an import: another hand has ended its claim."""
    shop.reopen(options={"list_id": 5})
    people = [{"id": n, "email": f"ann{n}@example.com"} for n in range(many)]
    shop.fill("updated", people, is_backfill=True)
    in_flight = "SELECT count(*) FROM outbox WHERE claimed_at IS NOT NULL"
    shop.run_until(lambda: shop.rows(in_flight) == [(many,)] and not shop.relay.is_busy)
    assert shop.calls == []
    with closing(sqlite3.connect(shop.path)) as connection, connection:
        connection.execute(
            "UPDATE outbox SET status = 'delivered', finished_at = created_at, is_head = 0, claimed_at = NULL"
            " WHERE id = 1"
        )
    shop.settle()
    event = shop.enqueue("created", id="other", email="ann0@example.com")
    shop.run_until(lambda: shop.event(event)["status"] == "delivered", within=5)
