"""Brevo's bulk calls, against the sandbox: what spoils a batch is found, and an import is read leniently."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from math import ceil, log2
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboxd.brevo.bulk import Bulk, Process, Reached, row, takes
from outboxd.brevo.client import Brevo
from outboxd.brevo.limiter import Limiter
from outboxd.brevo.sandbox import Call, Fault, Sandbox
from outboxd.event import Found, Outcome, Upsert, Verdict
from outboxd.keys import address_key
from tests.shop import KEY, Clock

BAD_PHONE = "+999"
"""Too short for Brevo, which refuses whatever contact has it."""

BATCH = "/contacts/batch"

Told = Outcome | Found | None


class Account:
    """The sandbox, and the bulk calls to it."""

    def __init__(self, sandbox: Sandbox, clock: Clock) -> None:
        self.sandbox, self.clock = sandbox, clock
        timeout = timedelta(seconds=5)
        self._brevo = Brevo(
            base_url=sandbox.url, api_key=KEY, limiter=Limiter([(10**6, 1.0)]), timeout=timeout
        )
        self.bulk = Bulk(self._brevo)
        self._known_calls = 0

    def know(self, count: int) -> None:
        """So many contacts, ann0@example.com and so on, that are there."""
        rows = [row(f"ann{number}@example.com", {}) for number in range(count)]
        self.bulk.start_import(rows, [1], is_opted_out=False)
        self.later(2)
        self._known_calls = len(self.sandbox.calls)

    def later(self, seconds: float) -> None:
        self.clock.ahead += timedelta(seconds=seconds)

    @property
    def calls(self) -> Sequence[Call]:
        return self.sandbox.calls[self._known_calls :]

    @property
    def methods(self) -> list[str]:
        return [call.method for call in self.calls]


@pytest.fixture
def account() -> Iterator[Account]:
    clock = Clock()
    with Sandbox(clock=clock) as sandbox:
        yield Account(sandbox, clock)


def update(account: Account, changes: Sequence[Upsert]) -> tuple[list[Told], int]:
    return account.bulk.update(changes, lambda: False)


def change(number: int, **attributes: Any) -> Upsert:
    """News of a contact that Brevo is believed to have."""
    email = f"ann{number}@example.com"
    attributes = {"FIRSTNAME": "Ann", **attributes}
    return Upsert(email, email, attributes, attributes, is_first=False)


def changes(count: int, *, bad: Sequence[int] = ()) -> list[Upsert]:
    return [change(number, **({"SMS": BAD_PHONE} if number in bad else {})) for number in range(count)]


def verdicts(told: Sequence[Told]) -> list[Verdict | None]:
    return [each.verdict if isinstance(each, Outcome) else None for each in told]


def reached(account: Account) -> set[int]:
    """The numbers of the contacts that have the news."""
    there = [each for each in account.sandbox.contacts if each["attributes"].get("FIRSTNAME") == "Ann"]
    return {int(each["email"].removeprefix("ann").partition("@")[0]) for each in there}


def test_known_contacts_are_changed_in_one_call(account: Account) -> None:
    account.know(100)
    told, calls = update(account, changes(100))
    assert (calls, len(account.calls)) == (1, 1)
    assert set(verdicts(told)) == {Verdict.DELIVERED}
    assert reached(account) == set(range(100))


def test_a_batch_of_one_is_an_ordinary_call_that_heals(account: Account) -> None:
    account.know(1)
    [outcome], calls = update(account, changes(1, bad=[0]))
    assert isinstance(outcome, Outcome)
    assert (calls, outcome.calls, account.methods) == (0, 2, ["PUT", "PUT"])
    assert outcome.warnings == ("phone left out: Brevo does not take it as valid",)
    assert reached(account) == {0}


def test_those_that_brevo_names_as_missing_are_taken_out_and_the_others_sent(account: Account) -> None:
    account.know(8)
    numbers = [90, 0, 1, 2, 91, 3, 4, 5, 6, 7, 92]
    told, calls = update(account, [change(number) for number in numbers])
    assert (calls, len(account.calls)) == (2, 2)
    assert [number for number, each in zip(numbers, told, strict=True) if each == Found()] == [90, 91, 92]
    assert reached(account) == set(range(8))


def test_where_brevo_has_none_of_them_one_call_tells(account: Account) -> None:
    told, calls = update(account, changes(20))
    assert (told, calls) == ([Found()] * 20, 1)


@pytest.mark.parametrize(
    "message",
    ["Contact does not exist", "No contact found for indexes 40", "No contact found for indexes", ""],
)
def test_a_404_that_names_nobody_is_halved_down_to_single_calls(account: Account, message: str) -> None:
    """Such as indexes past the end: they are somebody else's."""
    account.know(7)
    body = {"code": "document_not_found", "message": message}
    account.sandbox.faults.add(Fault(status=404, body=body, path=BATCH))
    told, _ = update(account, changes(8))
    assert set(verdicts(told)) == {Verdict.DELIVERED}
    assert reached(account) == set(range(8)), "the one that was missing is made"
    assert [call.path for call in account.calls].count(BATCH) == 7


