"""Events that name an address alone: whose they are, of all who have the address or had it."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboxd import app, clock
from outboxd.brevo.sandbox import Fault
from outboxd.event import Claim, Contact, Result, Stamp
from outboxd.keys import address_key
from outboxd.outbox import Outbox
from tests.shop import KEY, MakeShop, Shop
from tests.test_outbox import DELIVERED, at, claim, keys, outbox
from tests.test_outbox import admit as admit_at

__all__ = ["outbox"]  # the fixture

ANN, BEA, CLEO = "ann@example.com", "bea@example.com", "cleo@example.com"

BEHAVIORS = pytest.mark.parametrize("behavior", ["soft", "hard"])


# Whose it is


def admit(outbox: Outbox, *names: tuple[str | None, str | None]) -> None:
    admit_at(outbox, *names)


def deliver(outbox: Outbox, minute: float, *, to: str | None, is_gone: bool = False) -> None:
    """Whatever is due ends: the customer is at this address by then, or is deleted."""
    for held in claim(outbox, minute):
        outbox.record(
            [Result(held, dict.fromkeys(ids(held), DELIVERED), ended(held, minute, to, is_gone))], at(minute)
        )


def ids(held: Claim) -> list[int]:
    return [event.id for event in held.events]


def ended(held: Claim, minute: float, to: str | None, is_gone: bool) -> Contact:
    stamp = Stamp(at(minute), ids(held)[0])
    there = replace(held.contact, email=to, synced_email=to)
    return replace(there, deleted_at=stamp) if is_gone else replace(there, email_at=stamp)


def lives(outbox: Outbox, minute: float, customer_id: str | None, address: str) -> None:
    """A customer comes to an address."""
    admit(outbox, (customer_id, address))
    deliver(outbox, minute, to=address)


def goes(outbox: Outbox, minute: float, customer_id: str) -> None:
    """A customer is removed for good."""
    admit(outbox, (customer_id, None))
    deliver(outbox, minute, to=None, is_gone=True)


def whose(outbox: Outbox, address: str) -> str:
    admit(outbox, (None, address))
    return keys(outbox)[-1]


def test_it_is_not_whose_the_address_was_first(outbox: Outbox) -> None:
    lives(outbox, 1, "1", ANN)
    lives(outbox, 2, "1", BEA)
    lives(outbox, 3, "2", ANN)
    assert whose(outbox, ANN) == "custom:2"


def test_it_is_whose_address_it_is_and_not_of_one_who_is_gone(outbox: Outbox) -> None:
    lives(outbox, 1, "1", ANN)
    lives(outbox, 2, "2", ANN)
    goes(outbox, 3, "1")
    assert whose(outbox, ANN) == "custom:2"


def test_of_several_it_is_whoever_the_shop_has_known_longest(outbox: Outbox) -> None:
    for minute, customer_id in enumerate(("10", "9", "11"), 1):
        lives(outbox, minute, customer_id, ANN)
    assert whose(outbox, ANN) == "custom:9"


def test_of_several_it_is_the_one_who_is_known_by_the_address_alone(outbox: Outbox) -> None:
    """Who could not be taken over, for they were in flight."""
    admit(outbox, (None, ANN))
    (held,) = claim(outbox)
    admit(outbox, ("1", ANN), (None, ANN))
    guest, named, second = keys(outbox)
    assert (named, second) == ("custom:1", guest)
    known = replace(held.contact, email=ANN, synced_email=ANN)
    outbox.record([Result(held, {1: DELIVERED}, known)], at(1))
    assert whose(outbox, ANN) == guest
    admit(outbox, ("1", ANN))
    assert whose(outbox, ANN) == "custom:1", "the same person after all"


def test_whoever_is_yet_to_be_delivered_there_comes_before_those_who_left(outbox: Outbox) -> None:
    lives(outbox, 1, "1", ANN)
    goes(outbox, 2, "1")
    lives(outbox, 3, "2", BEA)
    admit(outbox, ("2", ANN))
    assert whose(outbox, ANN) == "custom:2"


def test_whoever_lives_there_comes_before_one_who_is_yet_to_be_delivered_there(outbox: Outbox) -> None:
    lives(outbox, 1, "5", ANN)
    lives(outbox, 2, "2", BEA)
    admit(outbox, ("2", ANN), ("3", ANN))
    assert whose(outbox, ANN) == "custom:5"


@pytest.mark.parametrize("last", ["gone", "elsewhere"])
def test_where_nobody_lives_any_more_it_is_whose_it_was_last(outbox: Outbox, last: str) -> None:
    minutes = iter((2, 3) if last == "gone" else (3, 2))
    lives(outbox, 1, "1", ANN)
    lives(outbox, 1, "2", ANN)
    for leaves in sorted(((next(minutes), "elsewhere"), (next(minutes), "gone"))):
        if leaves[1] == "gone":
            goes(outbox, leaves[0], "1")
        else:
            lives(outbox, leaves[0], "2", BEA)
    assert whose(outbox, ANN) == {"gone": "custom:1", "elsewhere": "custom:2"}[last]


def test_a_guest_who_is_elsewhere_by_now_is_not_taken_for_whoever_registers(outbox: Outbox) -> None:
    lives(outbox, 1, None, ANN)
    (guest,) = keys(outbox)
    admit_at(outbox, (None, ANN))
    deliver(outbox, 2, to=BEA)
    lives(outbox, 3, "1", ANN)
    assert keys(outbox)[-1] == "custom:1"
    assert whose(outbox, BEA) == guest


def test_an_event_of_somebody_known_writes_no_address_anew(outbox: Outbox) -> None:
    lives(outbox, 1, "1", ANN)
    lives(outbox, 2, "2", ANN)
    with closing(sqlite3.connect(outbox.path)) as connection, connection:
        for change in ("INSERT", "UPDATE", "DELETE"):
            connection.execute(
                f"CREATE TRIGGER no_{change} AFTER {change} ON addresses"
                " BEGIN SELECT RAISE(ABORT, 'written'); END"
            )
    for customer_id in ("1", "2", None):
        lives(outbox, 3, customer_id, ANN)
    assert keys(outbox)[2:] == ["custom:1", "custom:2", "custom:1"]


# What comes of it


def people(shop: Shop) -> dict[str, bool]:
    """Who is in Brevo, and whether they are opted out."""
    return {each["email"]: each["emailBlacklisted"] for each in shop.sandbox.contacts}


def tell(shop: Shop, event: str, /, **data: Any) -> dict[str, Any]:
    """A word, some time after the one before."""
    shop.later(seconds=1)
    return shop.sent(event, **data)


@BEHAVIORS
def test_an_opt_out_of_an_address_is_told_where_somebody_has_it(make_shop: MakeShop, behavior: str) -> None:
    shop = make_shop(options={"delete_behavior": behavior})
    tell(shop, "created", id=1, email=ANN)
    tell(shop, "updated", id=1, email=BEA)
    tell(shop, "created", id=2, email=ANN)
    tell(shop, "created", id=3, email=ANN)
    tell(shop, "deleted", id=2)
    tell(shop, "updated", email=ANN, acceptsMarketing=False)
    assert people(shop) == {ANN: True, BEA: False}


def test_a_deletion_by_address_is_about_one_and_the_contact_stays_while_another_has_it(
    make_shop: MakeShop,
) -> None:
    shop = make_shop(options={"delete_behavior": "hard"})
    for customer_id in (2, 1):
        tell(shop, "created", id=customer_id, email=ANN)
    assert tell(shop, "deleted", email=ANN)["customer_key"] == "custom:1"
    assert people(shop) == {ANN: False}
    assert tell(shop, "deleted", email=ANN)["customer_key"] == "custom:2"
    assert people(shop) == {}


def redacted(shop: Shop) -> set[str]:
    return {key for (key,) in shop.rows("SELECT customer_key FROM contacts WHERE is_redacted")}


@BEHAVIORS
def test_a_redaction_by_address_is_about_all_who_have_it(make_shop: MakeShop, behavior: str) -> None:
    """Also of those who were deleted, or never delivered; not of those who moved away."""
    shop = make_shop(options={"delete_behavior": behavior})
    tell(shop, "created", id=1, email=ANN, firstName="Annabel")
    tell(shop, "updated", id=1, email=BEA)
    for customer_id in (2, 3, 4):
        tell(shop, "created", id=customer_id, email=ANN, firstName="Annabel")
    tell(shop, "deleted", id=3)
    shop.sandbox.faults.add(Fault(status=503, times=1))
    assert tell(shop, "created", id=5, email=ANN, firstName="Annabel")["status"] == "pending"
    assert tell(shop, "redacted", email=ANN)["customer_key"] == "custom:2"
    shop.later(hours=1)
    shop.drain()
    assert people(shop) == {BEA: False}
    assert redacted(shop) == {f"custom:{number}" for number in (2, 3, 4, 5)}
    kept = "SELECT count(*) FROM outbox WHERE payload <> '{}' AND customer_key <> 'custom:1'"
    assert shop.rows(kept) == [(0,)]
    assert (shop.status()["pending"], shop.status()["dead"]) == (0, 0)


def test_a_redaction_by_address_brings_to_an_end_what_one_admission_takes_in(make_shop: MakeShop) -> None:
    shop = make_shop(options={"delete_behavior": "soft"})
    shop.enqueue("created", email=ANN)
    shop.enqueue("created", id=1, email=ANN)
    shop.enqueue("created", id=2, email=ANN)
    shop.later(seconds=1)
    shop.enqueue("redacted", email=ANN)
    shop.drain()
    assert people(shop) == {}
    heirs = shop.rows("SELECT customer_key FROM contacts WHERE is_redacted ORDER BY 1")
    assert heirs == [("custom:2",), (f"custom:@{address_key(ANN)}",)]
    shop.later(seconds=1)
    again = tell(shop, "redacted", email=ANN)
    assert (again["status"], shop.status()["pending"]) == ("delivered", 0)


def test_a_copy_of_a_redaction_is_told_as_late_as_the_original(make_shop: MakeShop) -> None:
    """Who registered after it stays."""
    shop = make_shop(options={"delete_behavior": "hard"})
    tell(shop, "created", id=1, email=ANN)
    tell(shop, "created", id=2, email=ANN)
    said_at = clock.to_text(shop.clock())
    tell(shop, "created", id=2, email=ANN)
    shop.enqueue("redacted", email=ANN, updatedAt=said_at)
    shop.drain()
    assert redacted(shop) == {"custom:1"}
    assert people(shop) == {ANN: False}


def test_an_erasure_by_address_finds_a_guest_and_all_accounts(make_shop: MakeShop) -> None:
    shop = make_shop(options={"delete_behavior": "hard"})
    tell(shop, "created", email=ANN, firstName="Annabel")
    tell(shop, "deleted", email=ANN)
    tell(shop, "created", id=1, email=ANN, firstName="Annabel")
    tell(shop, "created", id=2, email=ANN, firstName="Annabel")
    shop.later(seconds=1)
    with app.erasing(shop.settings, KEY, shop.clock) as eraser:
        assert eraser.erase(ANN).is_complete
    assert people(shop) == {}
    assert shop.rows("SELECT count(*) FROM outbox WHERE payload <> '{}'") == [(0,)]


@pytest.mark.parametrize(("whom", "left"), [(2, 2), (1, 1)])
def test_what_was_said_of_a_guest_is_the_heirs_and_not_of_others_at_the_address(
    shop: Shop, whom: int, left: int
) -> None:
    """Of the one who turned out to be the guest it goes with them; whoever shares the address leaves it."""
    tell(shop, "created", email=ANN, firstName="Annabel")
    shop.enqueue("updated", id=1, firstName="Annabel")
    shop.drain()
    tell(shop, "updated", id=1, email=ANN, firstName="Annabel")
    tell(shop, "created", id=2, email=ANN, firstName="Bob")
    before = shop.rows("SELECT count(*) FROM outbox WHERE payload LIKE '%Annabel%'")
    tell(shop, "redacted", id=whom)
    after = shop.rows("SELECT count(*) FROM outbox WHERE payload LIKE '%Annabel%'")
    assert after == (before if whom == 2 else [(0,)])
    assert len(shop.sandbox.contacts) == 1


@pytest.mark.parametrize("is_late", [False, True])
def test_a_guests_contact_always_is_somebodys_though_the_account_at_the_address_has_left_it(
    make_shop: MakeShop, is_late: bool
) -> None:
    """News of the address may come late, when the account is elsewhere by now: then it stays the guest's."""
    shop = make_shop(options={"delete_behavior": "hard"})
    tell(shop, "created", email=ANN, firstName="Annabel")
    moments = []
    for _ in range(2):
        shop.later(seconds=1)
        moments.append(clock.to_text(shop.clock()))
    news = [
        {"id": 1, "email": address, "updatedAt": at} for address, at in zip((ANN, BEA), moments, strict=True)
    ]
    for data in reversed(news) if is_late else news:
        tell(shop, "updated", **data)
    assert people(shop) == ({ANN: False, BEA: False} if is_late else {BEA: False})
    tell(shop, "redacted", id=1, email=ANN)
    assert people(shop) == {}
    assert shop.rows("SELECT count(*) FROM outbox WHERE payload <> '{}'") == [(0,)]


