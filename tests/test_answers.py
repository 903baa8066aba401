"""What Brevo's answers mean, and those that are not Brevo's."""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from time import thread_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd.brevo import answers
from outboxd.brevo.answers import DEFAULT_WAIT, Answer, masked
from outboxd.event import Verdict

CALL = "POST /contacts"
UNRECOGNISED = (
    "We have detected you are using an unrecognised IP address 192.0.2.7. If you performed this action make "
    "sure to add the new IP address in this link: https://app.brevo.com/security/authorised_ips"
)
TAKEN = "Unable to create contact, {} already associated with another Contact"
HTML = b"<html><body><h1>502 Bad Gateway</h1> ask admin@example.com</body></html>"
statuses = st.integers(100, 599)
bodies = st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["code", "message", "metadata", "duplicate_identifiers"]), inner)
    ),
    max_leaves=6,
).map(lambda body: json.dumps(body).encode())


def read(status: int, body: object = b"", headers: Mapping[str, str] | None = None) -> Answer:
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    return answers.read(CALL, status, headers or {}, raw)


def error(status: int, message: str, code: str = "invalid_parameter", **more: Any) -> Answer:
    return read(status, {"code": code, "message": message, **more})


def clash(status: int, message: str, code: str, *names: str) -> Answer:
    return error(status, message, code, metadata={"duplicate_identifiers": list(names)})


@pytest.mark.parametrize(
    ("status", "body"), [(201, {"id": 5}), (204, b""), (202, {"processId": 78}), (200, [])]
)
def test_success_is_delivered_with_or_without_a_body(status: int, body: object) -> None:
    outcome = answers.outcome(read(status, body, {"sib-request-id": "r-1"}))
    assert (outcome.verdict, outcome.http_status, outcome.request_id) == (Verdict.DELIVERED, status, "r-1")
    assert (outcome.detail, outcome.error_code) == (None, None)


@pytest.mark.parametrize("code", ["duplicate_parameter", "invalid_parameter", "something_new"])
def test_a_taken_address_is_seen_by_metadata_and_by_message_whatever_the_code(code: str) -> None:
    message = TAKEN.format("email is")
    assert clash(400, message, code, "email").says_address_taken
    assert clash(400, "another wording", code, "email").says_address_taken
    assert error(400, message, code).says_address_taken
    assert error(400, "Contact already exist", code).says_address_taken


def test_a_conflict_is_a_taken_address_even_without_a_word() -> None:
    """The product's own specification says 409 where Brevo says 400."""
    assert read(409).says_address_taken
    assert error(409, "Contact already exists", "conflict").says_address_taken


@pytest.mark.parametrize("status", [400, 409])
@pytest.mark.parametrize("phone", ["SMS", "WHATSAPP", "LANDLINE_NUMBER"])
def test_a_taken_phone_is_no_taken_address(status: int, phone: str) -> None:
    for answer in (
        clash(status, TAKEN.format(f"{phone} is"), "duplicate_parameter", phone),
        error(status, TAKEN.format(f"{phone} is")),
    ):
        assert (answer.says_phone_taken, answer.says_address_taken) == (True, False)
        assert not answer.says_phone_invalid


def test_clashes_that_are_named_together_are_all_seen() -> None:
    assert error(400, TAKEN.format("SMS or EXT_ID are")).duplicates == {"sms", "ext_id"}
    both = clash(400, TAKEN.format("email or SMS are"), "duplicate_parameter", "email", "SMS")
    assert (both.says_address_taken, both.says_phone_taken) == (True, True)


def test_an_invalid_phone_is_seen() -> None:
    answer = error(400, "Invalid phone number")
    assert (answer.says_phone_invalid, answer.says_phone_taken) == (True, False)


@pytest.mark.parametrize("status", [401, 403, 404, 422, 500])
def test_only_a_refused_contact_has_clashes(status: int) -> None:
    answer = clash(status, TAKEN.format("email is"), "duplicate_parameter", "email", "SMS")
    assert not any((answer.says_address_taken, answer.says_phone_taken, answer.says_phone_invalid))


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "missing_parameter", "One of email, attributes.SMS or ext_id is required"),
        (404, "document_not_found", "Contact does not exist"),
        (404, "document_not_found", "No contact found for indexes 3,4"),
        (405, "method_not_allowed", "You're not allowed to delete registered email contact with Brevo"),
        (406, "not_acceptable", "Not acceptable"),
        (422, "unprocessable_entity", "Unprocessable entity"),
    ],
)
def test_any_other_4xx_is_refused_with_brevos_words(status: int, code: str, message: str) -> None:
    outcome = answers.outcome(error(status, message, code))
    assert (outcome.verdict, outcome.error_code, outcome.detail) == (Verdict.REFUSED, code, message)


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, 520])
@pytest.mark.parametrize("body", [HTML, b"", {"code": "internal_error", "message": "Something went wrong"}])
def test_a_passing_trouble_is_tried_again(status: int, body: object) -> None:
    outcome = answers.outcome(read(status, body))
    assert (outcome.verdict, outcome.http_status, outcome.is_network) == (Verdict.RETRY, status, False)
    assert outcome.detail


