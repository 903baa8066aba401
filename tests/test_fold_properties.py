"""Fold, for all stories: neither the order, nor doubles, nor the cut into deliveries changes the end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from outboxd.event import Change, Contact, Kind, Others, Remove, Stamp, Statement, Unaddressed, Upsert
from outboxd.fold import Folded, fold
from outboxd.fold.life import GONE
from outboxd.fold.policy import Policy

START = datetime(2026, 11, 23, tzinfo=UTC)
NOBODY = Contact("shopify:4711", "shopify")
SOFT = Policy(list_ids=(7,))
HARD = Policy(list_ids=(7,), deletes_softly=False)
ADDRESSES = ("ana@example.com", "ana.lima@example.com", "al@example.com")
VALUES: dict[str, tuple[Any, ...]] = {"NAME": ("Ana", "Anna", ""), "VIP": (True, False), "ORDERS": (0, 1, 2)}

Story = Sequence[Statement]
Piece = Sequence[Statement]

policies = st.sampled_from([SOFT, HARD])


@dataclass
class There:
    """A contact as Brevo has it."""

    attributes: dict[str, Any] = field(default_factory=dict)
    lists: set[int] = field(default_factory=set)
    is_blacklisted: bool = False

    def change(self, attributes: Any, lists: Sequence[int], flag: bool | None) -> None:
        self.attributes.update(attributes)
        self.attributes = {name: value for name, value in self.attributes.items() if value != ""}
        self.lists.update(lists)
        if flag is not None:
            self.is_blacklisted = flag

    @property
    def is_reachable(self) -> bool:
        return bool(self.lists) or not self.is_blacklisted


@dataclass
class Account:
    """What Brevo has, by address, and every consent it was ever told. At `shared` is another customer's."""

    contacts: dict[str, There] = field(default_factory=dict)
    told: list[bool] = field(default_factory=list)
    shared: str | None = None

    def take(self, change: Change) -> None:
        if isinstance(change, Remove):
            self.remove(change)
        elif isinstance(change, Upsert):
            self.upsert(change)

    def remove(self, change: Remove) -> None:
        if not change.is_soft:
            self.contacts.pop(change.email, None)
        elif change.email in self.contacts:
            self.contacts[change.email].change({}, (), True)
            self.contacts[change.email].lists -= set(change.unlink_list_ids)

    def upsert(self, change: Upsert) -> None:
        flag = change.email_blacklisted
        if flag is not None:
            self.told.append(flag)
        old = self.contacts.pop(change.known_as, None) if change.known_as else None
        is_out = change.is_opted_out or (old is not None and old.is_blacklisted)
        if change.is_shared and old is not None:
            self.contacts[str(change.known_as)] = old
            old.is_blacklisted = old.is_blacklisted or change.leaves_opt_out
            old = None
        lists = change.list_ids if change.is_first or old is None else ()
        if old is None:
            assert change.email not in self.contacts or change.email == self.shared
        if flag is None and is_out and change.email != change.known_as:
            flag = True
        self.contacts[change.email] = there = self.contacts.get(change.email) or old or There()
        there.change(change.attributes if old else change.complete, lists, flag)


@dataclass
class Deliveries:
    """Folds piece after piece and delivers it; what has no address waits for one."""

    policy: Policy
    contact: Contact = NOBODY
    account: Account = field(default_factory=Account)
    waiting: list[Statement] = field(default_factory=list)
    others: Callable[[str], Others] = lambda _: Others()

    def deliver(self, piece: Piece) -> Folded:
        folded = fold(self.contact, [*self.waiting, *piece], self.policy, others=self.others)
        self.waiting = [*self.waiting, *piece] if isinstance(folded.change, Unaddressed) else []
        self.account.take(folded.change)
        self.contact = folded.contact
        return folded

    def seen(self) -> dict[str, There]:
        """Who can be written to. One removed softly, and one never made, are the same to the shop."""
        return {address: there for address, there in self.account.contacts.items() if there.is_reachable}

    def opted_out(self) -> bool:
        return any(there.is_blacklisted for there in self.account.contacts.values())


