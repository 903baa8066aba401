"""Customers with one contact, delivered side by side: whoever is late looks again before anything is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboxd import clock
from outboxd.event import Claim, Result
from tests.by_hand import ByHand
from tests.shop import MakeShop, Shop

ANN = {"email": "ann@example.com", "firstName": "Ann"}


@pytest.fixture
def shop(make_shop: MakeShop) -> Shop:
    return make_shop(options={"delete_behavior": "hard"})


def there(shop: Shop) -> list[Any]:
    return [(each["email"], each["attributes"]) for each in shop.sandbox.contacts]


def two(shop: Shop, *names: str) -> None:
    """Two customers with one contact, and one after the other what they are called by now, yet to be told."""
    for customer_id in (1, 2):
        shop.sent("created", id=customer_id, **ANN)
        shop.later(seconds=1)
    for customer_id, name in enumerate(names, 1):
        shop.enqueue("updated", id=customer_id, firstName=name)
        shop.later(seconds=1)


def test_a_claim_that_was_made_before_the_others_record_is_made_anew(shop: Shop) -> None:
    """It knows of no other name there, and would take the one that it brings for no news."""
    two(shop, "Anne", "Ann")
    with ByHand.of(shop) as by_hand:
        first, second = by_hand.claim()
        assert by_hand.deliver(first) == {"delivered"}
        assert by_hand.deliver(second) == {"blocked"}
        shop.later(seconds=1)
        assert [by_hand.deliver(claim) for claim in by_hand.claim()] == [{"delivered"}]
    assert there(shop) == [(ANN["email"], {"FIRSTNAME": "Ann"})]
    assert shop.rows("SELECT sum(attempts) FROM outbox WHERE id > 2") == [(2,)], (
        "to step aside spends nothing"
    )


def test_a_deletion_that_was_claimed_before_removes_no_contact_that_another_customer_has_by_now(
    shop: Shop,
) -> None:
    shop.sent("created", id=1, **ANN)
    shop.later(seconds=1)
    with ByHand.of(shop) as by_hand:
        shop.enqueue("created", id=3, **{**ANN, "firstName": "Anna"})
        shop.later(seconds=1)
        shop.enqueue("deleted", id=1)
        creation, deletion = by_hand.claim()
        assert by_hand.deliver(creation) == {"delivered"}
        assert by_hand.deliver(deletion) == {"blocked"}
    shop.later(seconds=1)
    shop.drain()
    assert there(shop) == [(ANN["email"], {"FIRSTNAME": "Anna"})]


def test_a_move_that_was_claimed_before_takes_no_contact_along_that_another_customer_has_by_now(
    shop: Shop,
) -> None:
    shop.sent("created", id=1, **ANN)
    shop.later(seconds=1)
    with ByHand.of(shop) as by_hand:
        shop.enqueue("created", id=3, **{**ANN, "firstName": "Anna"})
        [creation] = by_hand.claim()
        result = by_hand.carry(creation)
        shop.enqueue("updated", id=1, email="new@example.com", firstName="Ann")
        [move] = by_hand.claim()
        by_hand.record(result)
        assert by_hand.deliver(move) == {"blocked"}
    shop.later(seconds=1)
    shop.drain()
    assert there(shop) == [(ANN["email"], {"FIRSTNAME": "Anna"}), ("new@example.com", {"FIRSTNAME": "Ann"})]


def test_of_two_claims_of_one_contact_the_older_one_goes_first(shop: Shop) -> None:
    """Whichever a thread happens to begin first."""
    two(shop, "Anne", "Anna")
    with ByHand.of(shop) as by_hand:
        older, newer = by_hand.claim()
        assert by_hand.deliver(newer) == {"blocked"}
        assert by_hand.deliver(older) == {"delivered"}
    shop.later(seconds=1)
    shop.drain()
    assert there(shop) == [(ANN["email"], {"FIRSTNAME": "Anna"})]


def test_a_claim_that_comes_to_nothing_keeps_nobody_waiting(shop: Shop) -> None:
    two(shop, "Anne", "Anna")
    with ByHand.of(shop) as by_hand:
        older, newer = by_hand.claim()
        by_hand.record(by_hand.untried(older))
        assert by_hand.deliver(newer) == {"delivered"}


@pytest.mark.parametrize("workers", [1, 8])
def test_what_is_claimed_ahead_is_told_in_the_order_in_which_it_was_said(
    make_shop: MakeShop, workers: int
) -> None:
    shop = make_shop({"latency": timedelta(milliseconds=4)}, brevo={"workers": workers})
    pairs = range(8)
    for who in "ab":
        shop.fill("created", [told(who, number, "Ann") for number in pairs])
        shop.drain()
        shop.later(seconds=1)
    bystanders = ({"id": f"c{number}", "email": f"c{number}@example.com"} for number in range(100))
    for number in pairs:
        shop.fill("updated", [told("a", number, "Anne"), *(next(bystanders) for _ in range(3))])
        shop.later(milliseconds=5)
        shop.fill("updated", [told("b", number, "Ann")])
        shop.later(milliseconds=5)
    shop.later(seconds=1)
    shop.drain()
    assert {shop.contact(f"ann{number}@example.com")["attributes"]["FIRSTNAME"] for number in pairs} == {
        "Ann"
    }


def told(who: str, number: int, name: str) -> dict[str, str]:
    return {"id": f"{who}{number}", "email": f"ann{number}@example.com", "firstName": name}


# For all stories


@dataclass
class Truth:
    """What must be in Brevo of what is delivered: the newest words of the living."""

    contact: dict[str, str] | None = None
    # What they said last, and when.
    living: dict[int, dict[str, tuple[int, str]]] = field(default_factory=dict)
    choices: dict[int, bool] = field(default_factory=dict)  # by when they were said, of this contact

    def take(self, customer: int, words: Sequence["Word"]) -> None:
        """These words of a customer are delivered together."""
        for word in words:
            if word.accepts is not None:
                self.choices[word.number] = word.accepts
        if words[-1].event == "deleted":
            left = self.living.pop(customer, {})
            if not self.living:
                self.contact, self.choices = None, {}
            for name, (number, value) in left.items():
                others = [said[name] for said in self.living.values() if name in said]
                if self.contact and not any(since > number or alike == value for since, alike in others):
                    self.contact.pop(name, None)
            return
        self.contact = self.contact or {}
        own = self.living.setdefault(customer, {})
        last = max((place for place, word in enumerate(words) if word.event == "deleted"), default=-1)
        for word in words[last + 1 :]:
            for name, value in word.attributes.items():
                own[name] = word.number, value
                if all(said[name][0] <= word.number for said in self.living.values() if name in said):
                    self.contact[name] = value

    @property
    def is_out(self) -> bool:
        """Whether the last word is an opt-out."""
        return bool(self.choices) and not self.choices[max(self.choices)]


@dataclass(frozen=True)
class Word:
    """One event of a customer, and when it was said."""

    number: int
    customer: int
    event: str
    attributes: dict[str, str]
    accepts: bool | None

    def write(self, shop: Shop, example: int) -> int:
        data: dict[str, Any] = {"id": f"{example}-{self.customer}", "email": address(example)}
        names = {"FIRSTNAME": "firstName", "LASTNAME": "lastName"}
        data |= {names[name]: value for name, value in self.attributes.items()}
        data |= {} if self.accepts is None else {"acceptsMarketing": self.accepts}
        at = clock.to_text(START + timedelta(seconds=self.number))
        return shop.enqueue(self.event, **data, updatedAt=at)


START = datetime(2026, 1, 1, tzinfo=UTC)


def address(example: int) -> str:
    return f"ann{example}@example.com"


@st.composite
def rounds(draw: st.DrawFn) -> list[list[Word]]:
    """What three customers of one address say, living, gone, perhaps back; each at most once in a round."""
    living: set[int] = set()
    numbers = count()
    told = []
    for customers in draw(st.lists(st.permutations(range(3)), min_size=2, max_size=6)):
        said = []
        for customer in customers[: draw(st.integers(1, 3))]:
            event = draw(st.sampled_from(["updated"] * 4 + ["deleted"])) if customer in living else "created"
            (living.discard if event == "deleted" else living.add)(customer)
            names = [] if event == "deleted" else ["FIRSTNAME", "LASTNAME"]
            if event == "updated":
                names = draw(st.lists(st.sampled_from(names), unique=True))
            attributes = {name: draw(st.sampled_from(["Ann", "Anne"])) for name in names}
            accepts = None if event == "deleted" else draw(st.sampled_from([None, True, False]))
            said.append(Word(next(numbers), customer, event, attributes, accepts))
        told.append(said)
    return told


def test_however_deliveries_interleave_the_contact_is_as_each_in_its_turn_leaves_it(shop: Shop) -> None:
    """And an opt-out that was said last is one there, whatever was delivered last."""
    examples = count()
    with ByHand.of(shop) as by_hand:

        @settings(max_examples=60, derandomize=True, database=None)
        @given(rounds(), st.data())
        def holds(told: list[list[Word]], data: st.DataObject) -> None:
            example, truth = next(examples), Truth()
            events: dict[int, Word] = {}
            claims: list[Claim] = []
            results: list[Result] = []

            def carry(claim: Claim) -> None:
                results.append(by_hand.carry(claim))
                if {each.verdict for each in results[-1].outcomes.values()} != {"blocked"}:
                    words = sorted((events[each.id] for each in claim.events), key=lambda word: word.number)
                    truth.take(words[0].customer, words)
                    agree(shop, example, truth)

            def record() -> None:
                while results:
                    by_hand.record(results.pop())

            try:
                for said in told:
                    events |= {word.write(shop, example): word for word in said}
                    claims.extend(by_hand.claim())
                    for claim in data.draw(st.permutations(claims)):
                        if data.draw(st.booleans()):
                            continue  # it waits for a worker until the next round, at least
                        claims.remove(claim)
                        carry(claim)
                        if data.draw(st.booleans()):
                            record()
                    shop.later(seconds=1)
                while claims or results or by_hand.is_due:
                    for claim in claims:
                        carry(claim)
                        record()
                    record()
                    shop.later(seconds=1)
                    claims = by_hand.claim()
                agree(shop, example, truth)
                whole = [word for said in told for word in said]
                if all(word.event != "deleted" for word in whole):
                    assert truth.contact == {
                        name: value for word in whole for name, value in word.attributes.items()
                    }
            finally:  # nothing of an example that breaks off is left to the next one
                for result in [*results, *map(by_hand.untried, claims)]:
                    by_hand.record(result)
                if by_hand.is_due:
                    shop.later(minutes=10)
                    shop.drain()

        holds()


def agree(shop: Shop, example: int, truth: Truth) -> None:
    found = shop.sandbox.contact(address(example))
    assert (found and found["attributes"]) == truth.contact
    if found and truth.is_out:
        assert found["emailBlacklisted"]
