"""What was sent is told by nobody, however an answer writes it; what Brevo says stays to be read."""

import html
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from outboxd.brevo import answers
from outboxd.brevo.client import Brevo
from outboxd.brevo.echoes import HIDDEN, LONG, NAME, WORD, said, without
from outboxd.brevo.limiter import Limiter
from outboxd.event import Upsert
from tests.shop import KEY, PATIENCE
from tests.wire import wired

SPELLINGS: list[Callable[[str], str]] = [str, str.upper, str.lower, str.title, str.swapcase, str.casefold]


def plainly(text: str) -> str:
    return json.dumps(text)[1:-1]


def as_unicode(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def whole(text: str) -> str:
    return quote(text, safe="")


def in_small_letters(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def in_numbers(text: str) -> str:
    return "".join(f"&#{ord(sign)};" for sign in text)


def all_escaped(text: str) -> str:
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02X}{units[at + 1]:02x}" for at in range(0, len(units), 2))


FORMS: list[Callable[[str], str]] = [
    *(str, plainly, as_unicode, whole, quote, quote_plus, html.escape),
    *(in_small_letters, in_numbers, all_escaped),
]

letters = st.characters(categories=["L", "N"])
signs = st.characters(exclude_categories=["Cs"])
forms = st.lists(st.sampled_from(FORMS), max_size=2)
spellings = st.sampled_from(SPELLINGS)
longs = st.lists(st.tuples(letters, st.text(signs, max_size=2)).map("".join), min_size=LONG, max_size=12)


def written(value: str, spelling: Callable[[str], str], forms: list[Callable[[str], str]]) -> str:
    spelt = spelling(value)
    for form in forms:
        spelt = form(spelt)
    return spelt


def assert_hides(value: str, told: str) -> None:
    for spelling in SPELLINGS:
        assert spelling(value) not in told, told


@given(longs.map("".join), st.text(signs), st.text(signs), spellings, forms)
@example("jane.secret@example.com", "PUT /contacts/", "?type=email_id", str, [whole])
@example("Stra\u00dfe 1234", "at ", "!", str.upper, [plainly, whole])
@example("1secrets", "%4", "", str, [])
@example("u00ebsecret", "\\", "", str, [])
@example("a%41bcdefgh", "", "", str, [html.escape, whole])
@example("DOMAIN\\newuser", "", "", str, [plainly])
@example("I\u015f\u0131k \u0130pek\u00e7i", "", "", str.lower, [whole, whole])
def test_a_long_value_is_never_told(
    value: str, before: str, after: str, spelling: Callable[[str], str], forms: list[Callable[[str], str]]
) -> None:
    assert_hides(value, without(f"{before}{written(value, spelling, forms)}{after}", [value]))


@given(st.text(letters, min_size=NAME, max_size=LONG), spellings, forms, st.sampled_from(["", "'", '"', " "]))
@example("Zo\u00eb", str.upper, [plainly], "'")
@example("\u738b\u5c0f\u660e", str, [], "\u7528\u6237")
@example("\U00020bb7\u91ce", str, [plainly], "")
def test_a_short_value_is_never_told_where_it_is_a_word(
    value: str, spelling: Callable[[str], str], forms: list[Callable[[str], str]], around: str
) -> None:
    assume(value.isalpha() or len(value) >= WORD)
    told = without(f"- {around}{written(value, spelling, forms)}{around}.", [value])
    assert_hides(value, told)


@pytest.mark.parametrize(
    "told", ["Secretname", "SECRETNAME.", "jane.secret", "Ren\u00e9e", "renee", "+49 (151) 1234-5678"]
)
def test_so_is_a_word_of_it_or_another_way_to_write_it(told: str) -> None:
    sent = ["Jane Secretname", "jane.secret@example.com", "Ren\u00e9e Zola", "+4915112345678"]
    hidden = without(f"<{told}> is not valid", sent)
    assert HIDDEN in hidden
    assert not any(sign.isalnum() for sign in hidden.removesuffix("is not valid"))


BREVOS = (
    "Invalid phone number",
    "Unable to create contact, email is already associated with another Contact",
    "SMS or EXT_ID are already associated with another Contact",
    "One of email, attributes.SMS or ext_id is required",
    "No contact found for indexes 3,12,100",
    "List ID 12 does not exist",
    "attribute FIRSTNAME is not valid, 100% of the cannot-be-annexed",
    "The expected rate limit is exceeded.",
)


@pytest.mark.parametrize("message", BREVOS)
def test_what_brevo_says_stays_to_be_read(message: str) -> None:
    """Also of an Ann who has ordered 3 times, pays 1.5, and is on the list that is not there."""
    attributes = {
        "FIRSTNAME": "Ann",
        "LASTNAME": "Tact",
        "SMS": "+4915112345678",
        "TIER": "1",
        "MEMBER": True,
        "ORDERS": 12,
        "SPENT": 1.5,
        "SINCE": "2026-11-23",
        "TAGS": ["a", "3"],
        "NOTE": "",
    }
    body = {"email": "ann@firma.de", "attributes": attributes, "listIds": [12], "updateEnabled": True}
    assert without(message, said("/contacts", body)) == message


def test_the_address_in_the_path_is_what_was_said() -> None:
    assert list(said("/contacts/zo%C3%AB%2Bx%40example.com?identifierType=email_id", None)) == [
        "zo\u00eb+x@example.com"
    ]
    assert list(said("/contacts/lists/5", None)) == []


@pytest.mark.parametrize("text", ["word " * 10_000, whole(whole(whole(whole(whole("a b")))))])
def test_what_cannot_be_looked_through_is_not_told(text: str) -> None:
    assert without(text, ["jane.secret@example.com"]) == ""


ANN = Upsert(
    "jane.secret@example.com",
    None,
    {},
    {
        "FIRSTNAME": "Jane",
        "LASTNAME": "Secretname",
        "SMS": "+4915112345678",
        "CITY": "Z\u00fcrich",
        "SPENT": 4711.5,
    },
)
SENT = (ANN.email, KEY, *map(str, ANN.complete.values()))


def answer(status: int, body: Any, request_id: str) -> bytes:
    raw = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(raw)}\r\nsib-request-id: {request_id}\r\n\r\n"
    return head.encode("latin-1", "replace") + raw