@pytest.mark.parametrize("is_new", [True, False])
def test_of_two_guests_with_contacts_an_account_takes_over_the_one_at_its_own_address(
    make_shop: MakeShop, is_new: bool
) -> None:
    """Though old news of the other address is folded away, together with the news that made it old."""
    shop = make_shop(options={"delete_behavior": "hard"})
    for address in (ANN, CLEO):
        tell(shop, "created", email=address, firstName="Annabel")
    if not is_new:
        tell(shop, "created", id=1, email=BEA)
    shop.later(seconds=1)
    before = clock.to_text(shop.clock())
    shop.later(seconds=1)
    shop.enqueue("updated", id=1, email=CLEO)
    shop.enqueue("updated", id=1, email=ANN, updatedAt=before)
    shop.drain()
    assert people(shop) == {ANN: False, CLEO: False}
    for address in (ANN, CLEO):
        tell(shop, "redacted", id=1, email=address)
    assert people(shop) == {}


# What those who left had said against mails


LEAVES = {
    "deleted": [("deleted", {})],
    "redacted": [("redacted", {})],
    "moved": [("updated", {"email": CLEO})],
    "moved, and opted in there": [
        ("updated", {"email": CLEO}),
        ("updated", {"acceptsMarketing": True}),
    ],
    "moved and opted in at once": [("updated", {"email": CLEO, "acceptsMarketing": True})],
}