def test_whoever_spoils_a_batch_is_found_in_few_calls(account: Account) -> None:
    """For any places of up to three in a batch of any size: they go alone, the others still in batches."""
    account.know(100)

    @settings(max_examples=25, derandomize=True, database=None)
    @given(st.integers(1, 100), st.sets(st.integers(0, 99), max_size=3))
    def holds(size: int, places: set[int]) -> None:
        bad = [place for place in places if place < size]
        before = len(account.calls)
        told, _ = update(account, changes(size, bad=bad))
        assert set(verdicts(told)) == {Verdict.DELIVERED}
        warned = [n for n, each in enumerate(told) if isinstance(each, Outcome) and each.warnings]
        assert warned == sorted(bad)
        made = len(account.calls) - before
        assert made <= 2 + len(bad) * (2 * ceil(log2(max(2, size))) + 2)

    holds()


def test_a_5xx_stops_a_batch_where_it_is_and_only_those_it_was_about_have_failed(account: Account) -> None:
    """The batch is refused for one of its contacts, its first half fails, the second is never sent."""
    account.know(8)
    account.sandbox.faults.add(Fault(status=503, path=BATCH, after=1))
    told, calls = update(account, changes(8, bad=[6]))
    assert verdicts(told) == [Verdict.RETRY] * 4 + [None] * 4
    assert (told[4:], calls, len(account.calls)) == ([None] * 4, 2, 2)


def test_a_429_in_the_middle_stops_a_batch_and_blocks_only_those_it_was_about(account: Account) -> None:
    account.know(8)
    account.sandbox.faults.add(Fault(status=429, path=BATCH, after=2))
    told, calls = update(account, changes(8, bad=[1]))
    assert verdicts(told) == [Verdict.BLOCKED] * 2 + [None] * 6
    assert calls == len(account.calls) == 3


def test_a_block_of_a_single_call_stops_the_rest_of_the_batch(account: Account) -> None:
    account.know(4)
    account.sandbox.faults.add(Fault(status=401, method="PUT"))
    told, _ = update(account, changes(4, bad=[0]))
    assert verdicts(told) == [Verdict.BLOCKED, None, None, None]
    assert account.methods == ["POST", "POST", "PUT"]


def test_what_fails_alone_does_not_keep_the_others_of_its_batch(account: Account) -> None:
    account.know(4)
    account.sandbox.faults.add(Fault(status=500, method="PUT", times=1))
    told, _ = update(account, changes(4, bad=[0]))
    assert verdicts(told) == [Verdict.RETRY, *[Verdict.DELIVERED] * 3]


def test_no_call_is_begun_once_it_is_late(account: Account) -> None:
    account.know(8)
    told, calls = account.bulk.update(changes(8, bad=[7]), lambda: len(account.calls) >= 2)
    assert verdicts(told) == [Verdict.DELIVERED] * 4 + [None] * 4
    assert (calls, len(account.calls)) == (2, 2)


def test_a_batch_that_is_too_large_for_one_body_goes_in_halves(account: Account) -> None:
    account.know(2)
    told, calls = update(account, [change(number, LASTNAME="Ek" * 2_500_000) for number in range(2)])
    assert (set(verdicts(told)), calls) == ({Verdict.DELIVERED}, 0)
    assert account.methods == ["PUT", "PUT"]


ROWS = [row(f"ann{number}@example.com", {"FIRSTNAME": "Ann"}) for number in range(3)]


