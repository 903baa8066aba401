"""Convoys: many contacts in one call end as if each had gone alone, whoever among them spoils it."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from itertools import count
from math import log2
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from outboxd import app
from outboxd.brevo.paths import contact_path
from outboxd.brevo.sandbox import Fault
from outboxd.errors import DatabaseError
from outboxd.event import digest
from outboxd.outbox import CHUNK
from outboxd.values import CLEARED
from tests.shop import KEY, MakeShop, Shop
from tests.stories import META_KEY, PLATFORMS, story

BATCH = "/contacts/batch"

QUICK = {"import_delay": timedelta(milliseconds=1)}

OPTIONS = {"sync_mode": "batch", "list_id": 5}

BAD_PHONE = "+49123"
"""With its country, so that it is left to Brevo to judge, which takes no number so short."""


def news(number: int, **data: Any) -> dict[str, Any]:
    return {"id": number, "email": f"ann{number}@example.com", "firstName": f"Ann {number}", **data}


def tell(shop: Shop, numbers: Iterable[int]) -> list[int]:
    return shop.fill("updated", [news(number) for number in numbers])


def attempts(shop: Shop, ids: Iterable[int]) -> list[int]:
    return [shop.event(each)["attempts"] for each in ids]


def statuses(shop: Shop, ids: Iterable[int]) -> set[str]:
    return {shop.event(each)["status"] for each in ids}


def has_news(shop: Shop, number: int) -> Any:
    return shop.contact(f"ann{number}@example.com")["attributes"].get("FIRSTNAME") == f"Ann {number}"


@pytest.fixture
def shop(make_shop: MakeShop) -> Shop:
    return make_shop(QUICK, options=OPTIONS)


def test_a_batch_is_recorded_while_the_next_one_is_under_way(make_shop: MakeShop) -> None:
    """So that a kill repeats the call it interrupts and no other."""
    shop = make_shop(QUICK, options=OPTIONS, batch={"batch_size": 10})
    shop.know(20)
    shop.fill("updated", map(news, range(20)), is_backfill=True)
    shop.sandbox.faults.add(Fault(behaviour="hang", path=BATCH, after=1, times=1))
    shop.run_until(lambda: shop.status()["delivered"] == 10)
    assert shop.status()["in_flight"] == 10


def test_a_thousand_known_contacts_take_ten_calls(shop: Shop) -> None:
    """With their attributes and flags, and no list that they would join again."""
    shop.know(1000)
    people = [news(number, acceptsMarketing=number % 10 != 0) for number in range(1000)]
    shop.fill("updated", people)
    shop.drain()
    assert [(call.method, call.path, call.status) for call in shop.calls] == [("POST", BATCH, 204)] * 10
    there = shop.sandbox.contacts
    assert {each["email"]: each["attributes"] for each in there} == {
        person["email"]: {"FIRSTNAME": person["firstName"]} for person in people
    }
    assert {each["email"] for each in there if each["emailBlacklisted"]} == {
        person["email"] for person in people if not person["acceptsMarketing"]
    }
    assert {tuple(each["listIds"]) for each in there} == {(1,)}
    assert shop.status()["delivered"] == 1000


def test_a_customers_waiting_events_are_one_contact_of_a_batch(shop: Shop) -> None:
    shop.know(3)
    ids = [each for _ in range(4) for each in tell(shop, range(3))]
    shop.drain()
    [call] = shop.calls
    assert len((call.body or {})["contacts"]) == 3
    assert statuses(shop, ids) == {"delivered"}


def test_what_no_batch_can_do_goes_alone_beside_it(shop: Shop) -> None:
    """A removal, a change of address, a contact that is new; and what is no news takes no call."""
    shop.know(6)
    tell(shop, [0, 1])
    shop.enqueue("deleted", id=2)
    shop.enqueue("updated", id=3, email="cleo@example.com")
    shop.enqueue("created", **news(90))
    shop.drain()
    tell(shop, [0])
    shop.drain()
    assert Counter(call.path.partition("?")[0] for call in shop.calls) == {
        BATCH: 1,
        "/contacts/ann2%40example.com": 1,
        "/contacts/ann3%40example.com": 2,
        "/contacts": 1,
    }
    assert shop.contact("cleo@example.com")["id"] == 4
    assert shop.status()["delivered"] == 6


def forget(shop: Shop, email: str) -> None:
    """Somebody deletes a contact within Brevo."""
    app.brevo(shop.settings, KEY).call("DELETE", contact_path(email))
    shop.known_calls += 1


def test_three_spoilers_among_five_thousand_are_found_in_few_calls(shop: Shop) -> None:
    """A phone that Brevo refuses, an address that it refuses, a contact that somebody deleted there."""
    people, size = 5000, 100
    shop.know(people)
    refusal = {"code": "invalid_parameter", "message": "Blocked domain"}
    shop.sandbox.faults.add(Fault(status=400, body=refusal, identifier="ann2222@example.com"))
    forget(shop, "ann3333@example.com")
    bodies = [news(number) for number in range(people)]
    bodies[1111] |= {"phone": BAD_PHONE}
    ids = shop.fill("updated", bodies)
    shop.drain()
    assert shop.rows("SELECT status, count(*) FROM outbox GROUP BY status ORDER BY status") == [
        ("dead", 1),
        ("delivered", people - 1),
    ]
    assert shop.event(ids[2222])["last_error"] == "Blocked domain"
    assert shop.event(ids[1111])["last_error"] == "phone left out: Brevo does not take it as valid"
    named = Counter(each["attributes"].get("FIRSTNAME") for each in shop.sandbox.contacts)
    assert named == Counter(f"Ann {number}" for number in range(people) if number != 2222) + Counter([None])
    assert "SMS" not in shop.contact("ann1111@example.com")["attributes"]
    assert shop.contact("ann3333@example.com")["listIds"] == [5]
    assert len(shop.calls) <= people / size + 3 * (2 * log2(size) + 4)


def test_a_5xx_costs_only_those_an_attempt_that_it_was_about(shop: Shop) -> None:
    """The batch is refused for one of its contacts, its first half fails: the second is tried at once."""
    shop.know(8)
    people = [news(number, **({"phone": BAD_PHONE} if number == 6 else {})) for number in range(8)]
    ids = shop.fill("updated", people)
    shop.sandbox.faults.add(Fault(status=503, path=BATCH, after=1, times=1))
    shop.drain()
    assert shop.status()["delivered"] == shop.status()["retrying"] == 4
    shop.settle()
    assert sorted(attempts(shop, ids)) == [1] * 4 + [2] * 4
    assert statuses(shop, ids) == {"delivered"}
    assert all(has_news(shop, number) for number in range(8))


def test_a_429_in_the_middle_of_a_search_spends_no_attempt(shop: Shop) -> None:
    shop.know(8)
    people = [news(number, **({"phone": BAD_PHONE} if number == 6 else {})) for number in range(8)]
    ids = shop.fill("updated", people)
    patience = {"Retry-After": "1800"}
    shop.sandbox.faults.add(Fault(status=429, headers=patience, path=BATCH, after=1, times=1))
    shop.drain()
    assert len(shop.calls) == 2
    assert attempts(shop, ids) == [0] * 8
    assert shop.status()["lane"]["state"] == "waiting"
    shop.reopen(options=OPTIONS)
    shop.drain()
    assert {(shop.event(each)["status"], shop.event(each)["attempts"]) for each in ids} == {("delivered", 1)}


@pytest.mark.parametrize("fault", [{"status": 404}, {"status": 400}])
def test_a_batch_that_brevo_will_not_have_at_all_is_delivered_one_by_one(
    shop: Shop, fault: Mapping[str, Any]
) -> None:
    shop.know(5)
    shop.sandbox.faults.add(Fault(path=BATCH, **fault))
    ids = tell(shop, range(6))
    shop.drain()
    assert {(shop.event(each)["status"], shop.event(each)["attempts"]) for each in ids} == {("delivered", 1)}
    assert all(has_news(shop, number) for number in range(6))


def test_a_batch_whose_path_a_proxy_does_not_know_is_delivered_one_by_one_in_the_end(shop: Shop) -> None:
    shop.know(5)
    shop.sandbox.faults.add(Fault(path=BATCH, status=404, body="<html>Not here</html>"))
    ids = tell(shop, range(6))
    shop.settle()
    assert statuses(shop, ids) == {"delivered"}
    assert all(has_news(shop, number) for number in range(6))


def test_whoever_makes_brevo_fail_is_left_alone_in_the_end(shop: Shop) -> None:
    """One contact that any batch comes to a 500 with: each failed attempt halves its company."""
    shop.reopen(options=OPTIONS, retry={"max_attempts": 8, "cap_seconds": 5})
    shop.know(20)
    shop.sandbox.faults.add(Fault(status=500, identifier="ann7@example.com"))
    ids = tell(shop, range(20))
    shop.settle()
    assert [each for each in ids if shop.event(each)["status"] == "dead"] == [ids[7]]
    assert max(attempts(shop, [each for each in ids if each != ids[7]])) <= 7
    assert all(has_news(shop, number) for number in range(20) if number != 7)


def test_a_lost_answer_to_a_batch_loses_nobody(shop: Shop) -> None:
    shop.know(20)
    ids = tell(shop, range(20))
    shop.sandbox.faults.add(Fault(behaviour="lost_answer", path=BATCH, times=1))
    shop.settle()
    assert {(shop.event(each)["status"], shop.event(each)["attempts"]) for each in ids} == {("delivered", 2)}
    assert all(has_news(shop, number) for number in range(20))


def test_what_the_lease_might_not_outlast_is_not_begun_and_spends_nothing(make_shop: MakeShop) -> None:
    """Brevo is slow: time passes with the second batch, and the third is left for another claim."""
    shop = make_shop({"latency": timedelta(milliseconds=30)}, options=OPTIONS, batch={"batch_size": 4})
    shop.know(12)
    ids = tell(shop, range(12))
    shop.run_until(lambda: shop.calls)
    shop.later(seconds=30)
    shop.settle()
    assert len(shop.calls) == 3, "each batch once"
    assert shop.rows("SELECT count(DISTINCT started_at) FROM attempts") == [(2,)]
    assert {(shop.event(each)["status"], shop.event(each)["attempts"]) for each in ids} == {("delivered", 1)}
    assert shop.sandbox.stats["largest_overlap"] == 1


TIMES = {"createdAt", "modifiedAt", "id"}

MAPPING = {"email": "email", "firstName": "FIRSTNAME", "lastName": "LASTNAME", "phone": "SMS"}


def end_of(shop: Shop) -> tuple[list[Any], list[Any]]:
    """The contacts in Brevo, and what is known of them here, but for times.

    That an attribute is empty may be known, or not: it makes no difference to anything.
    """
    there = sorted(shop.sandbox.contacts, key=lambda each: str(each["email"]))
    known = shop.rows(
        "SELECT fields, customer_key, source, customer_id, email, synced_email, labels,"
        " accepts_marketing, consent_at, deleted_at, born_at, is_redacted FROM contacts ORDER BY customer_key"
    )
    empty = digest(CLEARED)
    filled = [
        {name: register for name, register in json.loads(fields).items() if register[1] != empty}
        for fields, *_ in known
    ]
    return [{name: value for name, value in each.items() if name not in TIMES} for each in there], [
        (fields, *rest) for fields, (_, *rest) in zip(filled, known, strict=True)
    ]


@st.composite
def tellings(draw: st.DrawFn) -> list[tuple[str, int, str, int, bool]]:
    """Events of some customers of every platform, in any order, twice or not at all; drains in between."""
    customers = draw(
        st.lists(
            st.tuples(st.sampled_from(sorted(PLATFORMS)), st.sampled_from(["alive", "gone", "back"])),
            min_size=1,
            max_size=6,
        )
    )
    told = [
        (platform, number, ending, event)
        for number, (platform, ending) in enumerate(customers)
        for event in draw(st.lists(st.integers(0, 9), max_size=10))
    ]
    return [(*each, draw(st.integers(0, 9)) == 0) for each in draw(st.permutations(told))]


@pytest.mark.parametrize("behavior", ["soft", "hard"])
def test_together_ends_as_each_alone_would(
    make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch, behavior: str
) -> None:
    """The same events, realtime and in windows, end in the same contacts, in Brevo and here."""
    monkeypatch.setattr("outboxd.importing.FEW", 0)  # imports, however few there are, …
    monkeypatch.setattr("outboxd.importing.LOOKS", 10_000)  # … and many of them at no time
    options = {"list_id": 5, "delete_behavior": behavior, "consent_meta_key": META_KEY}
    alone, together = (
        make_shop(QUICK, options={**options, "sync_mode": mode}, mapping=MAPPING)
        for mode in ("realtime", "batch")
    )
    numbers = count(0, 6)

    @settings(max_examples=8, derandomize=True, database=None)
    @given(tellings())
    @example([("shopify", number, "alive", event, number == 2) for event in (0, 1) for number in range(3)])
    def holds(telling: list[tuple[str, int, str, int, bool]]) -> None:
        first = next(numbers)
        for platform, number, ending, event, is_drained in telling:
            events = story(platform, first + number, ending).events
            for shop in (alone, together):
                events[event % len(events)].enqueue(platform, shop.path)
                if is_drained:
                    shop.settle()
        for shop in (alone, together):
            shop.settle()
        assert end_of(together) == end_of(alone)

    holds()
    assert together.calls_of("POST", "/contacts/import")
    assert together.calls_of("POST", BATCH)


def test_whom_a_convoy_has_claimed_goes_though_no_more_can_be_claimed(shop: Shop) -> None:
    """And keeps nobody waiting who comes to the same addresses later, be it themselves."""
    shop.know(120)
    ids = shop.fill("updated", map(news, range(120)), is_backfill=True)
    shop.rows(
        f"CREATE TRIGGER broken BEFORE UPDATE OF claimed_at ON outbox WHEN new.id = {ids[CHUNK + 10]}"
        " BEGIN SELECT RAISE(ABORT, 'broken'); END"
    )
    with pytest.raises(DatabaseError, match="broken"):
        shop.run_until(lambda: False)
    shop.rows("DROP TRIGGER broken")
    shop.settle()
    sizes = {len((call.body or {})["contacts"]) for call in shop.calls_of("POST", BATCH)}
    assert sizes == {CHUNK, 120 - CHUNK}
    assert attempts(shop, ids) == [1] * 120