@st.composite
def stories(draw: st.DrawFn, choices: Sequence[bool | None] = (None, None, True, False)) -> Story:
    """What happened to one customer, in the order in which it did."""
    kinds = [Kind.CREATED, Kind.CREATED, *[Kind.UPDATED] * 4, Kind.DELETED, Kind.DELETED, Kind.REDACTED]
    story = []
    for number, kind in enumerate(draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=8))):
        is_gone = kind in GONE
        addresses = ADDRESSES if kind is Kind.CREATED else (*ADDRESSES, None, None)
        names = [] if is_gone else draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True))
        story.append(
            Statement(
                Stamp(START + timedelta(minutes=number), number + 1),
                kind,
                draw(st.sampled_from(addresses)),
                {name: draw(st.sampled_from(VALUES[name])) for name in names},
                None if is_gone else draw(st.sampled_from(choices)),
            )
        )
    return story


def arrive(data: st.DataObject, story: Story) -> list[Statement]:
    """The story as rows: shuffled, some of them twice, ids in the order of arrival."""
    doubles = data.draw(st.lists(st.sampled_from(story), max_size=3))
    rows = data.draw(st.permutations([*story, *doubles]))
    return [replace(s, stamp=Stamp(s.stamp.at, number)) for number, s in enumerate(rows, 1)]


def cut(data: st.DataObject, rows: Sequence[Statement]) -> Sequence[Piece]:
    """The rows in the deliveries in which they leave."""
    pieces: list[list[Statement]] = [[rows[0]]]
    for row in rows[1:]:
        if data.draw(st.booleans()):
            pieces.append([])
        pieces[-1].append(row)
    return pieces


def loses_values(pieces: Sequence[Piece]) -> bool:
    """Whether news of a new life is drained before the creation that begins it: a limit that is known.

    Such an update finds a customer who is known only as deleted, and its values are stored nowhere; an
    opt-in in it is lost for every later life.
    """
    drained: list[Statement] = []
    lost: list[Statement] = []
    for piece in pieces:
        drained += piece
        if not lives(drained):
            lost += [s for s in drained if s.kind is Kind.UPDATED and s.stamp > deletion(drained)]
    return lives(drained) and any(s.stamp > deletion(drained) or s.accepts_marketing for s in lost)


def deletion(story: Story) -> Stamp:
    return max((s.stamp for s in story if s.kind in GONE), default=Stamp(START, -1))


def lives(story: Story) -> bool:
    """By the shop's clock: not deleted, or created again since."""
    is_gone = any(s.kind in GONE for s in story)
    return not is_gone or any(s.kind is Kind.CREATED and s.stamp > deletion(story) for s in story)


def timeless(contact: Contact) -> Contact:
    """The contact without the numbers of the rows, which tell only the order of arrival."""

    def at(stamp: Stamp | None) -> Stamp | None:
        return stamp and Stamp(stamp.at, 0)

    return replace(
        contact,
        email_at=at(contact.email_at),
        consent_at=at(contact.consent_at),
        deleted_at=at(contact.deleted_at),
        born_at=at(contact.born_at),
        fields={
            n: register._replace(stamp=Stamp(register.stamp.at, 0)) for n, register in contact.fields.items()
        },
    )


@given(st.data(), stories(), policies)
def test_order_and_doubles_do_not_matter(data: st.DataObject, story: Story, policy: Policy) -> None:
    """Rows that arrived shuffled, some of them twice, fold into what the story in order folds into."""
    before = Deliveries(policy)
    split = data.draw(st.integers(0, len(story) - 1))
    if split:
        before.deliver(story[:split])
    rows = arrive(data, story[split:])
    in_order = fold(before.contact, story[split:], policy)
    shuffled = fold(before.contact, rows, policy)
    assert shuffled.change == in_order.change
    assert timeless(shuffled.contact) == timeless(in_order.contact)


