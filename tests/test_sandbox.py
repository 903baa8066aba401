"""The sandbox behaves as the facts page about Brevo says, and misbehaves as it is told to."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

from outboxd.brevo.sandbox import Attribute, Fault, Sandbox, parse_faults
from outboxd.errors import ConfigError
from tests.conftest import until
from tests.shop import PATIENCE

KEY = "xkeysib-sandbox"
ANN = "ann@shop.example"
BOB = "bob@shop.example"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Client:
    """Speaks to one sandbox over one kept-alive connection, following nothing, retrying nothing."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["api-key"] = KEY

    def __call__(self, method: str, path: str, body: object = None, **options: Any) -> requests.Response:
        options = {"timeout": PATIENCE, "allow_redirects": False, **options}
        if body is not None:
            options["json"] = body
        return self.session.request(method, f"{self.sandbox.url}{path}", **options)

    def create(self, email: str, **body: Any) -> int:
        answer = self("POST", "/contacts", {"email": email, **body})
        assert answer.status_code == 201, answer.text
        number = answer.json()["id"]
        assert isinstance(number, int)
        return number

    def put(self, email: str, **body: Any) -> requests.Response:
        return self("PUT", f"/contacts/{quote(email, safe='')}?identifierType=email_id", body)

    def attributes(self, email: str) -> dict[str, Any]:
        contact = self.sandbox.contact(email)
        assert contact is not None
        attributes = contact["attributes"]
        assert isinstance(attributes, dict)
        return attributes


