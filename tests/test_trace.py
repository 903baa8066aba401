"""Debug mode: for each event one line that says what became of it, with kinds and lengths for values."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd import config, logs
from outboxd.masks import masked, masked_path, shape
from tests.shop import MakeShop, Shop

MAPPING = {"email": "email", "firstName": "FIRSTNAME", "phone": "SMS", "tags": "TAGS", "billing.city": "CITY"}
ATTRIBUTES = {"TAGS": "text", "CITY": "text"}
MARA = {"id": 1, "email": "mara.klein@example.com", "firstName": "Mara", "billing": {"city": "Lübeck"}}

Lines = Callable[[], list[str]]


@pytest.fixture
def shop(make_shop: MakeShop) -> Shop:
    return make_shop({"attributes": ATTRIBUTES}, mapping=MAPPING)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """What was told of events, at the level `verbose`."""
    caplog.set_level(logs.LEVELS["verbose"], logger="outboxd")
    return lambda: [told for told in caplog.messages if told.startswith("mapped ")]


def test_debug_is_the_level_verbose() -> None:
    skill = {"customer-sync": {"debug": True}}
    assert config.from_mapping({"skills": skill}, "test").log_level == "verbose"


def test_it_tells_what_was_mapped_to_what_and_why_the_rest_was_left_out(shop: Shop, lines: Lines) -> None:
    shop.sent("created", **MARA, phone="12", lastName="Klein", company="Klein & Co")
    (told,) = lines()
    assert " event=1 customer=custom:1 kind=created " in told
    mapped = "email<-email text(22), FIRSTNAME<-firstName text(4), CITY<-billing.city text(6)"
    assert f' mapped="{mapped}"' in told
    assert ' left_out="SMS: phone is a national phone number, ' in told
    assert " absent=tags " in told
    assert " no_rule=lastName " in told
    assert told.endswith(' change=create differs=CITY,FIRSTNAME call="POST /contacts"')


def test_it_tells_what_the_fold_decided(shop: Shop, lines: Lines) -> None:
    shop.sent("created", **MARA)
    shop.enqueue("updated", id=1, firstName="Maria", billing={"city": "Lübeck"})
    shop.enqueue("updated", id=1, firstName="Marie", acceptsMarketing=True)
    shop.drain()
    first, second, third = lines()
    assert " change=create " in first
    assert second.endswith(' change=update unchanged=CITY outdated=FIRSTNAME call="PUT /contacts/{email}"')
    assert third.endswith(' consent=told change=update differs=FIRSTNAME call="PUT /contacts/{email}"')


def test_what_needs_no_call_names_none(shop: Shop, lines: Lines) -> None:
    shop.sent("created", **MARA)
    shop.sent("updated", id=1, firstName="Mara")
    assert lines()[-1].endswith(" change=nothing unchanged=FIRSTNAME")


def test_events_of_a_customer_who_is_gone_are_told_as_superseded(shop: Shop, lines: Lines) -> None:
    shop.enqueue("created", **MARA)
    shop.enqueue("deleted", id=1)
    shop.drain()
    assert " superseded=yes" in lines()[0]


def test_without_debug_nothing_is_told(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logs.LEVELS["info"], logger="outboxd")
    shop.sent("created", **MARA)
    assert [told for told in caplog.messages if told.startswith("mapped ")] == []


def test_no_log_holds_personal_data(shop: Shop, lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    """Through creation, a move, trouble, refusal and removal; with keys that are names among the fields."""
    shop.sent("created", **MARA, phone="+4915112345678", tags=["Vip Klub"], Xaver="Quandt")
    shop.sent("updated", id=1, email="mara.neu@example.org", firstName="Marlene", phone="0151 999")
    shop.sent("created", id=2, email="zacharias", firstName="Zacharias")
    shop.sent("updated", id=3, firstName="Yolanda", phone=True, tags={"Xenia": 1})
    shop.sent("deleted", id=1, email="mara.neu@example.org")
    assert len(lines()) == 4
    text = caplog.text
    secrets = ("mara", "Marlene", "klein", "neu@", "Lübeck", "1511", "999", "Klub", "acharias", "Yolanda")
    assert [each for each in (*secrets, "Xaver", "Quandt", "Xenia") if each.lower() in text.lower()] == []


# Masks

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(100) | st.text(min_size=2), st.lists, max_leaves=5
)


@given(value=VALUES)
def test_a_shape_says_the_kind_and_nothing_of_the_value(value: Any) -> None:
    assert shape(value).partition("(")[0] in {"text", "number", "flag", "list", "object", "empty"}


@given(text=st.text(min_size=2).filter(lambda text: "@" not in text))
def test_of_a_text_one_letter_is_shown(text: str) -> None:
    assert masked(text) == f"{text[0]}***"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("jane@example.com", "j***@example.com"),
        ("@example.com", "@***"),
        (19.5, "***"),
        (True, True),
        (None, None),
        ("", ""),
        (["vip", 3], ["v***", "***"]),
        ({"FIRSTNAME": "Jane", "SPENT": 3}, {"FIRSTNAME": "J***", "SPENT": "***"}),
    ],
)
def test_masked_values(value: Any, shown: Any) -> None:
    assert masked(value) == shown


def test_a_path_is_masked_where_it_names_a_contact() -> None:
    assert masked_path("/contacts/jane%2Bx%40example.com?identifierType=email_id") == (
        "/contacts/j***%40example.com?identifierType=email_id"
    )
    assert masked_path("/contacts") == "/contacts"
