"""Every contact in Brevo is listed, page by page, whatever others make and delete meanwhile."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboxd.brevo import listing
from outboxd.brevo.client import Brevo
from outboxd.brevo.limiter import Limiter
from outboxd.brevo.listing import LIMIT, Page, pages
from outboxd.brevo.paths import contact_path
from outboxd.brevo.sandbox import Fault, Sandbox
from outboxd.clock import from_text
from outboxd.event import Outcome, Verdict


def client(sandbox: Sandbox) -> Brevo:
    limiter = Limiter([(100_000, 1.0)])
    key = "xkeysib-sandbox"
    return Brevo(base_url=sandbox.url, api_key=key, limiter=limiter, timeout=timedelta(seconds=5))


def fill(brevo: Brevo, numbers: range, **attributes: str) -> None:
    """Make these contacts, in one call."""
    rows = [{"email": address(number), "attributes": attributes} for number in numbers]
    answer = brevo.call("POST", "/contacts/import", {"jsonBody": rows, "listIds": [1]})
    assert answer.is_success
    brevo.list_(1)  # whatever is due is done before the next call


def address(number: int) -> str:
    return f"c{number}@shop.example"


@pytest.fixture
def brevo() -> Iterator[Brevo]:
    with Sandbox(import_delay=timedelta(0)) as sandbox:
        yield client(sandbox)


def addresses(found: Any) -> list[str]:
    assert isinstance(found, Page)
    return [contact["email"] for contact in found]


def listed(found: Iterable[Any]) -> list[str]:
    """The addresses on all pages."""
    return [each for page in found for each in addresses(page)]


def test_every_contact_is_on_one_page_the_oldest_first(brevo: Brevo) -> None:
    fill(brevo, range(2 * LIMIT + 7))
    found = list(pages(brevo))
    assert listed(found) == [address(number) for number in range(2 * LIMIT + 7)]
    assert [page.count for page in found if isinstance(page, Page)] == [2 * LIMIT + 7] * 3


@pytest.mark.parametrize("contacts", [0, 1, LIMIT - 1, LIMIT, LIMIT + 1, 2 * LIMIT - 1])
def test_the_listing_ends_with_the_last_contact(brevo: Brevo, contacts: int) -> None:
    if contacts:
        fill(brevo, range(contacts))
    assert listed(pages(brevo)) == [address(number) for number in range(contacts)]


def test_a_page_of_more_than_a_megabyte_is_read(brevo: Brevo) -> None:
    fill(brevo, range(LIMIT), FIRSTNAME="x" * 3000)
    assert len(addresses(next(pages(brevo)))) == LIMIT


def test_only_what_was_made_or_changed_since_is_listed(brevo: Brevo) -> None:
    fill(brevo, range(3))
    seen = brevo.call("GET", contact_path(address(2))).body["modifiedAt"]
    brevo.call("PUT", contact_path(address(1)), {"attributes": {"FIRSTNAME": "Ann"}})
    [page] = pages(brevo, modified_since=from_text(seen))
    assert addresses(page) == [address(1)]


def test_what_went_wrong_is_told_and_the_same_page_can_be_asked_for_again() -> None:
    with Sandbox(faults=[Fault(status=503, times=1), Fault(status=401, times=1)]) as sandbox:
        *told, page = pages(client(sandbox))
    assert [each.verdict for each in told if isinstance(each, Outcome)] == [Verdict.RETRY, Verdict.BLOCKED]
    assert addresses(page) == []


def test_a_used_up_limit_says_how_long_to_wait() -> None:
    with Sandbox(faults=[Fault(status=429, times=1)]) as sandbox:
        told = next(pages(client(sandbox)))
    assert isinstance(told, Outcome)
    assert told.wait is not None


@pytest.mark.parametrize("body", [{}, {"contacts": 3}, {"contacts": [3]}, {"contacts": [{}]}])
def test_an_answer_that_lists_nothing_is_no_empty_account(body: object) -> None:
    with Sandbox(faults=[Fault(status=200, body=body, times=1)]) as sandbox:
        first = next(pages(client(sandbox)))
    assert isinstance(first, Outcome)
    assert first.verdict is Verdict.RETRY


@settings(max_examples=25, derandomize=True, database=None)
@given(st.data())
def test_whoever_is_there_all_the_while_is_listed(data: st.DataObject) -> None:
    """Others delete and make contacts between any two pages; small pages make many of them."""
    with Sandbox(import_delay=timedelta(0)) as sandbox, pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "LIMIT", 4)
        brevo = client(sandbox)
        fill(brevo, range(20))
        staying = set(map(address, range(20)))
        met: set[str] = set()
        made = 20
        for page in pages(brevo):
            met.update(addresses(page))
            for number in data.draw(st.sets(st.integers(0, 19), max_size=6)):
                brevo.call("DELETE", contact_path(address(number)))
                staying.discard(address(number))
            if data.draw(st.booleans()) and made < 24:
                brevo.call("POST", "/contacts", {"email": address(made)})
                made += 1
        assert staying <= met