@pytest.mark.parametrize("leaves", LEAVES.values(), ids=LEAVES)
@BEHAVIORS
def test_the_opt_out_of_one_who_left_is_lifted_only_by_a_later_opt_in(
    make_shop: MakeShop, behavior: str, leaves: Sequence[tuple[str, dict[str, Any]]]
) -> None:
    shop = make_shop(options={"delete_behavior": behavior})
    for customer_id in (2, 3):
        tell(shop, "created", id=customer_id, email=ANN, acceptsMarketing=False)
    tell(shop, "created", id=1, email=ANN)
    shop.later(seconds=1)
    before = clock.to_text(shop.clock())
    tell(shop, "updated", id=1, acceptsMarketing=False)
    for event, data in leaves:
        tell(shop, event, id=1, **data)
    tell(shop, "updated", id=2, acceptsMarketing=True, updatedAt=before)
    assert people(shop)[ANN]
    tell(shop, "deleted", id=2)  # they had opted out later than 3 will have
    shop.later(seconds=1)
    tell(shop, "updated", id=3, acceptsMarketing=True)
    assert not people(shop)[ANN]


def test_the_opt_out_of_a_guest_who_turns_out_to_be_known_is_lifted_only_by_a_later_opt_in(
    shop: Shop,
) -> None:
    tell(shop, "created", id=1, email=BEA, acceptsMarketing=False)
    shop.later(seconds=1)
    before = clock.to_text(shop.clock())
    tell(shop, "updated", email=ANN, acceptsMarketing=False)
    tell(shop, "updated", id=1, email=ANN, acceptsMarketing=True, updatedAt=before)
    assert people(shop) == {ANN: True}
    tell(shop, "updated", id=1, acceptsMarketing=False)
    tell(shop, "updated", id=1, acceptsMarketing=True)
    assert people(shop) == {ANN: False}


