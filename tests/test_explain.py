"""Explain: what would be sent, exactly as it would be, without sending or writing anything."""

import json
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import outboxd
from outboxd.brevo.sandbox import Fault
from outboxd.masks import masked
from tests.operator import Operate, exit_code, operator, told
from tests.shop import MakeShop, Shop

MAPPING = {
    "email": "email",
    "firstName": "FIRSTNAME",
    "phone": "SMS",
    "tags": "TAGS",
    "totalSpent": "SPENT",
    "address.city": "CITY",
}
ATTRIBUTES = {"TAGS": "text", "SPENT": "float", "CITY": "text"}
MARA = {"id": 1, "email": "mara.klein@example.com", "firstName": "Mara", "address": {"city": "Lübeck"}}

MakeOperated = Callable[..., tuple[Shop, Operate]]


@pytest.fixture
def make(make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeOperated:
    """A shop and its operator, with options of their own."""

    def made(**options: Any) -> tuple[Shop, Operate]:
        shop = make_shop({"attributes": ATTRIBUTES}, mapping=MAPPING, options=options)
        return shop, operator(shop, tmp_path, monkeypatch, field_mapping=MAPPING, options=options)

    return made


def explained(operate: Operate, target: object, *options: str) -> dict[str, Any]:
    """What `explain --json` says of one event."""
    (facts,) = json.loads(operate("explain", str(target), "--json", *options).stdout)
    return dict(facts)


def requests_of(facts: dict[str, Any], shop: Shop) -> list[tuple[str, str, Any]]:
    made = [request for part in facts["parts"] for request in part["requests"]]
    return [(each["method"], each["url"].removeprefix(shop.sandbox.url), each["body"]) for each in made]


def everything(shop: Shop) -> str:
    with closing(sqlite3.connect(shop.path)) as connection:
        return "\n".join(connection.iterdump())


# What would be sent is what is sent

EVENTS = st.one_of(
    st.fixed_dictionaries(
        {"event": st.sampled_from(["created", "updated"]), "id": st.sampled_from([1, 2])},
        optional={
            "email": st.sampled_from(["ann{}@example.com", "bo{}@example.com"]),
            "firstName": st.sampled_from(["Ann", "Bo", "", None]),
            "phone": st.sampled_from(["+491511234567{}", "12"]),
            "tags": st.sampled_from(["vip", "vip, new", ""]),
            "totalSpent": st.sampled_from([1.5, "lots"]),
            "acceptsMarketing": st.booleans(),
            "address": st.just({"city": "Kiel"}),
        },
    ),
    st.fixed_dictionaries({"event": st.just("deleted"), "id": st.sampled_from([1, 2])}),
)


def is_addressed(event: dict[str, Any]) -> bool:
    """What died for want of an address would come back with one, and make a delivery of its own."""
    return event["event"] == "deleted" or "email" in event


@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    delivered=st.lists(EVENTS.filter(is_addressed), max_size=3),
    waiting=st.lists(EVENTS, min_size=1, max_size=3),
    behaviour=st.sampled_from(["soft", "hard"]),
    is_admitted=st.booleans(),
)
def test_the_requests_are_those_that_a_drain_makes(
    make: MakeOperated,
    delivered: list[dict[str, Any]],
    waiting: list[dict[str, Any]],
    behaviour: str,
    is_admitted: bool,
) -> None:
    shop, operate = make(delete_behavior=behaviour, list_id=3)

    def write(events: list[dict[str, Any]]) -> list[int]:
        """What is unique in Brevo is each customer's own."""
        own = [
            {
                name: value.format(each["id"]) if isinstance(value, str) else value
                for name, value in each.items()
            }
            for each in events
        ]
        return [shop.enqueue(each.pop("event"), **each) for each in own]

    for event in delivered:
        write([event])
        shop.drain()
    if is_admitted:
        operate("pause")
    ids = write(waiting)
    if is_admitted:
        shop.drain()
        operate("resume")
    by_customer = {}
    for event_id in ids:
        facts = explained(operate, event_id, "--reveal")
        by_customer[facts["customer"]] = requests_of(facts, shop)
    before = len(shop.calls)
    shop.drain()
    sent = [(call.method, call.path, call.body) for call in shop.calls[before:]]
    expected = [request for requests in by_customer.values() for request in requests]
    if len(by_customer) == 1:
        assert sent == expected
    assert sorted(sent, key=str) == sorted(expected, key=str)  # of several customers in any order