@pytest.mark.parametrize(
    ("message", "sign"),
    [
        ("authentication not found in headers", "got no API key"),
        ("Key not found", "does not know this API key"),
        (UNRECOGNISED, "does not accept this host's IP address"),
        ("", "does not know this API key"),
    ],
)
def test_the_operator_is_told_which_of_the_three_401_it_is(message: str, sign: str) -> None:
    outcome = answers.outcome(error(401, message, "unauthorized"))
    assert outcome.verdict is Verdict.BLOCKED
    assert sign in (outcome.detail or "")
    assert outcome.wait is None


@pytest.mark.parametrize(("status", "sign"), [(402, "credit"), (403, "forbids"), (429, "rate limit")])
@pytest.mark.parametrize("body", [HTML, b"", {"code": "any", "message": "Any"}])
def test_what_is_not_the_events_fault_blocks(status: int, sign: str, body: object) -> None:
    outcome = answers.outcome(read(status, body))
    assert outcome.verdict is Verdict.BLOCKED
    assert sign in (outcome.detail or "")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-sib-ratelimit-reset": "37"}, 37),
        ({"retry-after": "12", "x-sib-ratelimit-reset": "37"}, 12),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT", "x-sib-ratelimit-reset": "37"}, 37),
        ({"x-sib-ratelimit-reset": "0"}, 1),
        ({"x-sib-ratelimit-reset": "0.25"}, 1),
        ({"x-sib-ratelimit-reset": "-4"}, DEFAULT_WAIT.total_seconds()),
        ({"x-sib-ratelimit-reset": "soon"}, DEFAULT_WAIT.total_seconds()),
        ({"x-sib-ratelimit-reset": "9" * 400}, DEFAULT_WAIT.total_seconds()),
        ({}, DEFAULT_WAIT.total_seconds()),
    ],
)
def test_a_used_up_limit_waits_for_the_reset(headers: Mapping[str, str], seconds: float) -> None:
    body = {"code": "too_many_requests", "message": "The expected rate limit is exceeded."}
    assert answers.outcome(read(429, body, headers)).wait == timedelta(seconds=seconds)


@pytest.mark.parametrize("status", [200, 401, 503])
def test_only_429_tells_how_long_to_wait(status: int) -> None:
    assert read(status, {}, {"retry-after": "12", "x-sib-ratelimit-reset": "37"}).wait is None


@pytest.mark.parametrize(
    "body", [HTML, b"\x00\xff\xfe garbage", b'{"id": 5', b"null", b"7", b"[" * 50_000, None]
)
def test_a_success_that_is_not_json_is_not_brevo(body: bytes | None) -> None:
    """A captive portal says 200 too; what it was told has not arrived. None is a body past the limit."""
    outcome = answers.outcome(read(200, body))
    assert (outcome.verdict, outcome.http_status, outcome.is_network) == (Verdict.RETRY, None, True)
    assert "brevo.base_url" in (outcome.detail or "")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_brevo(status: int) -> None:
    outcome = answers.outcome(read(status, b"", {"location": "https://elsewhere.invalid/"}))
    assert (outcome.verdict, outcome.is_network) == (Verdict.RETRY, True)
    assert "redirect" in (outcome.detail or "")


@pytest.mark.parametrize(
    "body",
    [
        *(HTML, b"\xff", b"", None, [], {}),
        {"message": "no Route matched with those values"},
        {"code": 404, "message": "Not Found"},
        {"code": "not_found", "message": "Invalid route/ method passed"},
    ],
)
def test_a_404_that_is_not_about_what_was_asked_for_is_not_brevo(body: object) -> None:
    """A proxy's or a gateway's, or Brevo's own where its API is not: no contact is gone for that."""
    outcome = answers.outcome(read(404, body))
    assert (outcome.verdict, outcome.http_status, outcome.is_network) == (Verdict.RETRY, None, True)
    assert "brevo.base_url" in (outcome.detail or "")


@pytest.mark.parametrize("code", ["document_not_found", "invalid_parameter", "Contact email not found"])
def test_a_404_of_brevos_is_one_whatever_the_code(code: str) -> None:
    assert error(404, "Contact does not exist", code).status == 404


@pytest.mark.parametrize("body", [HTML, b"\xff", b"", None])
def test_an_error_that_is_not_json_is_told_by_its_status(body: bytes | None) -> None:
    outcome = answers.outcome(read(400, body))
    assert (outcome.verdict, outcome.detail) == (Verdict.REFUSED, "HTTP 400 without a JSON body")


def test_an_error_without_a_message_has_a_reason_all_the_same() -> None:
    assert answers.outcome(read(400, {})).detail == "HTTP 400"


BLOCKING = {401, 402, 403, 429}
PASSING = {408, 425}