def test_who_moves_alone_leaves_no_opt_out_behind(shop: Shop) -> None:
    """The contact goes along: whoever comes to the address afterwards has one of their own."""
    tell(shop, "created", id=1, email=ANN, acceptsMarketing=False)
    tell(shop, "updated", id=1, email=BEA)
    assert shop.rows("SELECT DISTINCT out_at FROM addresses") == [(None,)]


# What the others said


def test_a_blank_hides_no_value_that_a_third_one_said(shop: Shop) -> None:
    times = [clock.to_text(shop.clock())]
    for _ in range(3):
        shop.later(seconds=1)
        times.append(clock.to_text(shop.clock()))
    shop.sent("created", id=1, email=ANN, firstName="Ann", updatedAt=times[2])
    shop.sent("created", id=2, email=ANN, firstName="", updatedAt=times[3])
    late = shop.sent("created", id=3, email=ANN, firstName="Old", updatedAt=times[1])
    assert shop.contact(ANN)["attributes"] == {"FIRSTNAME": "Ann"}
    assert late["status"] == "delivered"


SPOILED: tuple[str | bytes, ...] = (
    "{garbage",
    "[]",
    '{"FIRSTNAME": 7}',
    '{"FIRSTNAME": "x"}',
    "[" * 100_000,
    b"\xff",
    "null",
    "7",
)
SPOILED += ('{"FIRSTNAME": ["yesterday", "x"]}', '{"FIRSTNAME": ["2026-99-99T00:00:00.000Z#1"]}')


