"""Fold, by example: what pending events and the contact as last delivered come to."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from outboxd.event import (
    Change,
    Contact,
    Kind,
    Nothing,
    Others,
    Remove,
    Stamp,
    Statement,
    Unaddressed,
    Upsert,
    Verdict,
)
from outboxd.fold import fold
from outboxd.fold.policy import Policy

START = datetime(2026, 11, 23, tzinfo=UTC)
NOBODY = Contact("shopify:4711", "shopify")
ANA, NEW = "ana@example.com", "ana.lima@example.com"
SOFT = Policy(list_ids=(7,))
HARD = Policy(list_ids=(7,), deletes_softly=False)


def at(minute: float, event_id: int | None = None) -> Stamp:
    return Stamp(START + timedelta(minutes=minute), int(minute * 10) if event_id is None else event_id)


def said(
    minute: float,
    kind: Kind,
    email: str | None = ANA,
    accepts: bool | None = None,
    *,
    names_address: bool = True,
    **attributes: Any,
) -> Statement:
    return Statement(at(minute), kind, email, attributes, accepts, names_address)


def created(minute: float, email: str | None = ANA, accepts: bool | None = None, **more: Any) -> Statement:
    return said(minute, Kind.CREATED, email, accepts, **more)


def updated(minute: float, email: str | None = ANA, accepts: bool | None = None, **more: Any) -> Statement:
    return said(minute, Kind.UPDATED, email, accepts, **more)


def deleted(minute: float, email: str | None = None) -> Statement:
    return said(minute, Kind.DELETED, email)


def redacted(minute: float) -> Statement:
    return said(minute, Kind.REDACTED, None)


def known(*statements: Statement, policy: Policy = SOFT) -> Contact:
    """The contact after these were delivered one by one."""
    contact = NOBODY
    for statement in statements:
        contact = fold(contact, [statement], policy).contact
    return contact


def change(contact: Contact, *statements: Statement, policy: Policy = SOFT) -> Change:
    return fold(contact, statements, policy).change


def upsert(contact: Contact, *statements: Statement, policy: Policy = SOFT) -> Upsert:
    made = change(contact, *statements, policy=policy)
    assert isinstance(made, Upsert)
    return made


# Values


def test_a_new_customer_is_made_with_all_that_is_known_and_joins_the_list() -> None:
    assert upsert(NOBODY, created(1, NAME="Ana", VIP=False), updated(2, ORDERS=0)) == Upsert(
        email=ANA,
        known_as=None,
        attributes={"NAME": "Ana", "VIP": False, "ORDERS": 0},
        complete={"NAME": "Ana", "VIP": False, "ORDERS": 0},
        list_ids=(7,),
        is_first=True,
    )


def test_only_what_differs_is_sent_and_absent_is_never_sent() -> None:
    made = upsert(known(created(1, NAME="Ana", CITY="Porto")), updated(2, NAME="Ana", ORDERS=3))
    assert (made.attributes, made.is_first) == ({"ORDERS": 3}, False)
    assert made.complete == {"NAME": "Ana", "ORDERS": 3}


def test_what_brevo_already_has_needs_no_call() -> None:
    contact = known(created(1, accepts=True, NAME="Ana"))
    made = change(contact, updated(2, accepts=True, NAME="Ana"))
    assert isinstance(made, Nothing)
    assert made.verdict is Verdict.UNCHANGED


@pytest.mark.parametrize(("before", "after"), [(True, False), (1, 0), (1, True), (0, False), ("0", 0)])
def test_false_and_zero_are_values_and_differ_from_their_likes(before: object, after: object) -> None:
    sent = upsert(known(created(1, X=before)), updated(2, X=after)).attributes["X"]
    assert (sent, type(sent)) == (after, type(after))


def test_clearing_empties_what_was_delivered() -> None:
    assert upsert(known(created(1, NAME="Ana")), updated(2, NAME="")).attributes == {"NAME": ""}


def test_a_blank_in_the_shop_does_not_wipe_what_brevo_has_from_elsewhere() -> None:
    assert upsert(NOBODY, created(1, CITY="")).attributes == {}
    assert isinstance(change(known(created(1)), updated(2, CITY="")), Nothing)


def test_what_was_cleared_is_not_cleared_again() -> None:
    contact = known(created(1, NAME="Ana"), updated(2, NAME=""))
    assert isinstance(change(contact, updated(3, NAME="")), Nothing)


def test_a_late_event_supplies_only_what_nobody_overwrote() -> None:
    contact = known(created(1, NAME="Ana"), updated(3, NAME="Anna"))
    assert upsert(contact, updated(2, NAME="Ann", CITY="Porto")).attributes == {"CITY": "Porto"}


def test_of_equal_times_the_later_row_wins() -> None:
    rows = [replace(updated(1, NAME=name), stamp=at(1, row)) for row, name in ((2, "Anna"), (1, "Ana"))]
    assert upsert(NOBODY, *rows).attributes == {"NAME": "Anna"}


# Consent


def test_an_explicit_opt_out_is_said_once() -> None:
    contact = known(created(1))
    assert upsert(contact, updated(2, accepts=False)).email_blacklisted is True
    contact = fold(contact, [updated(2, accepts=False)], SOFT).contact
    assert isinstance(change(contact, updated(3, accepts=False)), Nothing)


@pytest.mark.parametrize("accepts", [True, None])
def test_without_a_known_opt_out_the_flag_is_left_alone(accepts: bool | None) -> None:
    """Somebody may have unsubscribed in Brevo, of which the shop does not know."""
    assert upsert(NOBODY, created(1, accepts=accepts)).email_blacklisted is None
    contact = known(created(1, accepts=True, NAME="Ana"))
    assert upsert(contact, updated(2, accepts=accepts, NAME="Anna")).email_blacklisted is None


def test_a_known_opt_out_that_the_shop_turns_is_lifted() -> None:
    opted_in = updated(2, accepts=True)
    assert upsert(known(created(1, accepts=False)), opted_in).email_blacklisted is False
    assert upsert(NOBODY, created(1, accepts=False), opted_in).email_blacklisted is False


def test_an_opt_in_is_said_once() -> None:
    contact = known(created(1, accepts=False), updated(2, accepts=True))
    assert isinstance(change(contact, updated(3, accepts=True)), Nothing)


def test_a_late_older_opt_in_does_not_lift_an_opt_out() -> None:
    assert isinstance(change(known(created(2, accepts=False)), updated(1, accepts=True)), Nothing)


def test_a_late_older_opt_out_after_an_opt_in_says_nothing() -> None:
    assert isinstance(change(known(created(2, accepts=True)), updated(1, accepts=False)), Nothing)


def test_an_update_without_consent_keeps_the_opt_out_and_does_not_repeat_it() -> None:
    made = upsert(known(created(1, accepts=False)), updated(2, NAME="Ana"))
    assert (made.email_blacklisted, made.is_opted_out) == (None, True)


# Deletion


def test_a_soft_deletion_blocklists_and_takes_off_the_list() -> None:
    contact = known(created(1))
    assert change(contact, deleted(2)) == Remove(ANA, is_soft=True, unlink_list_ids=(7,))
    assert known(created(1), deleted(2)).accepts_marketing is False


def test_a_hard_deletion_removes_the_contact() -> None:
    assert change(known(created(1)), deleted(2), policy=HARD) == Remove(ANA, is_soft=False)
    contact = known(created(1, NAME="Ana"), deleted(2), policy=HARD)
    assert (contact.synced_email, contact.email, contact.fields) == (None, None, {})


@pytest.mark.parametrize("delivered", [(created(1),), (created(1), deleted(2))])
def test_an_erasure_is_hard_whatever_the_policy(delivered: tuple[Statement, ...]) -> None:
    assert change(known(*delivered), redacted(3)) == Remove(ANA, is_soft=False)


@pytest.mark.parametrize("policy", [SOFT, HARD])
def test_late_and_newer_updates_do_not_bring_a_deleted_customer_back(policy: Policy) -> None:
    contact = known(created(1), deleted(3), policy=policy)
    for late in (created(1), updated(2, NAME="Ana"), updated(4, NAME="Ana", accepts=True)):
        made = fold(contact, [late], policy)
        assert isinstance(made.change, Nothing)
        assert made.superseded == {late.stamp.event_id}
        assert not made.contact.is_alive


@pytest.mark.parametrize("policy", [SOFT, HARD])
def test_deleting_twice_or_somebody_unknown_needs_no_call(policy: Policy) -> None:
    assert isinstance(
        change(known(created(1), deleted(2), policy=policy), deleted(3), policy=policy), Nothing
    )
    assert isinstance(change(NOBODY, deleted(1), policy=policy), Nothing)


def test_a_deletion_that_names_an_address_removes_it_though_nobody_here_knows_it() -> None:
    assert change(NOBODY, deleted(1, ANA), policy=HARD) == Remove(ANA, is_soft=False)


def test_a_newer_creation_begins_a_new_life_without_the_old_values() -> None:
    contact = known(created(1, NAME="Ana", CITY="Porto"), deleted(2))
    made = upsert(contact, created(3, NAME="Anna"))
    assert (made.attributes, made.is_first) == ({"NAME": "Anna", "CITY": ""}, True)


@pytest.mark.parametrize("policy", [SOFT, HARD])
def test_a_deletion_that_comes_later_than_the_newer_creation_removes_nobody(policy: Policy) -> None:
    contact = known(created(1, NAME="Ana"), created(3, CITY="Porto"), policy=policy)
    made = fold(contact, [deleted(2)], policy)
    assert made.contact.is_alive
    assert isinstance(made.change, Upsert)
    assert made.change.attributes == {"NAME": ""}


def test_a_soft_deletion_is_an_opt_out_that_only_a_later_opt_in_lifts() -> None:
    contact = known(created(1, accepts=True), deleted(2))
    assert upsert(contact, created(3)).email_blacklisted is None
    assert upsert(contact, created(3)).is_opted_out
    assert upsert(contact, created(3, accepts=True)).email_blacklisted is False
    assert upsert(NOBODY, created(1), deleted(2), created(3)).email_blacklisted is True
    assert upsert(NOBODY, created(1), deleted(2), redacted(2.5), created(3)).email_blacklisted is True


@pytest.mark.parametrize("policy", [SOFT, HARD])
def test_an_opt_out_of_a_deleted_customer_counts_when_they_come_back(policy: Policy) -> None:
    contact = known(created(1), deleted(2), updated(4, accepts=False), policy=policy)
    assert upsert(contact, created(5), policy=policy).is_opted_out


# Addresses


def test_a_new_address_moves_the_contact_and_the_opt_out_with_it() -> None:
    made = upsert(known(created(1, accepts=False, NAME="Ana")), updated(2, NEW))
    assert (made.known_as, made.email, made.attributes) == (ANA, NEW, {})
    assert made.is_opted_out


def test_a_late_older_address_moves_nobody() -> None:
    contact = known(created(1), updated(3, NEW))
    assert isinstance(change(contact, updated(2, "other@example.com")), Nothing)


def test_there_and_back_between_two_deliveries_is_no_move() -> None:
    assert isinstance(change(known(created(1)), updated(2, NEW), updated(3, ANA)), Nothing)


def test_an_address_that_only_says_who_is_meant_moves_nobody() -> None:
    """An order under the old address reaches the customer, who has moved since."""
    contact = known(created(1), updated(2, NEW))
    made = upsert(contact, updated(3, ANA, names_address=False, ORDERS=1))
    assert (made.email, made.known_as) == (NEW, NEW)


def test_an_address_that_only_says_who_is_meant_serves_where_none_is_known() -> None:
    guest = updated(2, ANA, names_address=False)
    assert upsert(NOBODY, guest).email == ANA
    assert upsert(NOBODY, guest, created(1, NEW)).email == NEW
    assert upsert(known(guest), created(1, NEW)).email == NEW


def test_without_any_address_nothing_can_be_said_and_nothing_is_remembered() -> None:
    made = fold(NOBODY, [updated(1, None, NAME="Ana")], SOFT)
    assert (made.change, made.contact) == (Unaddressed(), NOBODY)


def test_a_known_address_serves_events_that_name_none() -> None:
    assert upsert(known(created(1)), updated(2, None, NAME="Ana")).email == ANA


# Shared contacts


def another(_: str) -> Others:
    """Another living customer has the contact."""
    return Others(are_alive=True)


def another_out(minute: float) -> Callable[[str], Others]:
    """Another one has it, and opted out then."""
    return lambda _: Others(are_alive=True, out_at=updated(minute).stamp)


def overtaken(contact: Contact) -> Contact:
    """The contact after another customer, who has the same, was told of."""
    return replace(contact, is_overtaken=True)


@pytest.mark.parametrize("policy", [SOFT, HARD])
@pytest.mark.parametrize("contact", [known(created(1)), NOBODY], ids=["known", "new"])
def test_a_contact_that_another_customer_has_too_stays(policy: Policy, contact: Contact) -> None:
    made = fold(contact, [deleted(2, ANA)], policy, others=another)
    assert isinstance(made.change, Nothing)
    assert not made.contact.is_alive


@pytest.mark.parametrize("policy", [SOFT, HARD])
@pytest.mark.parametrize("contact", [known(created(1)), NOBODY], ids=["known", "new"])
def test_an_opt_out_before_a_deletion_is_told_where_the_contact_stays(
    policy: Policy, contact: Contact
) -> None:
    words = [created(2, accepts=True), updated(3, accepts=False), deleted(4)]
    made = fold(contact, words, policy, others=another).change
    assert isinstance(made, Upsert)
    assert (made.email, made.attributes, made.email_blacklisted) == (ANA, {}, True)
    back = [created(2, accepts=False), updated(3, accepts=True), deleted(4)]
    assert isinstance(fold(contact, back, policy, others=another).change, Nothing)


def test_whatever_is_said_after_another_customer_was_told_of_is_told_again() -> None:
    contact = overtaken(known(created(1, NAME="Ana", VIP=True)))
    in_part = fold(contact, [updated(2, NAME="Ana")], SOFT)
    assert upsert(contact, updated(2, NAME="Ana")).attributes == {"NAME": "Ana"}
    assert upsert(in_part.contact, updated(3, NAME="Ana")).attributes == {"NAME": "Ana"}
    whole = fold(in_part.contact, [updated(3, NAME="Ana", VIP=True)], SOFT)
    assert isinstance(change(whole.contact, updated(4, NAME="Ana", VIP=True)), Nothing)


def test_a_blank_empties_only_what_was_delivered_for_the_customer() -> None:
    contact = overtaken(known(created(1, NAME="")))
    assert isinstance(change(contact, updated(2, NAME="")), Nothing)
    assert upsert(overtaken(known(created(1, NAME="Ana"))), updated(2, NAME="")).attributes == {"NAME": ""}


def test_an_opt_out_is_said_again_after_another_customer_was_told_of() -> None:
    """The other one may have opted in. Until it is said, that stays in doubt."""
    contact = overtaken(known(created(1, accepts=False)))
    named = fold(contact, [updated(2, NAME="Ana")], SOFT)
    assert isinstance(named.change, Upsert)
    assert named.change.email_blacklisted is None
    out = fold(named.contact, [updated(3, accepts=False, NAME="Ana")], SOFT)
    assert isinstance(out.change, Upsert)
    assert out.change.email_blacklisted is True
    assert isinstance(change(out.contact, updated(4, accepts=False)), Nothing)


def test_an_opt_out_that_was_said_before_is_no_news_of_another_customers_opt_in() -> None:
    contact = overtaken(known(created(1), updated(3, accepts=False)))
    assert isinstance(change(contact, updated(2, accepts=False)), Nothing)


@pytest.mark.parametrize("contact", [known(created(1, accepts=False)), NOBODY], ids=["known", "new"])
def test_an_opt_in_lifts_no_newer_opt_out_of_another_customer(contact: Contact) -> None:
    words = [created(1, accepts=False), updated(2, accepts=True, NAME="Ana")]
    for minute, flag in ((3, None), (1.5, False)):
        made = fold(contact, words, SOFT, others=another_out(minute)).change
        assert isinstance(made, Upsert)
        assert made.email_blacklisted is flag


def test_what_an_opt_in_perhaps_lifted_is_said_again_if_another_customer_said_it_last() -> None:
    contact, late = known(created(1, accepts=False)), updated(2, accepts=True)
    tried = {late.stamp.event_id}
    made = fold(contact, [late], SOFT, tried=tried, others=another_out(3)).change
    assert isinstance(made, Upsert)
    assert made.email_blacklisted is True


def test_an_opt_out_by_deletion_that_a_shared_contact_was_spared_is_said_when_they_are_back() -> None:
    gone = fold(known(created(1)), [deleted(2)], SOFT, others=another).contact
    assert upsert(gone, created(3, accepts=False)).email_blacklisted is True


def another_said(minute: float, **values: Any) -> Callable[[str], Others]:
    """Another one has the contact, and said this then."""
    contact = known(created(minute, **values))
    return lambda _: Others(are_alive=True, said=contact.fields)


def test_late_news_leaves_alone_what_another_customer_said_since() -> None:
    contact, others = overtaken(known(created(1, NAME="Ana", VIP=True))), another_said(3, NAME="Anna")
    made = fold(contact, [updated(2, NAME="Al", VIP=False)], SOFT, others=others)
    assert isinstance(made.change, Upsert)
    assert made.change.attributes == made.change.complete == {"VIP": False}
    assert made.contact.is_overtaken, "the name there is another one"
    only = fold(contact, [updated(2, NAME="Al")], SOFT, others=others).change
    assert isinstance(only, Nothing)
    assert (only.verdict, "another customer" in only.detail) == (Verdict.SUPERSEDED, True)
    newer = fold(contact, [updated(4, NAME="Al")], SOFT, others=others).change
    assert isinstance(newer, Upsert)
    assert newer.attributes == {"NAME": "Al"}


def test_whoever_comes_late_to_a_contact_leaves_alone_what_was_said_there_since() -> None:
    words, others = [created(2, NAME="Al", VIP=False)], another_said(3, NAME="Anna")
    made = fold(overtaken(NOBODY), words, SOFT, others=others)
    assert isinstance(made.change, Upsert)
    assert made.change.complete == {"VIP": False}
    assert upsert(made.contact, updated(4, NAME="Al")).attributes == {"NAME": "Al"}, "which is not there yet"


def test_a_blank_of_another_customer_is_no_word_against_a_value() -> None:
    """It may never have been told, where there was nothing to empty."""
    words, others = [created(2, NAME="Al")], another_said(3, NAME="")
    made = fold(overtaken(NOBODY), words, SOFT, others=others).change
    assert isinstance(made, Upsert)
    assert made.complete == {"NAME": "Al"}