@pytest.mark.parametrize("is_opted_out", [False, True])
def test_an_import_joins_the_lists_mails_nobody_and_says_an_opt_out_of_all_its_rows(
    account: Account, is_opted_out: bool
) -> None:
    process_id = account.bulk.start_import(ROWS, [5, 6], is_opted_out=is_opted_out)
    assert process_id == 1
    [call] = account.calls
    assert call.body == {
        "listIds": [5, 6],
        "updateExistingContacts": True,
        "emptyContactsAttributes": False,
        "emailBlacklist": is_opted_out,
        "disableNotification": True,
        "jsonBody": [
            {"email": f"ann{number}@example.com", "attributes": {"FIRSTNAME": "Ann"}} for number in range(3)
        ],
    }
    account.later(2)
    told = account.bulk.process(1)
    assert isinstance(told, Process)
    assert (told.status, told.left_out) == ("completed", 0)
    assert reached(account) == {0, 1, 2}
    assert {each["emailBlacklisted"] for each in account.sandbox.contacts} == {is_opted_out}
    assert {tuple(each["listIds"]) for each in account.sandbox.contacts} == {(5, 6)}


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        (Fault(status=400), Verdict.REFUSED),
        (Fault(status=413), Verdict.REFUSED),
        (Fault(status=500), Verdict.RETRY),
        (Fault(status=429), Verdict.BLOCKED),
        (Fault(behaviour="lost_answer"), Verdict.RETRY),
        (Fault(status=202, body={}), Verdict.RETRY),
        (Fault(status=202, body={"processId": "seventeen"}), Verdict.RETRY),
    ],
    ids=["400", "413", "500", "429", "lost", "no process", "odd process"],
)
def test_an_import_that_is_not_known_to_have_begun_is_told_as_an_outcome(
    account: Account, fault: Fault, verdict: Verdict
) -> None:
    account.sandbox.faults.add(fault)
    told = account.bulk.start_import(ROWS, [5], is_opted_out=False)
    assert isinstance(told, Outcome)
    assert (told.verdict, told.call) == (verdict, "POST /contacts/import")


@pytest.mark.parametrize(
    ("info", "left_out"),
    [
        ({"import": {"invalid_emails": None, "duplicate_email_id": None}}, 0),
        ({"import": {"invalid_emails": 2, "duplicate_phone_id": "3"}}, 5),
        ({"import": {"invalid_emails": "https://reports.example/7.csv", "duplicate_ext_id": ""}}, 1),
        ({"import": {}}, None),
        ({"import": "gone"}, None),
        ("gone", None),
        (None, None),
    ],
)
def test_the_rows_that_an_import_left_out_are_counted_however_brevo_tells_them(
    account: Account, info: object, left_out: int | None
) -> None:
    account.sandbox.faults.add(Fault(status=200, body={"status": "Completed", "info": info}))
    told = account.bulk.process(1)
    assert told == Process("completed", left_out)
    assert isinstance(told, Process)
    assert (told.has_ended, told.has_failed) == (True, False)


@pytest.mark.parametrize(
    ("status", "has_ended", "has_failed"),
    [
        ("queued", False, False),
        ("in_process", False, False),
        ("processing", False, False),
        ("failed", True, True),
        ("cancelled", True, True),
        ("what Brevo may say tomorrow", False, False),
    ],
)
def test_a_process_has_ended_only_where_brevo_says_so(
    account: Account, status: str, has_ended: bool, has_failed: bool
) -> None:
    account.sandbox.faults.add(Fault(status=200, body={"status": status}))
    told = account.bulk.process(1)
    assert isinstance(told, Process)
    assert (told.has_ended, told.has_failed) == (has_ended, has_failed)


def test_a_process_that_brevo_has_forgotten_is_over_with_an_unknown_end(account: Account) -> None:
    assert account.bulk.process(77) == Process("completed", None)


@pytest.mark.parametrize("behaviour", ["garbage", "half", "reset", "html", "redirect"])
def test_a_process_that_cannot_be_seen_is_an_outcome(account: Account, behaviour: str) -> None:
    account.sandbox.faults.add(Fault(behaviour=behaviour))
    assert isinstance(account.bulk.process(1), Outcome)


def test_whom_an_import_has_reached_is_whoever_was_made_or_changed_since(account: Account) -> None:
    account.know(3)
    account.later(5)
    since = account.clock()
    account.later(5)
    update(account, [change(1)])
    account.sandbox.unsubscribe("ann2@example.com")
    found = {address_key("ann1@example.com"): {"FIRSTNAME": "Ann"}, address_key("ann2@example.com"): {}}
    assert account.bulk.reached(since) == Reached(found, calls=1)
    assert account.bulk.reached(since + timedelta(hours=1)) == Reached({}, calls=1)
    account.sandbox.faults.add(Fault(status=500))
    assert isinstance(account.bulk.reached(since), Outcome)


@pytest.mark.parametrize("value", [True, False, "", [], ["a"], {}, None])
def test_an_import_is_not_trusted_with_what_it_loses(value: object) -> None:
    assert not takes(value)


@pytest.mark.parametrize("value", ["a", 0, 1, 0.5])
def test_an_import_is_trusted_with_texts_and_numbers(value: object) -> None:
    assert takes(value)
