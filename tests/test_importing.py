"""Imports: many new contacts in one call, seen through to their end, and nobody lost or overtaken by them.

Backfilled events go in bulk at once in every mode, so they stand for all that does.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import timedelta
from threading import Thread
from typing import Any

import pytest

from outboxd import app
from outboxd.brevo.bulk import Bulk, row
from outboxd.brevo.sandbox import Call, Fault
from outboxd.errors import DatabaseError
from outboxd.event import Outcome, Result, Verdict
from outboxd.importing import FEW, Charge
from outboxd.keys import address_key
from tests.by_hand import ByHand
from tests.conftest import until
from tests.shop import KEY, MakeShop, Shop

LIST = 5

OPTIONS = {"list_id": LIST}

MAPPING = {"email": "email", "firstName": "FIRSTNAME", "phone": "SMS", "wantsMail": "OPT_IN"}

MANY = FEW + 10
"""Enough of them for an import."""

QUICK = {"import_delay": timedelta(milliseconds=1)}

SLOW = {"import_delay": timedelta(seconds=40)}

IMPORT = "/contacts/import"


@pytest.fixture
def shop(make_shop: MakeShop) -> Shop:
    return make_shop(QUICK, options=OPTIONS, mapping=MAPPING)


@pytest.fixture
def slow(make_shop: MakeShop) -> Shop:
    """A shop whose imports are under way for a while."""
    return make_shop(SLOW, options=OPTIONS, mapping=MAPPING)


def person(number: int, **data: Any) -> dict[str, Any]:
    return {"id": number, "email": f"ann{number}@example.com", "firstName": "Ann", **data}


def backfill(shop: Shop, people: Iterable[dict[str, Any]]) -> list[int]:
    return shop.fill("updated", people, is_backfill=True)


def depart(shop: Shop) -> None:
    """Run the relay until Brevo has an import to do."""
    shop.run_until(lambda: any(each["process_id"] for each in shop.status()["imports"]))


def there_already(shop: Shop, *rows: bytes) -> None:
    """Contacts that others than the shop have made in Brevo."""
    Bulk(app.brevo(shop.settings, KEY)).start_import(list(rows), [1], is_opted_out=False)
    shop.later(minutes=1)
    assert len(shop.sandbox.contacts) == len(rows)
    shop.known_calls = len(shop.sandbox.calls)


def people_in(call: Call) -> list[Any]:
    """The rows of an import, in one order."""
    return sorted((call.body or {})["jsonBody"], key=lambda each: str(each["email"]))


def statuses(shop: Shop, ids: Iterable[int]) -> set[str]:
    return {shop.event(each)["status"] for each in ids}


def assert_over(shop: Shop) -> None:
    """No import is under way, and nobody is barred."""
    assert shop.status()["imports"] == []
    assert shop.rows("SELECT * FROM import_rows") == []
    assert shop.rows("SELECT count(*) FROM outbox WHERE status = 'pending'") == [(0,)]


def counted(shop: Shop) -> int:
    """The calls of the last hour, as the status has them."""
    return int(shop.status()["windows"]["hour"]["calls"])


# What is sent.


def test_unknown_contacts_are_made_by_one_import(shop: Shop) -> None:
    ids = backfill(shop, [person(number, phone="+442079460000") for number in range(1)])
    ids += backfill(shop, [person(number) for number in range(1, MANY)])
    shop.settle()
    assert statuses(shop, ids) == {"delivered"}
    assert [(call.method, call.path.partition("?")[0]) for call in shop.calls] == [
        ("POST", IMPORT),
        ("GET", "/processes/1"),
    ]
    assert counted(shop) == 2
    body = shop.calls[0].body
    assert body is not None
    assert (body["disableNotification"], body["listIds"], body["emailBlacklist"]) == (True, [LIST], False)
    assert len(shop.sandbox.contacts) == MANY
    assert {tuple(each["listIds"]) for each in shop.sandbox.contacts} == {(LIST,)}
    assert shop.contact("ann0@example.com")["attributes"] == {"FIRSTNAME": "Ann", "SMS": "442079460000"}
    [attempt] = shop.event(ids[0])["attempts_made"]
    assert (attempt["verdict"], attempt["call"], attempt["number"]) == (
        "delivered",
        "POST /contacts/import",
        1,
    )
    assert_over(shop)


def test_a_few_go_alone_for_an_import_would_take_longer(shop: Shop) -> None:
    backfill(shop, [person(number) for number in range(FEW)])
    shop.settle()
    assert shop.methods == ["POST"] * FEW
    assert shop.calls_of("POST", IMPORT) == []


def test_an_import_is_no_larger_than_configured(make_shop: MakeShop) -> None:
    shop = make_shop(QUICK, options=OPTIONS, batch={"import_size": MANY})
    backfill(shop, [person(number) for number in range(2 * MANY + 1)])
    shop.settle()
    assert [len((call.body or {})["jsonBody"]) for call in shop.calls_of("POST", IMPORT)] == [MANY] * 2
    assert len(shop.sandbox.contacts) == 2 * MANY + 1


def test_an_import_under_way_is_shown(slow: Shop) -> None:
    backfill(slow, [person(number) for number in range(MANY)])
    depart(slow)
    [shown] = slow.status()["imports"]
    assert (shown["rows"], shown["process_id"], shown["status"]) == (MANY, 1, "running")
    assert slow.status()["in_flight"] == MANY
    slow.settle()
    assert_over(slow)


@pytest.mark.parametrize(
    "without", [{"list_id": None}, {"update_enabled": False}], ids=["no list", "no updates"]
)
def test_nobody_is_imported_where_an_import_would_do_something_else(
    make_shop: MakeShop, without: dict[str, Any]
) -> None:
    """It must name a list, and it cannot leave alone who was there before."""
    shop = make_shop(QUICK, options={**OPTIONS, **without})
    ids = backfill(shop, [person(number) for number in range(MANY)])
    shop.settle()
    assert statuses(shop, ids) == {"delivered"}
    assert [(call.method, call.path) for call in shop.calls] == [("POST", "/contacts")] * MANY


# Consent.


def test_people_who_opted_out_travel_apart(shop: Shop) -> None:
    people = [person(number, acceptsMarketing=number % 2 == 0) for number in range(2 * MANY)]
    backfill(shop, people)
    shop.settle()
    bodies = [call.body or {} for call in shop.calls_of("POST", IMPORT)]
    assert sorted(body["emailBlacklist"] for body in bodies) == [False, True]
    out = {each["email"] for each in shop.sandbox.contacts if each["emailBlacklisted"]}
    assert out == {each["email"] for each in people if not each["acceptsMarketing"]}


def test_nobody_is_subscribed_again_who_unsubscribed_in_brevo(slow: Shop) -> None:
    """Before the import, while it is under way, and after it; and the shop says that all of them opted in."""
    there_already(slow, *(row(f"ann{number}@example.com", {}) for number in range(3)))
    backfill(slow, [person(number, acceptsMarketing=True, wantsMail=True) for number in range(MANY)])
    slow.sandbox.unsubscribe("ann0@example.com")
    depart(slow)
    slow.sandbox.unsubscribe("ann1@example.com")
    slow.settle()
    slow.sandbox.unsubscribe("ann2@example.com")
    backfill(slow, [person(number, acceptsMarketing=True, wantsMail=False) for number in range(MANY)])
    slow.settle()
    out = {each["email"] for each in slow.sandbox.contacts if each["emailBlacklisted"]}
    assert out == {f"ann{number}@example.com" for number in range(3)}
    assert {each["attributes"]["OPT_IN"] for each in slow.sandbox.contacts} == {False}


def test_what_an_import_might_lose_follows_in_a_batch(shop: Shop) -> None:
    """Booleans, and phones of no range that is known to be in use; no attempt is spent on the way."""
    people = [person(number, phone=f"+1555555{number:04d}", wantsMail=True) for number in range(MANY)]
    ids = backfill(shop, people)
    shop.settle()
    assert [call.path.partition("?")[0] for call in shop.calls] == [IMPORT, "/processes/1", "/contacts/batch"]
    assert {tuple(each["attributes"]) for each in people_in(shop.calls[0])} == {("FIRSTNAME",)}
    assert shop.contact("ann7@example.com")["attributes"] == {
        "FIRSTNAME": "Ann",
        "SMS": "15555550007",
        "OPT_IN": True,
    }
    assert {shop.event(each)["attempts"] for each in ids} == {1}
    assert_over(shop)


def test_an_opt_in_that_follows_an_opt_out_arrives(shop: Shop) -> None:
    """The shop itself said both; the import carries neither, and what comes after it the last word."""
    there_already(shop, *(row(f"ann{number}@example.com", {}) for number in range(MANY)))
    shop.sandbox.unsubscribe("ann0@example.com")
    for accepts in (False, True):
        backfill(shop, [person(number, acceptsMarketing=accepts) for number in range(MANY)])
        shop.later(seconds=1)
    shop.settle()
    assert {each["emailBlacklisted"] for each in shop.sandbox.contacts} == {False}
    assert len(shop.calls_of("POST", "/contacts/batch")) == 1


def test_an_opt_out_that_comes_during_an_import_is_the_last_word(slow: Shop) -> None:
    backfill(slow, [person(number, acceptsMarketing=True) for number in range(MANY)])
    depart(slow)
    slow.enqueue("updated", **person(3, acceptsMarketing=False))
    slow.settle()
    assert [each["email"] for each in slow.sandbox.contacts if each["emailBlacklisted"]] == [
        "ann3@example.com"
    ]


# How it ends.


def test_what_an_import_left_out_goes_alone_and_ends_as_it_must(shop: Shop) -> None:
    """A phone that another contact has is healed, an address that Brevo does not take is dead."""
    there_already(shop, row("bea@example.com", {"SMS": "+442079460001"}))
    people = [person(number) for number in range(MANY)]
    people[3] |= {"phone": "+442079460001"}
    people[5] |= {"email": "ann@exämple.com"}
    ids = backfill(shop, people)
    shop.settle()
    by_status = {each: shop.event(ids[each])["status"] for each in range(MANY)}
    assert [each for each, status in by_status.items() if status != "delivered"] == [5]
    assert "email is not valid" in shop.event(ids[5])["last_error"]
    assert shop.event(ids[3])["last_error"] == "phone left out: another contact has it"
    assert shop.contact("ann3@example.com")["attributes"] == {"FIRSTNAME": "Ann"}
    assert len(shop.sandbox.contacts) == MANY
    calls = [(call.method, call.path.partition("?")[0]) for call in shop.calls]
    assert calls[:3] == [("POST", IMPORT), ("GET", "/processes/2"), ("GET", "/contacts")]
    assert calls[3:] == [("POST", "/contacts")] * 3, "the phone's twice, the address' once"
    assert counted(shop) == len(calls)
    assert shop.event(ids[7])["attempts_made"][0]["call"] == "POST /contacts/import"
    assert_over(shop)


def test_somebody_left_out_is_not_taken_for_reached_because_others_touched_the_contact(slow: Shop) -> None:
    """Unsubscribed while the import is under way: the contact is changed, but it has nothing of the row."""
    there_already(slow, row("bea@example.com", {"SMS": "+442079460001"}), row("ann3@example.com", {}))
    people = [person(number) for number in range(MANY)]
    people[3] |= {"phone": "+442079460001"}
    backfill(slow, people)
    depart(slow)
    slow.sandbox.unsubscribe("ann3@example.com")
    slow.settle()
    assert slow.contact("ann3@example.com")["attributes"] == {"FIRSTNAME": "Ann"}
    assert slow.contact("ann3@example.com")["emailBlacklisted"]


@pytest.mark.parametrize("status", ["failed", "cancelled"])
@pytest.mark.parametrize("has_effect", [True, False])
def test_an_import_that_brevo_ended_badly_is_made_again(
    make_shop: MakeShop, status: str, has_effect: bool
) -> None:
    """Whatever of it took effect, or will do so late."""
    shop = make_shop(QUICK if has_effect else SLOW, options=OPTIONS)
    shop.sandbox.faults.add(Fault(path="/processes/*", status=200, body={"status": status}, times=1))
    ids = backfill(shop, [person(number) for number in range(MANY)])
    shop.settle()
    assert statuses(shop, ids) == {"delivered"}
    assert len(shop.sandbox.contacts) == MANY
    verdicts = [attempt["verdict"] for attempt in shop.event(ids[0])["attempts_made"]]
    assert verdicts == ["retry", "delivered"]
    assert status in shop.rows("SELECT detail FROM attempts WHERE verdict = 'retry' LIMIT 1")[0][0]
    assert_over(shop)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 429},
        {"status": 401},
        {"behaviour": "garbage"},
        {"behaviour": "html"},
        {"status": 200, "body": {"status": 7}},
        {"status": 404, "body": "<html>Not here</html>"},
    ],
    ids=["500", "429", "401", "garbage", "html", "odd", "404 in HTML"],
)
def test_an_import_that_cannot_be_looked_at_is_looked_at_later(shop: Shop, fault: dict[str, Any]) -> None:
    shop.sandbox.faults.add(Fault(path="/processes/*", times=2, **fault))
    ids = backfill(shop, [person(number) for number in range(MANY)])
    shop.settle()
    assert {(shop.event(each)["status"], shop.event(each)["attempts"]) for each in ids} == {("delivered", 1)}
    assert (len(shop.calls_of("POST", IMPORT)), len(shop.calls_of("GET", "/processes"))) == (1, 3)
    assert shop.status()["lane"]["state"] == "running"


def test_of_an_import_that_brevo_has_forgotten_the_contacts_tell(shop: Shop) -> None:
    shop.sandbox.faults.add(Fault(path="/processes/*", status=404))
    ids = backfill(shop, [person(number) for number in range(MANY)])
    shop.settle()
    assert statuses(shop, ids) == {"delivered"}
    assert len(shop.calls_of("POST", IMPORT)) == 1
    assert shop.calls_of("POST", "/contacts") == shop.calls_of("POST", IMPORT), "nobody goes alone"


def test_an_import_is_looked_at_ever_more_seldom(make_shop: MakeShop) -> None:
    """Brevo allows a hundred looks in an hour."""
    shop = make_shop({"import_delay": timedelta(minutes=30)}, options=OPTIONS)
    backfill(shop, [person(number) for number in range(MANY)])
    shop.settle()
    assert 30 <= len(shop.calls_of("GET", "/processes")) <= 40


@pytest.mark.parametrize("hours", [0.85, 400], ids=["a long time", "for ever"])
def test_an_import_may_take_long_and_not_for_ever(make_shop: MakeShop, hours: float) -> None:
    """One that Brevo never ends must not keep its customers waiting for good: then the contacts tell."""
    shop = make_shop({"import_delay": timedelta(hours=hours)}, options=OPTIONS, mapping=MAPPING)
    ids = backfill(shop, map(person, range(MANY)))
    depart(shop)
    shop.later(hours=0 if hours < 24 else 25)
    shop.settle()
    assert {shop.event(each)["status"] for each in ids} == {"delivered"}
    assert {
        shop.contact(f"ann{number}@example.com")["attributes"]["FIRSTNAME"] for number in range(MANY)
    } == {"Ann"}


@pytest.mark.parametrize("count", [MANY, 3 * FEW])
def test_if_an_import_is_refused_its_events_end_as_they_would_alone(make_shop: MakeShop, count: int) -> None:
    """The list that new contacts are to join does not exist."""
    shop = make_shop({**QUICK, "lists": [1]}, options=OPTIONS)
    ids = backfill(shop, [person(number) for number in range(count)])
    shop.settle()
    assert statuses(shop, ids) == {"dead"}
    assert {shop.event(each)["last_error"] for each in ids} == {"List ID does not exist"}
    assert len(shop.calls_of("POST", IMPORT)) == (1 if count == MANY else 3)
    assert counted(shop) == len(shop.calls)
    assert_over(shop)


def test_whoever_spoils_an_import_does_not_keep_the_others_from_it(shop: Shop) -> None:
    """Brevo refuses any import that has a certain row: the halves without it are imported."""
    shop.sandbox.faults.add(Fault(status=400, path=IMPORT, identifier="ann7@example.com"))
    ids = backfill(shop, [person(number) for number in range(8 * FEW)])
    shop.settle()
    assert statuses(shop, ids) == {"delivered"}
    assert len(shop.sandbox.contacts) == 8 * FEW
    alone = [call for call in shop.calls if call.path == "/contacts"]
    assert len(alone) <= 2 * FEW
    assert counted(shop) == len(shop.calls)
    assert_over(shop)


def test_whom_an_import_only_claims_to_have_made_goes_alone(shop: Shop) -> None:
    """What it left to a batch finds no contact there: a second import would claim the same."""
    none_left_out = {"import": {"invalid_emails": None}}
    shop.sandbox.faults.add(
        Fault(status=202, body={"processId": 1}, path=IMPORT),
        Fault(status=200, body={"status": "completed", "info": none_left_out}, path="/processes/1"),
    )
    ids = backfill(shop, [person(number, wantsMail=True) for number in range(MANY)])
    shop.settle()
    assert statuses(shop, ids) == {"delivered"}
    assert len(shop.calls_of("POST", IMPORT)) == 1
    assert {each["attributes"]["OPT_IN"] for each in shop.sandbox.contacts} == {True}
    assert len(shop.sandbox.contacts) == MANY


def test_a_drain_sees_an_import_through(shop: Shop) -> None:
    """It does not wait for company that never comes, and does not leave before the end."""
    ids = backfill(shop, [person(number) for number in range(MANY)])
    drain = Thread(target=shop.drain, daemon=True)
    drain.start()

    def has_ended() -> bool:
        shop.later(seconds=1)
        shop.relay.bell.set()
        return not drain.is_alive()

    until(has_ended)
    assert statuses(shop, ids) == {"delivered"}
    assert_over(shop)


# What is not known for certain.


def test_an_import_whose_answer_is_lost_is_sent_again_and_nobody_is_let_go_meanwhile(slow: Shop) -> None:
    """Brevo may have it: a newer event that went alone now would be overwritten by it later."""
    slow.sandbox.faults.add(Fault(behaviour="lost_answer", path=IMPORT, times=1))
    ids = backfill(slow, [person(number) for number in range(MANY)])
    slow.run_until(lambda: slow.calls_of("POST", IMPORT) and not slow.relay.is_busy)
    newer = slow.enqueue("updated", **person(3, firstName="Bea"))
    slow.settle()
    assert statuses(slow, [*ids, newer]) == {"delivered"}
    first, second = slow.calls_of("POST", IMPORT)
    assert people_in(first) == people_in(second)
    assert slow.contact("ann3@example.com")["attributes"]["FIRSTNAME"] == "Bea"
    assert len(slow.sandbox.contacts) == MANY
    assert slow.event(ids[0])["attempts"] == 1
    assert_over(slow)


def test_what_an_import_of_a_former_life_may_have_left_is_emptied(shop: Shop) -> None:
    """No answer says that it was carried out, and the import of the new life cannot empty anything."""
    shop.sandbox.faults.add(Fault(behaviour="lost_answer", path=IMPORT))
    backfill(shop, [person(number, phone=f"+4420794600{number:02d}") for number in range(MANY)])
    shop.run_until(lambda: shop.status()["retrying"] == MANY)
    assert "SMS" in shop.contact("ann3@example.com")["attributes"]
    shop.sandbox.faults.clear()
    for event, bodies in (
        ("deleted", [{"id": number} for number in range(MANY)]),
        ("created", [person(number, firstName="Bea") for number in range(MANY)]),
    ):
        shop.later(seconds=1)
        shop.fill(event, bodies, is_backfill=True)
    shop.settle()
    assert len(shop.calls_of("POST", IMPORT)) > 1
    assert [each["attributes"] for each in shop.sandbox.contacts] == [{"FIRSTNAME": "Bea"}] * MANY
    assert_over(shop)


def test_an_import_that_keeps_failing_is_given_up_and_its_events_tried_on_alone(shop: Shop) -> None:
    shop.sandbox.faults.add(Fault(status=500, path=IMPORT))
    ids = backfill(shop, [person(number) for number in range(MANY)])
    shop.settle()
    assert statuses(shop, ids) == {"delivered"}
    assert {call.method for call in shop.calls if call.path == "/contacts"} == {"POST"}
    assert len(shop.sandbox.contacts) == MANY
    assert_over(shop)


def test_a_429_to_an_import_spends_no_attempt(make_shop: MakeShop) -> None:
    shop = make_shop(QUICK, options=OPTIONS)
    shop.sandbox.faults.add(Fault(status=429, headers={"Retry-After": "1800"}, path=IMPORT, times=1))
    ids = backfill(shop, [person(number) for number in range(MANY)])
    shop.run_until(lambda: shop.calls and not shop.relay.is_busy and not shop.status()["in_flight"])
    assert {shop.event(each)["attempts"] for each in ids} == {0}
    assert shop.status()["lane"]["state"] == "waiting"
    shop.reopen(options=OPTIONS)
    shop.settle()
    assert {(shop.event(each)["status"], shop.event(each)["attempts"]) for each in ids} == {("delivered", 1)}


# The barrier.


def test_news_of_somebody_in_an_import_waits_for_its_end_and_wins(slow: Shop) -> None:
    ids = backfill(slow, [person(number) for number in range(MANY)])
    depart(slow)
    before = len(slow.calls)
    newer = slow.enqueue("updated", **person(3, firstName="Bea"))
    other = slow.enqueue("updated", **person(MANY, firstName="Cleo"))
    slow.run_until(lambda: slow.event(other)["status"] == "delivered")
    assert slow.event(newer)["status"] == "pending"
    assert [call.path for call in slow.calls[before:] if call.path == "/contacts"] == ["/contacts"]
    slow.settle()
    assert statuses(slow, [*ids, newer]) == {"delivered"}
    assert slow.contact("ann3@example.com")["attributes"]["FIRSTNAME"] == "Bea"


@pytest.mark.parametrize("takes_over", [True, False])
def test_the_barrier_stands_over_a_restart(slow: Shop, takes_over: bool) -> None:
    ids = backfill(slow, [person(number) for number in range(MANY)])
    depart(slow)
    slow.enqueue("updated", **person(3, firstName="Bea"))
    slow.relay.step()
    slow.reopen(options=OPTIONS, mapping=MAPPING)
    if takes_over:
        with closing(app.outbox(slow.settings)) as outbox:
            outbox.leases.take_over(slow.clock())
    before = len(slow.calls)
    slow.settle()
    paths = [(call.method, call.path.partition("?")[0]) for call in slow.calls[before:]]
    assert paths[-1] == ("PUT", "/contacts/ann3%40example.com")
    assert set(paths[:-1]) == {("GET", "/processes/1")}
    assert statuses(slow, ids) == {"delivered"}
    assert slow.contact("ann3@example.com")["attributes"]["FIRSTNAME"] == "Bea"
    assert_over(slow)


def test_another_customer_at_an_address_in_an_import_waits_too(slow: Shop) -> None:
    backfill(slow, [person(number) for number in range(MANY)])
    depart(slow)
    newer = slow.enqueue("updated", id=9000, email="ann3@example.com", firstName="Bea")
    slow.run_until(lambda: not slow.sandbox.contacts and len(slow.calls_of("GET", "/processes")) == 3)
    assert (slow.event(newer)["status"], slow.event(newer)["attempts"]) == ("pending", 0)
    slow.reopen(options=OPTIONS, mapping=MAPPING)
    slow.settle()
    assert slow.contact("ann3@example.com")["attributes"]["FIRSTNAME"] == "Bea"
    assert slow.event(newer)["status"] == "delivered"
    assert_over(slow)


def restarted(shop: Shop) -> tuple[int, int]:
    """While an import is under way, with news of another customer at an address in it: the calls before, and
    the event.
    """
    backfill(shop, [person(number) for number in range(MANY)])
    depart(shop)
    shop.reopen(options=OPTIONS, mapping=MAPPING)
    before = len(shop.calls)
    return before, shop.enqueue("updated", id=9000, email="ann3@example.com", firstName="Bea")


def assert_import_first(shop: Shop, before: int, newer: int) -> None:
    shop.run_until(lambda: shop.event(newer)["status"] == "delivered")
    assert shop.calls[before].method == "GET", "the import is over first"
    assert shop.contact("ann3@example.com")["attributes"]["FIRSTNAME"] == "Bea"


def test_another_customer_who_comes_during_a_restart_waits_too(slow: Shop) -> None:
    before, newer = restarted(slow)
    assert_import_first(slow, before, newer)


def test_whoever_is_in_an_import_is_known_before_anything_goes_though_that_takes_a_second_look(
    slow: Shop,
) -> None:
    before, newer = restarted(slow)
    slow.rows("ALTER TABLE import_rows RENAME TO lost")
    with pytest.raises(DatabaseError):
        slow.relay.step()
    slow.rows("ALTER TABLE lost RENAME TO import_rows")
    assert_import_first(slow, before, newer)


def test_what_an_import_did_is_not_forgotten_where_a_killed_daemon_told_of_another_customer(
    make_shop: MakeShop,
) -> None:
    settings: dict[str, Any] = {"options": OPTIONS, "mapping": MAPPING, "brevo": {"timeout_seconds": 1}}
    shop = make_shop(SLOW, **settings)
    ids = backfill(shop, [person(number) for number in range(MANY)])
    depart(shop)
    shop.enqueue("updated", id=3, firstName=None)
    shop.enqueue("updated", id=9000, email="ann3@example.com")
    with ByHand.of(shop) as killed:
        assert len(killed.claim()) == 1
    shop.later(minutes=1)
    courier, outbox = app.brevo(shop.settings, KEY), app.outbox(shop.settings)
    with app.drainer(shop.settings, shared=False) as charge:
        assert charge.closed.addresses == {address_key("ann3@example.com")}
        shop.relay = app.relay(shop.settings, courier, outbox, clock=shop.clock, charge=charge)
        with closing(shop.relay):
            shop.settle()
    assert statuses(shop, ids) == {"delivered"}
    assert "FIRSTNAME" not in shop.contact("ann3@example.com")["attributes"]


def test_rows_that_cannot_depart_do_so_once_they_can(make_shop: MakeShop) -> None:
    shop = make_shop(QUICK, options=OPTIONS, batch={"import_size": MANY})
    ids = backfill(shop, [person(number) for number in range(2 * MANY)])
    shop.rows(
        "CREATE TRIGGER broken BEFORE INSERT ON import_rows WHEN new.customer_key = 'custom:3'"
        " BEGIN SELECT RAISE(ABORT, 'broken'); END"
    )
    with pytest.raises(DatabaseError, match="broken"):
        shop.run_until(lambda: False)
    shop.rows("DROP TRIGGER broken")
    shop.settle()
    assert [len(people_in(call)) for call in shop.calls_of("POST", IMPORT)] == [MANY] * 2
    assert {shop.event(each)["attempts"] for each in ids} == {1}


def test_an_import_whose_beginning_cannot_be_recorded_lets_nobody_go_until_it_can(shop: Shop) -> None:
    ids = backfill(shop, map(person, range(MANY)))
    shop.rows(
        "CREATE TRIGGER broken BEFORE UPDATE OF process_id ON imports"
        " BEGIN SELECT RAISE(ABORT, 'broken'); END"
    )
    for _ in "first", "sent again":
        with pytest.raises(DatabaseError, match="broken"):
            shop.settle()
    shop.rows("DROP TRIGGER broken")
    shop.settle()
    assert statuses(shop, ids) == {"delivered"}
    assert_over(shop)


def test_an_import_that_nobody_knows_to_have_begun_is_sent_again_after_a_restart(make_shop: MakeShop) -> None:
    shop = make_shop({**QUICK, "latency": timedelta(milliseconds=100)}, options=OPTIONS)
    ids = backfill(shop, [person(number) for number in range(MANY)])
    shop.run_until(lambda: shop.sandbox.stats["under_way"])
    shop.reopen(options=OPTIONS)
    newer = shop.enqueue("updated", **person(3, firstName="Bea"))
    shop.settle()
    first, second = shop.calls_of("POST", IMPORT)
    assert people_in(first) == people_in(second)
    assert statuses(shop, [*ids, newer]) == {"delivered"}
    assert shop.contact("ann3@example.com")["attributes"]["FIRSTNAME"] == "Bea"
    assert_over(shop)


def test_an_import_of_a_drainer_that_is_alive_is_left_to_it(make_shop: MakeShop) -> None:
    """Sent a second time it could overtake what has come since the first one ended."""
    shop = make_shop({**SLOW, "latency": timedelta(milliseconds=100)}, options=OPTIONS)
    ids = backfill(shop, [person(number) for number in range(MANY)])
    shop.run_until(lambda: shop.sandbox.stats["under_way"])
    courier, charge = app.brevo(shop.settings, KEY), Charge(is_alone=False)
    with closing(
        app.relay(shop.settings, courier, app.outbox(shop.settings), clock=shop.clock, charge=charge)
    ) as other:
        other.step()
        assert not other.is_busy
        shop.settle()
    assert len(shop.calls_of("POST", IMPORT)) == 1
    assert statuses(shop, ids) == {"delivered"}
    assert_over(shop)


def test_an_import_that_another_drainer_has_ended_keeps_nobody_waiting(slow: Shop) -> None:
    backfill(slow, [person(number) for number in range(MANY)])
    depart(slow)
    first = slow.relay
    slow.later(minutes=20)
    courier, outbox = app.brevo(slow.settings, KEY), app.outbox(slow.settings)
    slow.relay = app.relay(slow.settings, courier, outbox, clock=slow.clock, charge=Charge(is_alone=False))
    with closing(slow.relay):
        slow.settle()
    slow.relay = first
    slow.enqueue("updated", id=9000, email="ann3@example.com", firstName="Bea")
    slow.settle()
    assert slow.contact("ann3@example.com")["attributes"]["FIRSTNAME"] == "Bea"


def test_whoever_is_in_an_import_though_another_hand_ended_their_events_is_in_the_next_one(
    slow: Shop,
) -> None:
    backfill(slow, [person(number) for number in range(MANY)])
    depart(slow)
    with closing(sqlite3.connect(slow.path)) as connection, connection:
        connection.execute(
            "UPDATE outbox SET status = 'delivered', finished_at = created_at, is_head = 0,"
            " claimed_at = NULL WHERE id = 1"
        )
    backfill(slow, [person(number, firstName="Bea") for number in (0, *range(MANY, 2 * MANY))])
    slow.settle()
    assert slow.contact("ann0@example.com")["attributes"]["FIRSTNAME"] == "Bea"
    assert_over(slow)


def test_a_drainer_beside_others_goes_on_with_imports_of_its_own(slow: Shop) -> None:
    backfill(slow, [person(number) for number in range(MANY)])
    depart(slow)
    [(own,)] = slow.rows("SELECT id FROM imports")
    courier, charge = app.brevo(slow.settings, KEY), Charge(is_alone=False, ids={own})
    with closing(
        app.relay(slow.settings, courier, app.outbox(slow.settings), clock=slow.clock, charge=charge)
    ) as other:
        other.step()
        assert other.is_busy


def test_a_refused_import_is_taken_up_again_after_a_restart(make_shop: MakeShop) -> None:
    """While its events go alone, their rows are still somebody's."""
    shop = make_shop({**QUICK, "latency": timedelta(milliseconds=5)}, options=OPTIONS)
    shop.sandbox.faults.add(Fault(status=400, path=IMPORT))
    ids = backfill(shop, [person(number) for number in range(MANY)])
    shop.run_until(lambda: any(call.path == "/contacts" for call in shop.calls))
    shop.reopen(options=OPTIONS)
    shop.settle()
    assert statuses(shop, ids) == {"delivered"}
    assert_over(shop)


def test_a_result_that_comes_too_late_does_not_let_go_whom_an_import_holds(slow: Shop) -> None:
    ids = backfill(slow, [person(number) for number in range(MANY)])
    slow.relay.step()
    with closing(app.outbox(slow.settings)) as other:
        slow.run_until(lambda: not slow.relay.is_busy)
        slow.reopen(options=OPTIONS, mapping=MAPPING)
        slow.later(hours=1)
        [claim] = other.claim(slow.clock(), limit=1, lease=timedelta(seconds=1), is_backfill=True)
        slow.later(minutes=1)
        depart(slow)
        outcome = Outcome(Verdict.REFUSED, call="POST /contacts", detail="too late")
        late = Result(claim, {event.id: outcome for event in claim.events}, claim.contact)
        assert other.record([late], slow.clock()) == []
    assert slow.rows("SELECT count(*) FROM import_rows") == [(MANY,)]
    slow.settle()
    assert statuses(slow, ids) == {"delivered"}