@pytest.mark.parametrize("status", [200, 400, 409, 422, 500])
def test_no_call_tells_what_it_sent_whatever_is_answered(status: int) -> None:
    """In none of the three: neither the message, nor the code, nor the id."""
    echoes = [written(value, spelling, [form]) for value in SENT for spelling in SPELLINGS for form in FORMS]
    said = [answer(status, {"code": each, "message": f"No {each}!"}, each) for each in echoes]
    with wired(said) as wire:
        client = Brevo(
            base_url=wire.url,
            api_key=KEY,
            limiter=Limiter([(10**6, 1.0)]),
            timeout=timedelta(seconds=PATIENCE),
        )
        body = {"email": ANN.email, "attributes": dict(ANN.complete)}
        told = [client.call("POST", "/contacts", body) for _ in said]
    for each in told:
        assert (each.status, each.code, each.request_id) == (status, None, None)
        assert HIDDEN in each.message
        assert not any(map(str.isalnum, each.message.removeprefix("No "))), each.message


def test_neither_does_one_of_many_contacts() -> None:
    """Bodies that are written already are looked through, too."""
    rows = [
        {"email": f"jane{number}@example.com", "attributes": {"CITY": f"Sity{number}"}} for number in range(9)
    ]
    said = answer(400, {"code": "Sity4", "message": "jane7@example.com of SITY8, list 12"}, "sity3")
    with wired([said]) as wire:
        client = Brevo(
            base_url=wire.url, api_key=KEY, limiter=Limiter([(100, 1.0)]), timeout=timedelta(seconds=PATIENCE)
        )
        body = json.dumps({"listIds": [12], "jsonBody": rows}).encode()
        told = client.call("POST", "/contacts/import", body)
    assert (told.code, told.message, told.request_id) == (None, f"{HIDDEN} of {HIDDEN}, list 12", None)


def test_what_an_answer_means_is_read_before_anything_is_hidden() -> None:
    """A customer called Phone, or Already, is no reason not to be healed."""

    def hide(text: str) -> str:
        return without(text, ["Phone", "already", "associated", "email", "indexes"])

    def read(status: int, message: str) -> answers.Answer:
        body = json.dumps({"code": "some_code", "message": message}).encode()
        return answers.read("POST /contacts", status, {}, body, hide)

    assert read(400, BREVOS[0]).says_phone_invalid
    assert read(400, BREVOS[1]).says_address_taken
    assert read(404, BREVOS[4]).missing == {3, 12, 100}
    assert read(400, BREVOS[0]).message == f"Invalid {HIDDEN} number"
