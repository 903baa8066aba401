"""Mapping: canonical fields become Brevo's attributes, and nothing else leaves."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given, settings
from hypothesis import strategies as st

from outboxd.errors import EventError
from outboxd.event import Event, Kind, Reading, Stamp
from outboxd.mapping import SKEW, address, is_plain, statement, version
from outboxd.rules import DEFAULT, canonical
from outboxd.values import plain

WRITTEN_AT = datetime(2026, 11, 23, 16, 0, tzinfo=UTC)
EARLIER = WRITTEN_AT - timedelta(hours=3)
EVENT = Event(7, "customer_updated", "{}", "shopify", None, WRITTEN_AT, 0)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def event(occurred_at: datetime | None = None) -> Event:
    return Event(7, "customer_updated", "{}", "shopify", occurred_at, WRITTEN_AT, 0)


def reading(**said: Any) -> Reading:
    return Reading(**({"kind": Kind.UPDATED, "customer_id": "4711", "email": "ana@example.com"} | said))


def attributes(rules: dict[str, str] = DEFAULT, **fields: Any) -> dict[str, Any]:
    return dict(statement(EVENT, reading(fields=fields), rules).attributes)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("first_name", "firstName"),
        ("firstName", "firstName"),
        ("accepts_marketing", "acceptsMarketing"),
        ("address_line_2", "addressLine2"),
        ("loyalty__points", "loyaltyPoints"),
        ("_id", "_id"),
        ("email", "email"),
        ("", ""),
    ],
)
def test_a_name_has_one_canonical_form(name: str, expected: str) -> None:
    assert canonical(name) == expected


@given(st.text(alphabet="abcXYZ019_é ", max_size=12))
def test_a_canonical_name_stays_as_it_is(name: str) -> None:
    assert canonical(canonical(name)) == canonical(name)


def test_fields_become_attributes_by_the_rules() -> None:
    assert attributes(firstName="Ana", lastName="Lima", phone="+351912345678") == {
        "FIRSTNAME": "Ana",
        "LASTNAME": "Lima",
        "SMS": "+351912345678",
    }


def test_rules_find_a_field_however_the_shop_spells_it() -> None:
    rules = {"firstName": "PRENOM"}
    assert attributes(rules, first_name="Ana") == attributes(rules, firstName="Ana") == {"PRENOM": "Ana"}


def test_a_field_without_a_rule_never_leaves() -> None:
    assert attributes(note="likes tea", passwordHash="x", firstName="Ana") == {"FIRSTNAME": "Ana"}


def test_a_field_that_is_absent_is_not_said() -> None:
    assert attributes(lastName="Lima") == {"LASTNAME": "Lima"}


def test_a_cleared_field_is_said_as_empty() -> None:
    assert attributes(firstName=None) == {"FIRSTNAME": ""}


@pytest.mark.parametrize("value", [False, 0, 0.0])
def test_false_and_zero_are_values(value: object) -> None:
    said = attributes({"vip": "VIP"}, vip=value)["VIP"]
    assert (said, type(said)) == (value, type(value))


def test_the_address_is_no_attribute_whatever_the_rules_say() -> None:
    """It is sent in a place of its own."""
    said = statement(EVENT, reading(fields={"email": "ana@example.com"}), {"email": "EMAIL"})
    assert (said.email, said.attributes) == ("ana@example.com", {})


def test_one_field_may_fill_two_attributes() -> None:
    assert attributes(
        {"phone": "SMS"} | {"firstName": "FIRSTNAME"}, phone="+351912345678", firstName="A"
    ) == {
        "SMS": "+351912345678",
        "FIRSTNAME": "A",
    }


def test_addresses_are_compared_without_case_and_blanks() -> None:
    assert statement(EVENT, reading(email=" Ana@Example.COM "), DEFAULT).email == "ana@example.com"


def test_no_address_is_none() -> None:
    assert statement(EVENT, reading(email=None), DEFAULT).email is None


@pytest.mark.parametrize("consent", [True, False])
@pytest.mark.parametrize("name", ["acceptsMarketing", "accepts_marketing"])
def test_consent_is_read_without_a_rule(name: str, consent: bool) -> None:
    said = statement(EVENT, reading(fields={name: consent}), {})
    assert (said.accepts_marketing, said.attributes) == (consent, {})


@pytest.mark.parametrize("consent", [None, "true", "", 1, 0, [True]])
def test_what_is_not_true_or_false_is_no_consent(consent: object) -> None:
    said = statement(EVENT, reading(fields={"acceptsMarketing": consent}), DEFAULT)
    assert said.accepts_marketing is None


def test_consent_can_be_an_attribute_as_well() -> None:
    assert attributes({"acceptsMarketing": "OPT_IN"}, acceptsMarketing=False) == {"OPT_IN": False}


@pytest.mark.parametrize(
    ("customer_id", "former_email", "is_news"),
    [("4711", None, True), (None, "old@example.com", True), (None, None, False)],
)
def test_an_address_that_only_says_who_is_meant_is_no_news(
    customer_id: str | None, former_email: str | None, is_news: bool
) -> None:
    said = statement(EVENT, reading(customer_id=customer_id, former_email=former_email), DEFAULT)
    assert said.names_address is is_news


def test_the_writers_own_time_counts_before_the_payloads() -> None:
    said = reading(version_at=WRITTEN_AT - timedelta(days=2))
    assert version(event(occurred_at=EARLIER), said) == EARLIER
    assert version(event(), said) == WRITTEN_AT - timedelta(days=2)


def test_without_a_time_the_row_was_written_when_it_happened() -> None:
    assert statement(event(), reading(), DEFAULT).stamp == Stamp(WRITTEN_AT, 7)


@pytest.mark.parametrize(
    ("ahead", "is_believed"), [(timedelta(0), True), (SKEW, True), (SKEW + timedelta(milliseconds=1), False)]
)
def test_a_clock_that_runs_far_ahead_is_not_believed(ahead: timedelta, is_believed: bool) -> None:
    """Its news would win over all that is to come."""
    expected = WRITTEN_AT + ahead if is_believed else WRITTEN_AT
    assert version(event(occurred_at=WRITTEN_AT + ahead), reading()) == expected
    assert version(event(), reading(version_at=WRITTEN_AT + ahead)) == expected


ENDS = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))


@pytest.mark.parametrize("stated", ENDS)
@pytest.mark.parametrize("written", ENDS)
def test_a_time_at_either_end_of_the_calendar_is_read(stated: datetime, written: datetime) -> None:
    said = replace(event(occurred_at=stated), created_at=written)
    assert version(said, reading()) == min(stated, written)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        ("Ana", "Ana"),
        (12.5, 12.5),
        (["vip", "tea"], "vip, tea"),
        ([1, 2.5, "x"], "1, 2.5, x"),
        ([], ""),
        ({"b": 1, "a": "é"}, '{"a": "é", "b": 1}'),
        ([{"a": 1}], '[{"a": 1}]'),
    ],
)
def test_a_value_becomes_what_brevo_takes(value: object, expected: object) -> None:
    assert plain(value) == expected


@given(json_values)
def test_whatever_json_a_field_holds_it_leaves_as_one_plain_value(value: Any) -> None:
    """Never null, which Brevo refuses or ignores, and never a structure."""
    said = plain(value)
    assert isinstance(said, str | int | float)
    assert json.loads(json.dumps(said)) == said


def is_taken(email: str) -> bool:
    try:
        return address(reading(email=email)) is not None
    except EventError:
        return False


def is_valid(email: str) -> bool:
    try:
        validate_email(email.strip().lower(), check_deliverability=False)
    except EmailNotValidError:
        return False
    return True


labels = st.from_regex(r"[a-z0-9_+-]{1,70}", fullmatch=True) | st.text(alphabet="ab1-_+.x", max_size=6)
domains = st.lists(labels | st.sampled_from(["xn--", "xn--bcher-kva", "ab--c", "1", "-"]), max_size=5)
endings = st.sampled_from(
    ["com", "net", "org", "de", "io", "xn", "c", "c1", "1", "co-", "ab--cd", "example", "xn--p1ai", "xn--"]
)
reserved = st.sampled_from(["arpa", "invalid", "local", "localhost", "onion", "test"])


@given(st.lists(labels, max_size=3), domains, endings | reserved)
@example(["a"], ["a" * 63], "com")
@example(["a"], ["a" * 64], "com")
@example(["a" * 62], ["b", "c"], "de")
@example(["a"], ["xn--a"], "com")
@example(["a"], ["home"], "arpa")
@example(["a"], ["127", "0", "0"], "1")
@example(["a"], [], "de")
@settings(max_examples=500)
def test_an_address_is_taken_exactly_where_the_rules_of_addresses_allow_it(
    local: list[str], domain: list[str], ending: str
) -> None:
    """Most are seen to be plain at a glance; no glance takes what email_validator refuses."""
    email = f"{'.'.join(local)}@{'.'.join([*domain, ending])}"
    assert is_taken(email) == is_valid(email)


locals_ = st.from_regex(r"[a-z0-9_+-]{1,9}(\.[a-z0-9_+-]{1,9}){0,2}", fullmatch=True)
hosts = st.from_regex(r"([a-z0-9]{1,7}(-[a-z0-9]{1,3}){0,2}\.){1,2}([a-z]{2}|com|net|org)", fullmatch=True)


@given(locals_, hosts)
@settings(max_examples=500)
def test_what_is_plain_is_valid(local: str, host: str) -> None:
    email = f"{local}@{host}"
    assert is_plain(email) is (len(email) <= 64)
    assert is_valid(email)


@pytest.mark.parametrize("email", ["ann@example.com", "a.b-c_d+e@mail.ex-ample.co.uk", "7@1.de"])
def test_a_common_address_is_plain(email: str) -> None:
    assert is_plain(email)


@pytest.mark.parametrize(
    "email",
    [
        "ann@example.test",
        "ann@xn--bcher-kva.com",
        "ann@a--b.com",
        "zoë@example.com",
        "ann@bücher.de",
        "a" * 64 + "@example.com",
        "ann@localhost",
        "ann@de",
        "o'neill@example.com",
        "ann@example.com\n",
    ],
)
def test_an_uncommon_address_is_not_called_plain(email: str) -> None:
    assert not is_plain(email)