def test_what_was_spoiled_of_some_keeps_nobody_from_knowing_the_others(outbox: Outbox) -> None:
    told = '{"FIRSTNAME":["2026-01-02T00:00:00.000Z#7","x"],"CITY":["2026-01-01T00:00:00.000Z#2","y"]}'
    rows: list[tuple[Any, Any]] = [(each, "2026-01-01T00:00:00.000Z#1") for each in SPOILED]
    rows += [
        (told, "\udcff".encode("utf-8", "surrogateescape")),
        (told, "soon"),
        (told, "2026-01-03T00:00:00.000Z#8"),
    ]
    with closing(sqlite3.connect(outbox.path)) as connection, connection:
        connection.executemany(
            "INSERT INTO contacts (customer_key, source, synced_email, fields, consent_at, accepts_marketing)"
            " VALUES (?, 'custom', ?, ?, ?, 0)",
            [(f"custom:{number}", ANN, *row) for number, row in enumerate(rows)],
        )
    others = outbox.others("custom:x", ANN)
    assert others.are_alive
    assert str(others.out_at) == "2026-01-03T00:00:00.000Z#8"
    assert {name: str(each.stamp.event_id) for name, each in others.said.items()} == {
        "FIRSTNAME": "7",
        "CITY": "2",
    }


# For all stories


PLACES = (ANN, BEA, CLEO)

Step = tuple[str, int, int]
"""What happens, to which customer, at which address."""


@st.composite
def stories(draw: st.DrawFn) -> list[Step]:
    """Customers come, move and go; and things are said of addresses, whoever has them."""
    words = ["comes"] * 3 + ["goes", "opts out", "opts out", "deletion", "redaction"]
    steps = st.tuples(st.sampled_from(words), st.integers(1, 4), st.integers(0, 2))
    return draw(st.lists(steps, min_size=3, max_size=10))