def test_a_moved_address_takes_the_calls_of_the_client(make: MakeOperated) -> None:
    shop, operate = make()
    shop.sent("created", **MARA)
    event_id = shop.enqueue("updated", id=1, email="mara@example.org")
    facts = explained(operate, event_id, "--reveal")
    assert [part["change"] for part in facts["parts"]] == ["move"]
    assert requests_of(facts, shop) == [
        ("GET", "/contacts/mara.klein%40example.com?identifierType=email_id", None),
        (
            "PUT",
            "/contacts/mara.klein%40example.com?identifierType=email_id",
            {"attributes": {"EMAIL": "mara@example.org"}},
        ),
    ]


def test_nothing_is_sent_and_nothing_written(make: MakeOperated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brevo is asked for its attributes, and no copy is left behind."""
    shop, operate = make()
    monkeypatch.setattr(tempfile, "tempdir", str(shop.path.parent))
    shop.sent("created", **MARA)
    shop.enqueue("updated", id=1, firstName="Maria")
    before, calls, files = everything(shop), len(shop.sandbox.calls), set(shop.path.parent.iterdir())
    explained(operate, 2)
    assert everything(shop) == before
    assert [call.path for call in shop.sandbox.calls[calls:]] == ["/contacts/attributes"]
    assert set(shop.path.parent.iterdir()) == files


def test_it_waits_for_no_writer(make: MakeOperated) -> None:
    shop, operate = make()
    shop.enqueue("created", **MARA)
    with closing(sqlite3.connect(shop.path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert explained(operate, 1)["verdict"] == "delivered"


# Customers who have one contact

ANN = "ann@example.com"
SECOND = "custom:second"


def at(minute: int, **data: Any) -> dict[str, Any]:
    """An envelope with a time of its own."""
    return {"timestamp": f"2026-11-01T00:{minute:02}:00Z", "data": data}


def write(shop: Shop, event: str, letter: dict[str, Any], source: str | None = None) -> int:
    return outboxd.enqueue(f"customer_{event}", letter, source=source, db=shop.path, now=shop.clock)


@pytest.mark.parametrize("source", [None, SECOND])
@pytest.mark.parametrize(
    "told",
    [
        [("deleted", at(3, id=2, email=ANN))],
        [
            ("created", at(1, id=2, email=ANN, acceptsMarketing=False)),
            ("updated", at(2, id=2, acceptsMarketing=True)),
        ],
        [("updated", at(3, id=3, email=ANN, firstName="Anna"))],
    ],
    ids=["deleted", "opted in", "moved"],
)
def test_whoever_has_the_contact_at_an_address_that_an_event_leads_to_is_heeded(
    make: MakeOperated, told: list[tuple[str, dict[str, Any]]], source: str | None
) -> None:
    """Of another shop, too; and though the address was known as that of a customer who left it."""
    shop, operate = make(delete_behavior="hard")
    write(shop, "created", at(0, id=7, email=ANN))
    write(
        shop, "created", at(0, id=3, email="bo@example.com", firstName="Bo", acceptsMarketing=False), source
    )
    shop.drain()
    write(shop, "updated", at(1, id=7, email="new@example.com"))
    shop.drain()
    write(shop, "created", at(5, id=1, email=ANN, firstName="Ann", acceptsMarketing=False))
    shop.drain()
    shop.later(seconds=1)
    ids = [write(shop, event, letter, source) for event, letter in told]
    expected = requests_of(explained(operate, ids[0], "--reveal"), shop)
    before = len(shop.calls)
    shop.drain()
    sent = [(call.method, call.path, call.body) for call in shop.calls[before:]]
    assert sent[:2] == expected  # what heals a move to a taken address comes after
    assert shop.contact(ANN)["emailBlacklisted"] is True


# Why


def test_it_tells_what_each_field_became_and_why_others_did_not(make: MakeOperated) -> None:
    shop, operate = make()
    event_id = shop.enqueue("created", **MARA, phone="12", totalSpent=9.5, company="Klein & Co")
    facts = explained(operate, event_id, "--reveal")
    assert facts["customer"] == "custom:1"
    assert facts["mapping"] == [
        {"field": "email", "attribute": "email", "value": "mara.klein@example.com"},
        {"field": "firstName", "attribute": "FIRSTNAME", "value": "Mara"},
        {
            "field": "phone",
            "attribute": "SMS",
            "left_out": "phone is a national phone number, and neither the payload nor default_country says"
            " which nation's",
        },
        {"field": "totalSpent", "attribute": "SPENT", "value": 9.5},
        {"field": "address.city", "attribute": "CITY", "value": "Lübeck"},
    ]
    assert facts["absent"] == ["tags"]
    assert facts["no_rule"] == ["company"]


def test_it_tells_what_differs_what_brevo_has_and_what_is_outdated(make: MakeOperated) -> None:
    shop, operate = make()
    shop.sent("created", **MARA)
    older = shop.enqueue("updated", id=1, firstName="Maria", address={"city": "Lübeck"}, totalSpent=1)
    newer = shop.enqueue("updated", id=1, firstName="Marie")
    told_of = explained(operate, older)
    assert (told_of["differs"], told_of["unchanged"]) == (["SPENT"], ["CITY"])
    assert told_of["outdated"] == ["FIRSTNAME"]
    assert told_of["folded_with"] == [newer]
    assert explained(operate, newer)["differs"] == ["FIRSTNAME"]
    assert explained(operate, newer)["parts"] == told_of["parts"]


@pytest.mark.parametrize("is_admitted", [False, True])
def test_it_folds_with_the_other_events_admitted_or_not(make: MakeOperated, is_admitted: bool) -> None:
    shop, operate = make()
    if is_admitted:
        operate("pause")
    first = shop.enqueue("created", **MARA)
    shop.enqueue("created", id=2, email="tom@example.com")
    by_address = shop.enqueue("updated", email="mara.klein@example.com", phone="+4915112345678")
    if is_admitted:
        shop.drain()
    facts = explained(operate, first)
    assert facts["folded_with"] == [by_address]
    assert list(facts["parts"][0]["requests"][0]["body"]["attributes"]) == ["FIRSTNAME", "CITY", "SMS"]


@pytest.mark.parametrize(
    ("first", "then", "consent"),
    [
        (None, False, "the opt-out is sent"),
        (False, True, "the opt-in is sent: it ends an opt-out"),
        (None, True, "nothing is sent: an opt-in only counts after an opt-out that the shop had stated"),
    ],
)
def test_it_tells_what_becomes_of_the_consent(
    make: MakeOperated, first: bool | None, then: bool, consent: str
) -> None:
    shop, operate = make()
    shop.sent("created", **MARA, **({} if first is None else {"acceptsMarketing": first}))
    event_id = shop.enqueue("updated", id=1, firstName="Maria", acceptsMarketing=then)
    assert explained(operate, event_id)["parts"][0]["consent"] == consent


# Events that are finished


def test_a_delivered_event_would_change_nothing(make: MakeOperated) -> None:
    shop, operate = make()
    event_id = shop.sent("created", **MARA)["id"]
    facts = explained(operate, event_id)
    assert (facts["status"], facts["verdict"]) == ("delivered", "unchanged")
    assert facts["parts"][0]["why"] == "Brevo already has all of it"
    assert facts["parts"][0]["requests"] == []


def test_a_warning_is_no_doubt_whether_a_delivered_event_arrived(make: MakeOperated) -> None:
    shop, operate = make()
    event = shop.sent("created", **{**MARA, "phone": "nonsense"})
    assert event["status"] == "delivered"
    assert event["last_error"].startswith("SMS left out")
    facts = explained(operate, event["id"])
    assert (facts["verdict"], facts["differs"]) == ("unchanged", [])
    assert facts["parts"][0]["requests"] == []


@pytest.mark.parametrize("event", ["created", "redacted"])
def test_of_a_customer_who_was_erased_nothing_is_left_to_explain(make: MakeOperated, event: str) -> None:
    shop, operate = make()
    events = {"created": shop.sent("created", **MARA), "redacted": shop.sent("redacted", **MARA)}
    facts = explained(operate, events[event]["id"])
    assert facts["verdict"] == "superseded"
    assert facts["why"] == "the customer was erased, and what the event said with them"
    assert facts["parts"] == []


@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_dead_letter_is_explained_as_if_it_were_retried(make: MakeOperated, is_dropped: bool) -> None:
    shop, operate = make()
    shop.sandbox.faults.add(Fault(status=422, times=1, method="POST"))
    event = shop.sent("created", **MARA)
    if is_dropped:
        operate("drop", str(event["id"]), "--yes")
    facts = explained(operate, event["id"], "--reveal")
    assert facts["status"] == ("dropped" if is_dropped else "dead")
    assert facts["verdict"] == "delivered"
    failed = shop.calls[-1]
    assert requests_of(facts, shop) == [(failed.method, failed.path, failed.body)]


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ('{"id": 9, "firstName": "Nobody"}', "no address is known for customer custom:9"),
        ('{"id": 9, "email": "nope"}', "the email address is not valid"),
        ('{"firstName": "Nobody"}', "it has neither an id nor an email address"),
        ("[]", "not a JSON object"),
    ],
)
def test_what_would_be_a_dead_letter_is_told_with_its_reason(
    make: MakeOperated, payload: str, why: str
) -> None:
    shop, operate = make()
    event_id = shop.insert("customer_updated", payload)
    for _ in range(2):  # new, and then dead
        result = operate("explain", str(event_id))
        assert exit_code(result) == 1
        assert why in result.stdout
        shop.drain()
    assert shop.event(event_id)["status"] == "dead"


def test_an_event_that_is_not_there_is_told(make: MakeOperated) -> None:
    _, operate = make()
    assert exit_code(operate("explain", "99")) == 66
    for number in (2**63, 10**25):  # more than SQLite can count
        result = operate("explain", str(number))
        assert exit_code(result) == 66
        assert str(result.exception) == f"there is no event {number}"


# Files


def test_a_file_is_explained_as_the_intake_would_take_it(make: MakeOperated, tmp_path: Path) -> None:
    shop, operate = make()
    shop.sent("created", **MARA)
    lines = [
        {"event": "customer_updated", "data": {"id": 1, "firstName": "Maria"}},
        {"event": "customer_updated", "data": {"id": 1, "phone": "+4915112345678"}},
    ]
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    first, second = told(operate("explain", str(file), "--json", "--reveal"))
    assert (first["event"], second["event"], first["folded_with"]) == ("item 1", "item 2", ["item 2"])
    assert first["parts"][0]["events"] == ["item 1", "item 2"]
    assert first["parts"][0]["requests"][0]["body"] == {
        "attributes": {"FIRSTNAME": "Maria", "SMS": "+4915112345678"}
    }
    assert "status" not in first
    assert shop.rows("SELECT count(*) FROM outbox") == [(1,)]


def test_standard_input_and_the_intakes_options_are_taken(make: MakeOperated) -> None:
    _, operate = make()
    customer = '{"id": 4711, "email": "mara@example.com", "first_name": "Mara"}'
    arguments = ("explain", "-", "--event", "customers/update", "--source", "shopify", "--json")
    (facts,) = told(operate(*arguments, input=customer))
    assert (facts["customer"], facts["kind"]) == ("shopify:4711", "updated")


def test_an_idempotency_key_that_was_written_before_comes_to_nothing(make: MakeOperated) -> None:
    shop, operate = make()
    outboxd.enqueue("customer_created", MARA, idempotency_key="k", db=shop.path)
    lines = [{"event": "customer_created", "data": MARA, "idempotency_key": key} for key in ("k", "l", "l")]
    facts = told(operate("explain", "-", "--json", input=json.dumps(lines)))
    assert [each["verdict"] for each in facts] == ["repeated", "delivered", "repeated"]
    assert [each["event"] for each in facts] == ["item 1", "item 2", "item 3"]
    text = operate("explain", "-", input=json.dumps(lines)).stdout
    assert "event 1 has its idempotency_key" in text
    assert [line for line in text.splitlines() if line.startswith("item")] == [
        "item 1",
        "item 2: customer_created, source custom",
        "item 3",
    ]


def test_what_a_file_is_folded_with_has_its_own_id_if_it_is_written(make: MakeOperated) -> None:
    shop, operate = make()
    waiting = shop.enqueue("created", **MARA)
    line = {"event": "customer_updated", "data": {"id": 1, "firstName": "Maria"}}
    (facts,) = told(operate("explain", "-", "--json", input=json.dumps(line)))
    assert (facts["event"], facts["folded_with"]) == ("item 1", [waiting])


def test_a_file_without_events_is_refused_as_by_the_intake(make: MakeOperated) -> None:
    _, operate = make()
    assert exit_code(operate("explain", "-", input="nonsense")) == 65
    assert exit_code(operate("explain", "missing.json")) == 66


# Personal data


def test_personal_data_is_masked_unless_it_is_to_be_revealed(make: MakeOperated) -> None:
    shop, operate = make()
    shop.sent("created", **MARA)
    shop.enqueue("updated", id=1, email="mara@example.org", phone="+4915112345678", tags="vip club")
    secrets = ("mara", "Mara", "Lübeck", "15112345678", "club")
    for event_id in ("1", "2"):
        for options in ((), ("--json",)):
            shown = operate("explain", event_id, *options).stdout
            assert [secret for secret in secrets if secret in shown] == []
    shown = operate("explain", "2").stdout
    assert "m***@example.org" in shown
    assert "/contacts/m***%40example.com?identifierType=email_id" in shown
    assert '"SMS": "+***"' in shown
    assert "mara@example.org" in operate("explain", "2", "--reveal").stdout


@pytest.mark.parametrize("text", ["ask ann@example.com or Bob", "ann@home", "@ann", "@", "a@b@ann c.d"])
def test_only_what_is_an_address_keeps_what_follows_the_at(text: str) -> None:
    assert masked(text) == f"{text[0]}***"
    assert masked("ann@b.example.com") == "a***@b.example.com"


def test_what_a_shop_wrote_in_place_of_names_is_masked(make: MakeOperated) -> None:
    """An event and a source that are none may be anything, such as a payload in the wrong column."""
    shop, operate = make()
    event = shop.insert(json.dumps(MARA), "customer_created", source="mara.klein@example.com")
    found = operate("explain", str(event)).stdout
    assert "mara" not in found.lower()
    assert "mara.klein@example.com" in operate("explain", str(event), "--reveal").stdout
    known = shop.insert("customer.updated", MARA, source="shopify:second")
    facts = explained(operate, known)
    assert (facts["name"], facts["source"]) == ("customer.updated", "shopify:second")


def test_without_brevo_the_types_are_said_to_be_unchecked(make: MakeOperated) -> None:
    shop, operate = make()
    shop.enqueue("created", **MARA)
    calls = len(shop.sandbox.calls)
    result = operate("explain", "1", "--offline")
    assert "not checked: the types of Brevo's attributes (--offline)" in result.stderr
    assert "POST" in result.stdout
    assert len(shop.sandbox.calls) == calls


def test_a_readable_tree_is_printed_for_people(make: MakeOperated) -> None:
    shop, operate = make()
    shop.enqueue("created", id=1, email="mara@example.com", firstName="Mara", company="Klein")
    lines = operate("explain", "1", "--offline").stdout.splitlines()
    assert lines[0] == "event 1: customer_created, source custom"
    assert [line for line in lines if line.startswith("  create")] == [
        "  create: as far as is known here, Brevo does not have the contact"
    ]
    assert lines[-2:] == [
        f"    POST {shop.sandbox.url}/contacts",
        '    {"email": "m***@example.com", "attributes": {"FIRSTNAME": "M***"}, "updateEnabled": true}',
    ]


def test_what_shops_write_does_nothing_to_a_terminal(make: MakeOperated) -> None:
    """Whoever registers in a shop may choose their name."""
    shop, operate = make()
    shop.enqueue("created", id=1, email="mara@example.com", firstName="\x1b]0;Mara\x07 \x9b31mKlein")
    shop.insert("customer_\x1b[2Jcreated", '{"id": 2, "\x9b2J": 1}')
    for event_id in ("1", "2"):
        told = operate("explain", event_id, "--reveal").stdout
        assert all(line.isprintable() for line in told.splitlines())
    assert r"\x1b[2J" in told