@pytest.mark.parametrize("body", [HTML, b"", {}, {"code": "any", "message": "Any"}])
def test_each_status_that_is_no_success_has_its_verdict(body: object) -> None:
    """Also those that no standard knows: 520 and up are a proxy's in front of Brevo."""
    foreign = set() if isinstance(body, dict) and "code" in body else {404}
    told: dict[Verdict, set[int]] = {}
    for status in range(300, 1000):
        told.setdefault(answers.outcome(read(status, body)).verdict, set()).add(status)
    assert told == {
        Verdict.BLOCKED: BLOCKING,
        Verdict.RETRY: PASSING | foreign | {*range(300, 400), *range(500, 1000)},
        Verdict.REFUSED: {*range(400, 500)} - BLOCKING - PASSING - foreign,
    }


@given(statuses, bodies, st.dictionaries(st.sampled_from(["retry-after", "sib-request-id"]), st.text()))
def test_any_answer_has_a_verdict(status: int, body: bytes, headers: Mapping[str, str]) -> None:
    outcome = answers.outcome(read(status, body, headers))
    assert (outcome.verdict is Verdict.DELIVERED) == (200 <= status < 300 and outcome.http_status is not None)
    assert outcome.detail or outcome.verdict is Verdict.DELIVERED


@pytest.mark.parametrize(
    "secret",
    [
        "ana@example.com",
        "ANA.Lima+news@mail.example.com",
        "ana%40example.com",
        "+351912345678",
        "00351 912 345 678",
        "(0170) 1234567",
        "0170/123-45.67",
    ],
)
@pytest.mark.parametrize("sentence", ["{}", "Invalid value {} for the contact", "<{}>: 'no'", "a\n{}\nb"])
def test_addresses_and_phones_do_not_reach_logs(secret: str, sentence: str) -> None:
    outcome = answers.outcome(error(400, sentence.format(secret)))
    assert outcome.detail
    assert not re.search(r"ana|lima|example\.com|\d{3}", outcome.detail, re.IGNORECASE)


@given(
    st.from_regex(r"[a-z0-9.+_-]{1,20}@[a-z0-9-]{1,10}\.example\.com", fullmatch=True), st.text(max_size=20)
)
def test_no_address_survives_in_any_sentence(address: str, around: str) -> None:
    assert address not in masked(f"{around}{address} {around} {address}")


def test_words_and_small_numbers_stay_readable() -> None:
    text = "No contact found for indexes 3,4 in list 12"
    assert masked(text) == text


@pytest.mark.parametrize("unit", ["a", "a@", "%4", "1 ", "+", "1("])
def test_a_huge_message_costs_little(unit: str) -> None:
    """A body of a megabyte without a blank must not hold up the thread, nor all the others with it."""
    before = thread_time()  # of the processor, to which other work on the host adds nothing
    answers.outcome(error(400, unit * (1_000_000 // len(unit))))
    assert thread_time() - before < 2


@pytest.mark.parametrize("message", [{"a": 1}, ["a"], 7, True, None, ""])
def test_a_message_that_is_no_text_is_none(message: Any) -> None:
    assert answers.outcome(read(400, {"code": "bad", "message": message})).detail == "HTTP 400"


@pytest.mark.parametrize(
    "word",
    [
        *("invalid_parameter", "r-1", "0f3b8f2e-77aa-4b0c-9d9b-1c2d3e4f5a6b", "method.not_allowed", "a" * 64),
        *("sandbox-00000012", "7"),
    ],
)
def test_a_code_and_a_request_id_are_one_short_word(word: str) -> None:
    answer = read(400, {"code": word}, {"sib-request-id": word})
    assert (answer.code, answer.request_id) == (None if "0000" in word else word, word)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "jane.secret@example.com",
            "two words",
            "",
            "a" * 65,
            "a\n",
            "Zo\u00eb",
            "{}",
            "xkeysib-0123",
            "\0",
        ),
        *("a/b", "<b>", "+4915112345678"),
    ],
)
def test_what_else_stands_in_the_place_of_a_code_or_an_id_is_neither(text: str) -> None:
    answer = read(400, {"code": text}, {"sib-request-id": text})
    assert (answer.code, answer.request_id) == (None, None)
    assert read(400, {"code": {"a": text}}).code is None


def test_a_number_of_somebody_is_no_code() -> None:
    assert read(400, {"code": "4915112345678"}).code is None


@pytest.mark.parametrize("key", ["xkeysib-0123abc-XyZ", "smtpsib-0123abc"])
def test_no_key_of_anybody_is_told(key: str) -> None:
    outcome = answers.outcome(error(400, f"Key {key} is wrong"))
    assert outcome.detail == f"Key {key[:8]}… is wrong"


def test_what_no_table_can_hold_is_left_out_of_what_is_kept() -> None:
    body = json.dumps({"code": "bad\0code", "message": "bad \ud800 \0 \x1b[2J message"}).encode()
    answer = answers.read("PUT /contacts/{email}", 400, {"sib-request-id": "a\0b"}, body)
    assert (answer.code, answer.request_id) == (None, None)
    assert answer.message.isprintable()
    assert answer.message.split() == ["bad", "[2J", "message"]