Run = Callable[..., Client]


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts sandboxes with the options of a test, and stops them after it."""
    started: list[Client] = []

    def start(**options: Any) -> Client:
        client = Client(Sandbox(**options).start())
        started.append(client)
        return client

    yield start
    for client in started:
        client.session.close()
        client.sandbox.stop()


@pytest.fixture
def brevo(run: Run) -> Client:
    """A sandbox with an attribute of every type."""
    return run(
        attributes={
            "TIER": "text",
            "SPENT": "float",
            "VIP": "boolean",
            "BORN": "date",
            "GENDER": Attribute("GENDER", "category", "category", ("Men", "Women")),
            "TAGS": Attribute("TAGS", "multiple-choice", options=("new", "loyal")),
        }
    )


def raw(sandbox: Sandbox, data: bytes) -> bytes:
    """Everything that the sandbox answers to these bytes, until it closes the connection."""
    parts = urlsplit(sandbox.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=PATIENCE) as sock:
        sock.sendall(data)
        received = b""
        while part := sock.recv(65_536):
            received += part
    return received


# Creating and updating


def test_a_created_contact_is_shown_with_all_that_was_sent(run: Run) -> None:
    client = run(clock=Clock())
    number = client.create(
        "Ann@Shop.Example", attributes={"FIRSTNAME": "Ann", "SMS": "+33612345678"}, listIds=[5]
    )
    assert client("GET", f"/contacts/{quote(ANN, safe='')}").json() == {
        "id": number,
        "email": ANN,
        "emailBlacklisted": False,
        "smsBlacklisted": False,
        "createdAt": "2026-11-23T12:00:00.000Z",
        "modifiedAt": "2026-11-23T12:00:00.000Z",
        "listIds": [5],
        "listUnsubscribed": [],
        "attributes": {"FIRSTNAME": "Ann", "SMS": "33612345678"},
    }


def test_an_existing_address_is_a_400_unless_updates_are_enabled(brevo: Client) -> None:
    brevo.create(ANN, listIds=[5])
    answer = brevo("POST", "/contacts", {"email": ANN.upper()})
    assert answer.status_code == 400
    assert answer.json() == {
        "code": "duplicate_parameter",
        "message": "Unable to create contact, email is already associated with another Contact",
        "metadata": {"duplicate_identifiers": ["email"]},
    }
    answer = brevo(
        "POST",
        "/contacts",
        {"email": ANN, "updateEnabled": True, "attributes": {"TIER": "gold"}, "listIds": [6]},
    )
    assert (answer.status_code, answer.content) == (204, b"")
    assert len(brevo.sandbox.contacts) == 1
    assert brevo.attributes(ANN) == {"TIER": "gold"}
    assert brevo.sandbox.contacts[0]["listIds"] == [5, 6]


def test_a_clash_can_be_told_as_the_specification_tells_it(run: Run) -> None:
    client = run(conflict_status=409, newer_clash_code=True)
    client.create(ANN)
    answer = client("POST", "/contacts", {"email": ANN})
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid_parameter")
    assert answer.json()["metadata"] == {"duplicate_identifiers": ["email"]}


def test_telephone_numbers_and_ext_id_are_unique_across_the_account(brevo: Client) -> None:
    phones = {"SMS": "+33612345678", "WHATSAPP": "+33612345678", "LANDLINE_NUMBER": "+33142345678"}
    brevo.create(ANN, attributes=phones, ext_id="77")
    for name, number in phones.items():
        answer = brevo("POST", "/contacts", {"email": BOB, "attributes": {name: number}})
        assert answer.status_code == 400
        assert answer.json()["message"] == (
            f"Unable to create contact, {name} is already associated with another Contact"
        )
        assert answer.json()["metadata"] == {"duplicate_identifiers": [name]}
    brevo.create(BOB)
    answer = brevo.put(BOB, attributes={"SMS": "0033612345678"}, ext_id="77")
    assert answer.json()["message"] == (
        "Unable to update contact, SMS or EXT_ID are already associated with another Contact"
    )
    assert answer.json()["metadata"] == {"duplicate_identifiers": ["SMS", "EXT_ID"]}
    assert brevo.attributes(BOB) == {}


def test_an_identifier_that_was_given_up_is_free_again(brevo: Client) -> None:
    brevo.create(ANN, attributes={"SMS": "+33612345678"}, ext_id="77")
    assert brevo.put(ANN, attributes={"SMS": ""}).status_code == 204
    brevo("DELETE", f"/contacts/{ANN}")
    brevo.create(BOB, attributes={"SMS": "+33612345678"}, ext_id="77")
    assert brevo.create(ANN) == 3, "ids are never reused"


@pytest.mark.parametrize("number", ["0612345678", "call me", "+33 6 12 34 56 78", "+1234", "+" + "1" * 16])
def test_a_bad_telephone_number_rejects_the_whole_contact(brevo: Client, number: str) -> None:
    answer = brevo("POST", "/contacts", {"email": ANN, "attributes": {"FIRSTNAME": "Ann", "SMS": number}})
    assert answer.status_code == 400
    assert answer.json() == {"code": "invalid_parameter", "message": "Invalid phone number"}
    assert brevo.sandbox.contacts == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"attributes": {"FIRSTNAME": "Nobody"}}, "missing_parameter"),
        ({"email": "no address"}, "invalid_parameter"),
        ({"email": None}, "invalid_parameter"),
        ({"email": ANN, "smtpBlacklistSender": None}, "invalid_parameter"),
        ({"email": ANN, "emailBlacklisted": "true"}, "invalid_parameter"),
        ({"email": ANN, "listIds": [99]}, "invalid_parameter"),
        ({"email": ANN, "listIds": [True]}, "invalid_parameter"),
        ([], "bad_request"),
    ],
)
def test_a_body_that_cannot_be_right_is_refused(brevo: Client, body: object, code: str) -> None:
    answer = brevo("POST", "/contacts", body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert "no address" not in answer.text
    assert brevo.sandbox.contacts == []


def test_a_contact_may_have_a_telephone_number_or_an_ext_id_only(brevo: Client) -> None:
    assert brevo("POST", "/contacts", {"attributes": {"SMS": "33612345678"}}).status_code == 201
    assert brevo("POST", "/contacts", {"ext_id": "77"}).status_code == 201
    assert [contact.get("email") for contact in brevo.sandbox.contacts] == [None, None]


# Values


def test_unknown_attributes_and_wrong_types_are_lost_silently(brevo: Client) -> None:
    wrong = {
        "UNKNOWN": "x",
        "firstname": "lower case",
        "FIRSTNAME": 5,
        "SPENT": "12.50",
        "VIP": "true",
        "BORN": "23/11/2026",
        "GENDER": "Neither",
        "TAGS": ["new", "unheard of"],
        "BLACKLIST": 1,
    }
    brevo.create(ANN, attributes=wrong)
    assert brevo.attributes(ANN) == {}


def test_values_of_the_right_type_are_kept_false_and_zero_included(brevo: Client) -> None:
    right = {
        "TIER": "gold",
        "SPENT": 0,
        "VIP": False,
        "BORN": "2000-02-29",
        "GENDER": "Women",
        "TAGS": ["new"],
    }
    brevo.create(ANN, attributes=right)
    assert brevo.attributes(ANN) == right
    brevo.put(ANN, attributes={"GENDER": 1, "BORN": "2001-02-29"})
    assert brevo.attributes(ANN) == {**right, "GENDER": "Men"}


def test_an_empty_text_clears_text_and_telephone_but_no_other_type(brevo: Client) -> None:
    brevo.create(ANN, attributes={"TIER": "gold", "SMS": "+33612345678", "SPENT": 5, "BORN": "2000-01-01"})
    brevo.put(ANN, attributes={"TIER": "", "SMS": "", "SPENT": "", "BORN": ""})
    assert brevo.attributes(ANN) == {"SPENT": 5, "BORN": "2000-01-01"}


def test_attributes_are_listed_and_can_be_created_once(brevo: Client) -> None:
    path = "/contacts/attributes/normal/SIZE"
    assert brevo("POST", path, {"type": "float"}).status_code == 201
    again = brevo("POST", path, {"type": "float"})
    assert (again.status_code, again.json()["message"]) == (400, "Attribute name must be unique")
    listed = {each["name"]: each for each in brevo("GET", "/contacts/attributes").json()["attributes"]}
    assert listed["SIZE"] == {"name": "SIZE", "category": "normal", "type": "float"}
    assert listed["GENDER"]["enumeration"] == [{"value": 1, "label": "Men"}, {"value": 2, "label": "Women"}]
    assert listed["TAGS"]["multiCategoryOptions"] == ["new", "loyal"]
    assert "FIRSTNAME" in listed


def test_an_account_takes_two_hundred_attributes_at_most(run: Run) -> None:
    client = run(attributes={f"A{number}": "text" for number in range(200)})
    assert client("POST", "/contacts/attributes/normal/MORE", {"type": "text"}).status_code == 400


# Identifiers


def test_digits_without_a_type_are_read_as_a_contact_id(brevo: Client) -> None:
    first = brevo.create(ANN)
    brevo.create(BOB, ext_id=str(first))
    assert brevo("GET", f"/contacts/{first}").json()["email"] == ANN
    assert brevo("GET", f"/contacts/{first}?identifierType=ext_id").json()["email"] == BOB
    assert brevo("GET", f"/contacts/{ANN.upper()}").json()["email"] == ANN


def test_every_kind_of_identifier_finds_its_contact(brevo: Client) -> None:
    phones = {"SMS": "+33612345678", "WHATSAPP": "+33712345678", "LANDLINE_NUMBER": "+33142345678"}
    number = brevo.create("a+b/c@shop.example", attributes=phones, ext_id="cust/1 2")
    for kind, identifier in (
        ("email_id", "A+B/C@shop.example"),
        ("contact_id", str(number)),
        ("ext_id", "cust/1 2"),
        ("phone_id", "+33612345678"),
        ("whatsapp_id", "0033712345678"),
        ("landline_number_id", "33142345678"),
    ):
        answer = brevo("GET", f"/contacts/{quote(identifier, safe='')}?identifierType={kind}")
        assert answer.json().get("id") == number, kind
    assert brevo("GET", f"/contacts/{number}?identifierType=shoe_size").status_code == 400


def test_a_contact_that_does_not_exist_is_a_404(brevo: Client) -> None:
    for method, body in (("GET", None), ("PUT", {}), ("DELETE", None)):
        answer = brevo(method, f"/contacts/{ANN}", body)
        assert answer.status_code == 404
        assert answer.json() == {"code": "document_not_found", "message": "Contact does not exist"}


def test_the_owner_of_the_account_cannot_be_deleted(run: Run) -> None:
    client = run(owner=ANN)
    client.create(ANN)
    answer = client("DELETE", f"/contacts/{ANN}")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert client.sandbox.contact(ANN)
    assert client("GET", "/account").json()["email"] == ANN


# Consent and change of address


def test_a_new_address_subscribes_a_blocked_contact_again(brevo: Client) -> None:
    brevo.create(ANN)
    brevo.sandbox.unsubscribe(ANN)
    assert brevo.put(ANN, attributes={"EMAIL": ANN.upper()}).status_code == 204
    assert brevo.sandbox.contacts[0]["emailBlacklisted"] is True, "that is the same address"
    assert brevo.put(ANN, attributes={"EMAIL": BOB}).status_code == 204
    assert brevo.sandbox.contact(ANN) is None
    assert brevo.sandbox.contacts[0]["emailBlacklisted"] is False


def test_a_block_sent_along_with_the_new_address_stays(brevo: Client) -> None:
    brevo.create(ANN, emailBlacklisted=True)
    brevo.put(ANN, attributes={"EMAIL": BOB}, emailBlacklisted=True)
    assert brevo.sandbox.contacts[0]["emailBlacklisted"] is True


def test_a_flag_sent_as_false_subscribes_again_and_an_absent_one_does_not(brevo: Client) -> None:
    brevo.create(ANN)
    brevo.sandbox.unsubscribe(ANN)
    brevo("POST", "/contacts", {"email": ANN, "updateEnabled": True})
    assert brevo.sandbox.contacts[0]["emailBlacklisted"] is True
    brevo("POST", "/contacts", {"email": ANN, "updateEnabled": True, "emailBlacklisted": False})
    assert brevo.sandbox.contacts[0]["emailBlacklisted"] is False


def test_an_address_of_somebody_else_is_refused(brevo: Client) -> None:
    brevo.create(ANN)
    brevo.create(BOB)
    answer = brevo.put(ANN, attributes={"EMAIL": BOB, "TIER": "gold"})
    assert answer.status_code == 400
    assert answer.json()["metadata"] == {"duplicate_identifiers": ["email"]}
    assert brevo.attributes(ANN) == {}


# Lists


def test_contacts_join_and_leave_lists(run: Run) -> None:
    client = run(lists=(5, 7))
    client.create(ANN, listIds=[5])
    assert client.put(ANN, listIds=[7], unlinkListIds=[5]).status_code == 204
    assert client.sandbox.contacts[0]["listIds"] == [7]
    answer = client("POST", "/contacts/lists/5/contacts/add", {"emails": [ANN, BOB]})
    assert (answer.status_code, answer.json()) == (201, {"contacts": {"success": [ANN], "failure": [BOB]}})
    assert client("POST", "/contacts/lists/5/contacts/add", {"emails": [ANN]}).status_code == 400
    assert client("GET", "/contacts/lists/5").json()["uniqueSubscribers"] == 1
    assert client("POST", "/contacts/lists/7/contacts/remove", {"ids": [1]}).status_code == 201
    assert client.sandbox.contacts[0]["listIds"] == [5]
    assert client("GET", "/contacts/lists/6").status_code == 404
    assert [each["id"] for each in client("GET", "/contacts/lists").json()["lists"]] == [7, 5]


def test_a_list_is_emptied_by_a_process(run: Run) -> None:
    clock = Clock()
    client = run(clock=clock, import_delay=timedelta(minutes=1))
    client.create(ANN, listIds=[5])
    answer = client("POST", "/contacts/lists/5/contacts/remove", {"all": True}).json()["contacts"]
    assert answer == {"processId": 1, "total": 1}
    assert client.sandbox.contacts[0]["listIds"] == [5]
    clock.advance(60)
    assert client.sandbox.contacts[0]["listIds"] == []


def test_contacts_are_listed_page_by_page_the_newest_first(brevo: Client) -> None:
    for number in range(5):
        brevo.create(f"c{number}@shop.example")
    page = brevo("GET", "/contacts?limit=2&offset=1").json()
    assert page["count"] == 5
    assert [contact["id"] for contact in page["contacts"]] == [4, 3]
    page = brevo("GET", "/contacts?limit=2&sort=asc").json()
    assert [contact["id"] for contact in page["contacts"]] == [1, 2]
    assert brevo("GET", "/contacts?limit=1001").json()["code"] == "out_of_range"


def test_contacts_are_listed_by_when_they_were_made_or_changed(run: Run) -> None:
    clock = Clock()
    client = run(clock=clock)
    for email in (ANN, BOB, "cat@shop.example"):
        client.create(email)
        clock.advance(60)
    client.put(ANN, attributes={"FIRSTNAME": "Ann"})

    def listed(query: str) -> tuple[list[int], int]:
        body = client("GET", f"/contacts?sort=asc&{query}").json()
        return [contact["id"] for contact in body["contacts"]], body["count"]

    assert listed("createdSince=2026-11-23T12:00:00.000Z") == ([2, 3], 2)
    assert listed("modifiedSince=2026-11-23T12:01:30.000Z") == ([1, 3], 2)
    assert listed("modifiedSince=2026-11-23T13%3A01%3A30%2B01:00&limit=1&offset=1") == ([3], 2)
    assert listed("createdSince=2026-11-23T12:00:30.000Z&modifiedSince=2026-11-23T12:01:30.000Z") == ([3], 1)
    refused = client("GET", "/contacts?modifiedSince=yesterday")
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_parameter")


# Batches and imports


def test_a_batch_updates_every_contact(brevo: Client) -> None:
    number = brevo.create(ANN)
    brevo.create(BOB, attributes={"SMS": "+33612345678"})
    items = [
        {"id": number, "attributes": {"TIER": "gold"}},
        {"sms": "+33612345678", "emailBlacklisted": True},
    ]
    answer = brevo("POST", "/contacts/batch", {"contacts": items})
    assert (answer.status_code, answer.content) == (204, b"")
    assert brevo.attributes(ANN) == {"TIER": "gold"}
    assert brevo.sandbox.contacts[1]["emailBlacklisted"] is True


def test_a_batch_with_unknown_contacts_names_their_places_and_writes_nothing(brevo: Client) -> None:
    brevo.create(ANN)
    items = [{"email": email, "attributes": {"TIER": "x"}} for email in (ANN, BOB, ANN, "c@shop.example")]
    answer = brevo("POST", "/contacts/batch", {"contacts": items})
    assert answer.status_code == 404
    assert answer.json() == {"code": "document_not_found", "message": "No contact found for indexes 1,3"}
    assert brevo.attributes(ANN) == {}


def test_a_batch_that_fails_at_its_end_writes_nothing(brevo: Client) -> None:
    brevo.create(ANN, attributes={"SMS": "+33612345678"})
    brevo.create(BOB)
    before = brevo.sandbox.contacts
    items = [
        {"email": ANN, "attributes": {"SMS": "+33700000000"}},
        {"email": BOB, "attributes": {"SMS": "+33612345678"}},
        {"email": ANN, "attributes": {"EMAIL": BOB}},
    ]
    assert brevo("POST", "/contacts/batch", {"contacts": items}).status_code == 400
    assert brevo.sandbox.contacts == before
    assert brevo("GET", "/contacts/33612345678?identifierType=phone_id").json()["email"] == ANN


def test_an_import_takes_effect_when_its_process_completes(run: Run) -> None:
    clock = Clock()
    client = run(clock=clock, import_delay=timedelta(minutes=2))
    client.create(ANN, attributes={"FIRSTNAME": "Old"})
    rows = [{"email": email, "attributes": {"FIRSTNAME": "Row"}} for email in (ANN, BOB)]
    answer = client("POST", "/contacts/import", {"jsonBody": rows, "listIds": [5]})
    assert (answer.status_code, answer.json()) == (202, {"processId": 1})
    client.put(ANN, attributes={"FIRSTNAME": "Newer"})
    statuses = []
    for _ in range(3):
        statuses.append(client("GET", "/processes/1").json()["status"])
        clock.advance(60)
    assert statuses == ["queued", "in_process", "completed"]
    assert client.attributes(ANN) == {"FIRSTNAME": "Row"}, "a late import overwrites what is newer"
    assert [contact["listIds"] for contact in client.sandbox.contacts] == [[5], [5]]
    assert client("GET", "/processes/2").status_code == 404


def test_an_import_loses_booleans_and_flags_of_rows_and_counts_what_it_leaves_out(run: Run) -> None:
    client = run(import_delay=timedelta(0), attributes={"VIP": "boolean", "SPENT": "float"})
    client.create(ANN, attributes={"SMS": "+33612345678"})
    rows: list[dict[str, Any]] = [
        {"email": BOB, "emailBlacklisted": True, "attributes": {"VIP": True, "SPENT": 5, "SMS": "bad"}},
        {"email": BOB, "attributes": {"SPENT": 6}},
        {"email": "c@shop.example", "attributes": {"SMS": "+33612345678"}},
        {"email": "nobody"},
    ]
    client("POST", "/contacts/import", {"jsonBody": rows, "listIds": [5]})
    assert client("GET", "/processes/1").json()["info"]["import"] == {
        "invalid_emails": 1,
        "duplicate_contact_id": None,
        "duplicate_email_id": 1,
        "duplicate_ext_id": None,
        "duplicate_phone_id": 1,
        "duplicate_whatsapp_id": None,
        "duplicate_landline_number_id": None,
    }
    assert [contact["email"] for contact in client.sandbox.contacts] == [ANN, BOB]
    assert client.attributes(BOB) == {"SPENT": 5}
    assert client.sandbox.contacts[1]["emailBlacklisted"] is False


def test_the_options_of_an_import_apply_to_all_its_rows(run: Run) -> None:
    client = run(import_delay=timedelta(0), attributes={"SPENT": "float"})
    client.create(ANN, attributes={"FIRSTNAME": "Ann", "SPENT": 5})
    empty = [{"email": ANN, "attributes": {"FIRSTNAME": "", "SPENT": ""}}]
    client("POST", "/contacts/import", {"jsonBody": empty, "listIds": [5]})
    assert client.attributes(ANN) == {"FIRSTNAME": "Ann", "SPENT": 5}
    client("POST", "/contacts/import", {"jsonBody": empty, "listIds": [5], "emptyContactsAttributes": True})
    assert client.attributes(ANN) == {}
    options = {"listIds": [6], "updateExistingContacts": False, "emailBlacklist": True}
    rows = [{"email": email, "attributes": {"FIRSTNAME": "Row"}} for email in (ANN, BOB)]
    client("POST", "/contacts/import", {"jsonBody": rows, **options})
    assert [contact["emailBlacklisted"] for contact in client.sandbox.contacts] == [False, True]
    assert (client.attributes(ANN), client.attributes(BOB)) == ({}, {"FIRSTNAME": "Row"})


def test_a_csv_text_can_be_imported_into_a_new_list(run: Run) -> None:
    client = run(import_delay=timedelta(0), attributes={"SPENT": "float"}, lists=(5,))
    text = f"EMAIL;FIRSTNAME;SPENT;UNKNOWN\n{ANN};Ann;12.5;x\n{BOB};;;\n"
    new = {"listName": "Imported", "folderId": 1}
    assert client("POST", "/contacts/import", {"fileBody": text, "newList": new}).status_code == 202
    assert client.attributes(ANN) == {"FIRSTNAME": "Ann", "SPENT": 12.5}
    assert client.attributes(BOB) == {}
    assert client.sandbox.contacts[0]["listIds"] == [6]


def test_an_import_needs_a_list(brevo: Client) -> None:
    assert brevo("POST", "/contacts/import", {"jsonBody": []}).json()["code"] == "missing_parameter"


# Keys, limits, routes


def test_a_missing_and_a_wrong_key_are_told_apart(brevo: Client) -> None:
    wrong = brevo("GET", "/account", headers={"api-key": "xsmtpsib-other"})
    assert (wrong.status_code, wrong.json()["message"]) == (401, "Key not found")
    brevo.session.headers.pop("api-key")
    missing = brevo("GET", "/account")
    assert (missing.status_code, missing.json()["message"]) == (401, "authentication not found in headers")


def test_paths_methods_and_content_types_are_checked(brevo: Client) -> None:
    assert brevo("GET", "/smtp/email").status_code == 404
    assert brevo("DELETE", "/contacts").status_code == 405
    assert brevo("POST", "/contacts", data="{}", headers={"content-type": "text/plain"}).status_code == 406
    answer = brevo("POST", "/contacts", data="{", headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert all(call.status in (404, 405, 406, 400) for call in brevo.sandbox.calls)


def test_answers_carry_a_request_id_which_the_record_knows(brevo: Client) -> None:
    answer = brevo("GET", "/contacts")
    assert answer.headers["sib-request-id"] == brevo.sandbox.calls[0].request_id
    assert "x-sib-ratelimit-limit" not in answer.headers, "the headers can be absent"


def test_the_limit_slides_and_says_how_many_seconds_to_wait(run: Run) -> None:
    clock = Clock()
    client = run(clock=clock, requests_per_second=2, requests_per_hour=4, other_per_hour=1)

    def call(path: str = "/contacts") -> tuple[int, str, str, str]:
        answer = client("GET", path)
        names = ("limit", "remaining", "reset")
        limit, remaining, reset = (answer.headers[f"x-sib-ratelimit-{name}"] for name in names)
        return answer.status_code, limit, remaining, reset

    assert call() == (200, "2", "1", "1")
    clock.advance(0.5)
    assert call() == (200, "2", "0", "1")
    assert call() == (429, "2", "0", "1")
    clock.advance(0.5)
    assert call() == (200, "2", "0", "1"), "the first call has left the window"
    clock.advance(1)
    assert call() == (200, "4", "0", "3598")
    assert call() == (429, "4", "0", "3598")
    assert call("/account") == (200, "1", "0", "3600"), "a budget of its own"
    assert call("/account")[0] == 429
    assert client("GET", "/contacts").json() == {
        "code": "too_many_requests",
        "message": "The expected rate limit is exceeded.",
    }


# Faults that are answers


def test_a_fault_hits_so_often_and_then_no_more(run: Run) -> None:
    client = run(faults=[Fault(status=503, after=1, times=2)])
    assert [client("GET", "/contacts").status_code for _ in range(4)] == [200, 503, 503, 200]


def test_a_fault_answers_instead_of_acting(run: Run) -> None:
    client = run(faults=[Fault(status=425, method="post", headers={"Retry-After": "7"})])
    answer = client("POST", "/contacts", {"email": ANN})
    assert (answer.status_code, answer.headers["retry-after"]) == (425, "7")
    assert set(answer.json()) == {"code", "message"}
    assert client.sandbox.contacts == []


def test_a_fault_is_for_one_path_or_one_person(run: Run) -> None:
    client = run()
    number = client.create(ANN)
    client.create(BOB)
    client.sandbox.faults.add(Fault(status=500, identifier=ANN), Fault(status=502, path="/processes/*"))
    assert client("GET", f"/contacts/{number}").status_code == 500
    assert client("POST", "/contacts", {"email": ANN.upper(), "updateEnabled": True}).status_code == 500
    assert client("GET", f"/contacts/{BOB}").status_code == 200
    assert client("GET", "/processes/1").status_code == 502
    client.sandbox.faults.clear()
    assert client("GET", f"/contacts/{number}").status_code == 200


def test_a_rate_hits_the_same_calls_for_the_same_seed(run: Run) -> None:
    def statuses(seed: int) -> list[int]:
        client = run(seed=seed, faults=[Fault(status=500, rate=0.5)])
        return [client("GET", "/contacts").status_code for _ in range(30)]

    assert statuses(1) == statuses(1)
    assert 5 < statuses(2).count(500) < 25


def test_named_answers_are_html_a_redirect_and_the_third_401(run: Run) -> None:
    client = run(
        faults=[
            Fault(behaviour="html", times=1),
            Fault(behaviour="redirect", times=1),
            Fault(behaviour="unrecognised_ip", times=1),
        ]
    )
    html = client("GET", "/contacts")
    assert (html.status_code, html.headers["content-type"]) == (502, "text/html")
    redirect = client("GET", "/contacts")
    assert (redirect.status_code, urlsplit(redirect.headers["location"]).hostname) == (
        302,
        "elsewhere.invalid",
    )
    stranger = client("GET", "/contacts")
    assert stranger.status_code == 401
    assert "unrecognised IP address" in stranger.json()["message"]
    assert "authorised_ips" in stranger.json()["message"]


def test_faults_are_read_from_json_and_nonsense_is_named() -> None:
    assert parse_faults('[{"status": 503, "times": 2}]') == [Fault(status=503, times=2)]
    for nonsense in (
        "{",
        "{}",
        '[{"status": 503, "time": 2}]',
        '[{"status": "503"}]',
        "[{}]",
        '[{"behaviour": "sulk"}]',
        '[{"behaviour": "reset", "status": 500}]',
    ):
        with pytest.raises(ConfigError):
            parse_faults(nonsense)


# Faults on the wire


@pytest.mark.parametrize("behaviour", ["reset", "garbage", "half", "lost_answer"])
def test_a_broken_answer_is_a_network_error_and_the_next_call_works(run: Run, behaviour: str) -> None:
    client = run(faults=[Fault(behaviour=behaviour, times=1)])
    with pytest.raises(requests.RequestException):
        client("POST", "/contacts", {"email": ANN})
    assert client.sandbox.calls[0].status is None
    acted = behaviour == "lost_answer"
    assert bool(client.sandbox.contacts) is acted
    assert client("POST", "/contacts", {"email": ANN}).status_code == (400 if acted else 201)


def test_a_reset_is_felt_as_one(run: Run) -> None:
    client = run(faults=[Fault(behaviour="reset")])
    with pytest.raises(ConnectionResetError):
        raw(client.sandbox, f"GET /v3/contacts HTTP/1.1\r\napi-key: {KEY}\r\n\r\n".encode())


def test_a_hanging_call_is_never_answered(run: Run) -> None:
    client = run(faults=[Fault(behaviour="hang")])
    with pytest.raises(requests.ReadTimeout):
        client("GET", "/contacts", timeout=(PATIENCE, 0.05))


def test_a_held_answer_keeps_waiting_whoever_has_been_heard(run: Run) -> None:
    client = run(faults=[Fault(behaviour="held_answer")])
    with pytest.raises(requests.ReadTimeout):
        client("POST", "/contacts", {"email": ANN}, timeout=(PATIENCE, 0.05))
    until(lambda: client.sandbox.contact(ANN))


@pytest.mark.parametrize("behaviour", ["drip", "drip_headers", "huge"])
def test_an_endless_answer_goes_on(run: Run, behaviour: str) -> None:
    client = run(faults=[Fault(behaviour=behaviour)])
    parts = urlsplit(client.sandbox.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=PATIENCE) as sock:
        sock.sendall(f"GET /v3/contacts HTTP/1.1\r\napi-key: {KEY}\r\n\r\n".encode())
        assert all(sock.recv(4096) for _ in range(5))


@pytest.mark.parametrize("behaviour", ["hang", "drip", "drip_headers", "huge"])
def test_stopping_ends_misbehaving_connections(run: Run, behaviour: str) -> None:
    sandbox = run(faults=[Fault(behaviour=behaviour)]).sandbox
    parts = urlsplit(sandbox.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=PATIENCE) as sock:
        sock.sendall(f"GET /v3/contacts HTTP/1.1\r\napi-key: {KEY}\r\n\r\n".encode())
        until(lambda: sandbox.calls)
        sandbox.stop()
        until(lambda: not [each for each in threading.enumerate() if each.name.startswith("sandbox")])


# The wire


@pytest.mark.parametrize(
    "data",
    [
        b"HELLO\r\n\r\n",
        b"GET /v3/contacts\r\n\r\n",
        b"GET /v3/contacts HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /v3/contacts HTTP/1.1\r\nname : value\r\n\r\n",
        b"POST /v3/contacts HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v3/contacts HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /v3/contacts HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"GET /v3/contacts HTTP/1.1\r\nx: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_gets_a_400_and_the_connection_ends(brevo: Client, data: bytes) -> None:
    parts = urlsplit(brevo.sandbox.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=PATIENCE) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(65_536).startswith(b"HTTP/1.1 400 ")
    assert brevo("GET", "/contacts").status_code == 200


def test_a_body_of_more_than_16_mb_is_refused(brevo: Client) -> None:
    head = b"POST /v3/contacts HTTP/1.1\r\ncontent-length: 16777217\r\n\r\n"
    parts = urlsplit(brevo.sandbox.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=PATIENCE) as sock:
        sock.sendall(head)
        assert sock.recv(65_536).startswith(b"HTTP/1.1 413 ")


def test_requests_may_arrive_in_pieces_and_several_at_once(brevo: Client) -> None:
    one = f"GET /v3/account HTTP/1.1\r\nAPI-KEY:{KEY}\r\n\r\n".encode()
    last = f"GET /v3/account HTTP/1.1\r\napi-key: {KEY}\r\nConnection: close\r\n\r\n".encode()
    assert raw(brevo.sandbox, one + one + last).count(b"HTTP/1.1 200 OK") == 3
    parts = urlsplit(brevo.sandbox.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=PATIENCE) as sock:
        for start in range(0, len(last), 7):
            sock.sendall(last[start : start + 7])
        assert sock.recv(65_536).startswith(b"HTTP/1.1 200 OK")


def test_a_large_body_arrives_whole(brevo: Client) -> None:
    rows = [
        {"email": f"c{number}@shop.example", "attributes": {"TIER": "x" * 1000}} for number in range(2000)
    ]
    assert brevo("POST", "/contacts/import", {"jsonBody": rows, "listIds": [5]}).status_code == 202


# What observers see


def test_calls_say_whom_they_were_about(brevo: Client) -> None:
    number = brevo.create("Ann@Shop.Example")
    brevo.put(ANN, attributes={"EMAIL": BOB})
    brevo("GET", f"/contacts/{number}?identifierType=contact_id")
    brevo("GET", "/contacts")
    calls = brevo.sandbox.calls
    assert [call.identifier for call in calls] == [ANN, ANN, BOB, None]
    assert [call.number for call in calls] == [1, 2, 3, 4]
    assert calls[1].path == f"/contacts/{quote(ANN, safe='')}?identifierType=email_id"
    assert calls[1].body == {"attributes": {"EMAIL": BOB}}
    assert calls[1].started_at <= calls[1].ended_at <= calls[2].started_at


def test_only_the_last_calls_are_kept_when_told_so(run: Run) -> None:
    client = run(keep_calls=2)
    for _ in range(5):
        client("GET", "/contacts")
    assert [call.number for call in client.sandbox.calls] == [4, 5]
    assert [call.number for call in client.sandbox.calls_since(4)] == [5]
    assert client.sandbox.stats["calls"] == 5


def test_overlapping_calls_for_one_contact_are_noticed(run: Run) -> None:
    """None of these is answered while another is under way: they end when the sandbox does."""
    sandbox = run(latency=timedelta(hours=1)).sandbox
    parts = urlsplit(sandbox.url)
    with ExitStack() as stack:

        def begin(call: str, body: str = "") -> int:
            """Make a call; the largest overlap once it is under way."""
            before = sandbox.stats["under_way"]
            sock = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=PATIENCE)
            head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\napi-key: {KEY}"
            stack.enter_context(sock).sendall(f"{call} HTTP/1.1\r\n{head}\r\n\r\n{body}".encode())
            until(lambda: sandbox.stats["under_way"] > before)
            return int(sandbox.stats["largest_overlap"])

        assert begin("POST /v3/contacts", json.dumps({"email": ANN})) == 1
        assert begin(f"GET /v3/contacts/{BOB}") == 1
        until(lambda: sandbox.contact(ANN))
        assert begin(f"GET /v3/contacts/{ANN}") == 2
        assert begin(f"GET /v3/contacts/{sandbox.contacts[0]['id']}") == 3
        sandbox.stop()
        until(lambda: sandbox.stats["under_way"] == 0)
    assert sandbox.stats["by_status"] == {"201": 1, "404": 1, "200": 2}


def test_calls_that_follow_each_other_never_overlap(brevo: Client) -> None:
    brevo.create(ANN)
    for _ in range(50):
        brevo.put(ANN, attributes={"TIER": "gold"})
    assert brevo.sandbox.stats["largest_overlap"] == 1
    assert brevo.sandbox.stats["by_status"] == {"201": 1, "204": 50}


def test_other_processes_look_and_act_through_doors_of_their_own(brevo: Client) -> None:
    root = brevo.sandbox.url.removesuffix("/v3") + "/sandbox"
    brevo.create(ANN)
    brevo("GET", f"/contacts/{ANN}")
    assert requests.post(f"{root}/unsubscribe", json={"email": ANN}, timeout=PATIENCE).status_code == 204
    assert requests.post(f"{root}/unsubscribe", json={"email": BOB}, timeout=PATIENCE).status_code == 404
    contacts = requests.get(f"{root}/contacts", timeout=PATIENCE).json()
    assert contacts == brevo.sandbox.contacts
    assert contacts[0]["emailBlacklisted"] is True
    calls = requests.get(f"{root}/calls?since=1", timeout=PATIENCE).json()
    assert [(call["method"], call["identifier"], call["status"]) for call in calls] == [("GET", ANN, 200)]
    assert requests.get(f"{root}/stats", timeout=PATIENCE).json() == brevo.sandbox.stats
    faults = json.dumps([{"status": 503}])
    assert requests.post(f"{root}/faults", data=faults, timeout=PATIENCE).status_code == 204
    assert brevo("GET", "/contacts").status_code == 503
    assert requests.post(f"{root}/faults", data="[{}]", timeout=PATIENCE).status_code == 400
    assert requests.delete(f"{root}/faults", timeout=PATIENCE).status_code == 204
    assert brevo("GET", "/contacts").status_code == 200


# Its life


def test_it_comes_back_at_the_same_address_with_the_same_contacts(run: Run) -> None:
    client = run()
    client.create(ANN)
    url = client.sandbox.url
    client.sandbox.stop()
    with pytest.raises(requests.ConnectionError):
        client("GET", "/contacts")
    client.sandbox.start()
    assert client.sandbox.url == url
    assert client("GET", "/contacts").json()["count"] == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "shop.example", ""])
def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        Sandbox(host=host)


def test_many_clients_are_served_at_once(brevo: Client) -> None:
    def create(number: int) -> list[int]:
        with requests.Session() as session:
            session.headers["api-key"] = KEY
            return [
                session.post(
                    f"{brevo.sandbox.url}/contacts",
                    json={"email": f"c{number}-{each}@shop.example"},
                    timeout=PATIENCE,
                ).status_code
                for each in range(20)
            ]

    with ThreadPoolExecutor(10) as pool:
        assert {status for statuses in pool.map(create, range(10)) for status in statuses} == {201}
    assert len({contact["id"] for contact in brevo.sandbox.contacts}) == 200


def test_an_attribute_needs_a_type_that_exists_and_its_options() -> None:
    for kind in ("txt", "category"):
        with pytest.raises(ConfigError, match="TIER"):
            Sandbox(attributes={"TIER": kind})


def test_odd_texts_and_numbers_do_no_harm(brevo: Client) -> None:
    brevo.create(ANN, attributes={"TIER": "\ud800 é 漢"})
    assert brevo("GET", f"/contacts/{ANN}").json()["attributes"] == {"TIER": "? é 漢"}
    for path in ("/contacts/", "/contacts/lists/", "/processes/", "/contacts?limit="):
        assert brevo("GET", path + "9" * 5000).status_code in (400, 404)