@given(st.data(), stories(), policies)
@settings(max_examples=400)
def test_piece_by_piece_ends_as_at_once(data: st.DataObject, story: Story, policy: Policy) -> None:
    """However the rows are cut into deliveries, Brevo ends with the same contact."""
    pieces = cut(data, arrive(data, story))
    assume(not loses_values(pieces))
    at_once, by_piece = Deliveries(policy), Deliveries(policy)
    at_once.deliver(story)
    for piece in pieces:
        by_piece.deliver(piece)
    assert at_once.contact.is_alive == by_piece.contact.is_alive == lives(story)
    assert by_piece.seen() == at_once.seen()


@given(st.data(), stories(), policies)
def test_only_the_living_can_be_reached(data: st.DataObject, story: Story, policy: Policy) -> None:
    """Also where values are lost: after the last row a deleted customer is not there, a living one is."""
    by_piece = Deliveries(policy)
    for piece in cut(data, arrive(data, story)):
        by_piece.deliver(piece)
    if not lives(story):
        assert by_piece.seen() == {}
    elif not by_piece.waiting:
        assert len(by_piece.account.contacts) == 1
        assert by_piece.account.contacts.keys() == {by_piece.contact.email}


@given(st.data(), stories(), policies)
def test_the_last_choice_is_kept_and_no_opt_in_is_made_up(
    data: st.DataObject, story: Story, policy: Policy
) -> None:
    """A customer whose last choice was an opt-out stays out; only an opt-out that was revoked is lifted."""
    by_piece = Deliveries(policy)
    for piece in cut(data, arrive(data, story)):
        by_piece.deliver(piece)
    choices = [
        (s.stamp.at, False if s.kind is Kind.DELETED and policy is SOFT else s.accepts_marketing)
        for s in story
        if s.accepts_marketing is not None or (s.kind is Kind.DELETED and policy is SOFT)
    ]
    if choices and choices[-1][1] is False and by_piece.account.contacts:
        assert by_piece.opted_out()
    first_out = next((at for at, accepts in choices if not accepts), None)
    if first_out is None or not any(accepts and at > first_out for at, accepts in choices):
        assert False not in by_piece.account.told


def beside(out_at: Stamp, policy: Policy, pieces: Sequence[Piece]) -> bool:
    """Whether another customer's contact, who opted out of it then, is still blocked after these."""
    there = Account({ADDRESSES[0]: There(is_blacklisted=True)}, shared=ADDRESSES[0])
    others = {ADDRESSES[0]: Others(are_alive=True, out_at=out_at)}
    deliveries = Deliveries(policy, account=there, others=lambda address: others.get(address, Others()))
    for piece in pieces:
        deliveries.deliver(piece)
    return there.contacts[ADDRESSES[0]].is_blacklisted


@given(st.data(), stories(choices=(True, False)), policies, st.integers(-1, 8))
@settings(max_examples=400)
def test_no_cut_lifts_anothers_opt_out_that_stands_where_all_is_told_one_by_one(
    data: st.DataObject, story: Story, policy: Policy, minute: int
) -> None:
    """Of whoever comes and goes; who is there again and again may be seen there once, or not at all."""
    pieces, one_by_one = cut(data, story), [[statement] for statement in story]
    assume(not loses_values(pieces) and not loses_values(one_by_one))
    stays = [s.email if s.kind not in GONE else None for s in story if s.email or s.kind in GONE]
    visits = [address for address, _ in groupby(stays) if address]
    assume(len(visits) == len(set(visits)))
    out_at = Stamp(START + timedelta(minutes=minute), 100)
    assert beside(out_at, policy, pieces) or not beside(out_at, policy, one_by_one)


@given(st.data(), stories(), policies)
def test_what_was_delivered_needs_no_second_call(data: st.DataObject, story: Story, policy: Policy) -> None:
    """The same rows once more, whatever their order, come to nothing."""
    rows = arrive(data, story)
    once = Deliveries(policy)
    once.deliver(rows)
    assume(not once.waiting)
    calls = fold(once.contact, arrive(data, story), policy)
    assert not isinstance(calls.change, Upsert | Remove)