def test_what_names_an_address_alone_is_about_the_contact_there_and_no_other(make_shop: MakeShop) -> None:
    """An opt-out is in force there, a redaction removes it, a deletion does once nobody has it any more."""
    shop = make_shop(options={"delete_behavior": "hard"})
    examples = count()

    @settings(max_examples=30, derandomize=True, database=None, deadline=None)
    @given(stories())
    def holds(story: list[Step]) -> None:
        example = next(examples)
        homes: dict[int, str] = {}
        for word, customer, place in story:
            address = f"{example}{PLACES[place]}"
            customer_id = f"{example}0{customer}"
            if word == "comes":
                tell(shop, "updated" if customer in homes else "created", id=customer_id, email=address)
                homes[customer] = address
            elif word == "goes":
                if homes.pop(customer, None):
                    tell(shop, "deleted", id=customer_id)
            elif address in homes.values():
                before = people(shop)
                here = sorted(each for each, home in homes.items() if home == address)
                if word == "opts out":
                    tell(shop, "updated", email=address, acceptsMarketing=False)
                    assert people(shop) == {**before, address: True}
                    continue
                tell(shop, "deleted" if word == "deletion" else "redacted", email=address)
                for each in here if word == "redaction" else here[:1]:
                    del homes[each]
                if address in homes.values():
                    assert people(shop) == before
                else:
                    assert people(shop) == {each: out for each, out in before.items() if each != address}
            own = tuple(f"{example}{each}" for each in PLACES)
            there = {email for email in people(shop) if email in own}
            assert there == set(homes.values())
        assert (shop.status()["pending"], shop.status()["dead"]) == (0, 0)
        for customer in homes:
            tell(shop, "deleted", id=f"{example}0{customer}")

    holds()


WORDS: tuple[str, ...] = ("comes", "moves", "moves after an opt-out", "goes", "goes after an opt-out")
WORDS += ("opts out", "opts in", "opts in late", "opts in late")


def test_where_the_last_word_was_an_opt_out_nobody_is_subscribed(make_shop: MakeShop) -> None:
    """Whoever of those who had the address said it, and wherever they are by now."""
    shop = make_shop(options={"delete_behavior": "hard"})
    examples = count()

    @settings(max_examples=25, derandomize=True, database=None, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(WORDS), st.integers(1, 3)), min_size=2, max_size=5))
    def holds(story: list[tuple[str, int]]) -> None:
        """Three customers at one address have opted out to begin with; the other address is empty."""
        example = next(examples)
        here, there = (f"{example}{place}" for place in (ANN, BEA))
        homes = dict.fromkeys((1, 2, 3), here)
        said: dict[str, dict[str, bool]] = {}  # at each address since then, by when it was said
        for customer in homes:
            shop.enqueue("created", id=f"{example}0{customer}", email=here, acceptsMarketing=False)
        shop.drain()
        shop.later(minutes=1)
        begun_at = shop.clock()

        def speak(customer: int, *, accepts: bool, is_late: bool = False) -> None:
            moment = begun_at + timedelta(seconds=customer) if is_late else shop.clock()
            said_at = clock.to_text(moment)
            shop.sent("updated", id=f"{example}0{customer}", acceptsMarketing=accepts, updatedAt=said_at)
            said.setdefault(homes[customer], {})[said_at] = accepts

        for word, customer in story:
            customer_id = f"{example}0{customer}"
            shop.later(minutes=1)
            if word == "comes" and customer not in homes:
                shop.sent("created", id=customer_id, email=here)
                homes[customer] = here
            elif customer not in homes:
                continue
            elif word.startswith("opts"):
                speak(customer, accepts=word != "opts out", is_late=word.endswith("late"))
            else:
                if word.endswith("opt-out"):
                    speak(customer, accepts=False)
                    shop.later(minutes=1)
                if word.startswith("goes"):
                    shop.sent("deleted", id=customer_id)
                    del homes[customer]
                else:
                    homes[customer] = there if homes[customer] == here else here
                    shop.sent("updated", id=customer_id, email=homes[customer])
            for address in said.keys() - set(homes.values()):
                del said[address]
            for address, words in said.items():
                if not words[max(words)]:
                    assert shop.contact(address)["emailBlacklisted"]

    holds()
