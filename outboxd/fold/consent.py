"""The consent: who may be written to, as far as the shop said so, and what Brevo is told of it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from outboxd.event import Contact, Kind, Others, Stamp, Statement
from outboxd.fold.life import address_at, with_life
from outboxd.fold.policy import Policy


def blocking_deletions(
    contact: Contact,
    statements: Sequence[Statement],
    policy: Policy,
    others: Callable[[str], Others],
) -> frozenset[Stamp]:
    """The deletions that block a contact: soft ones, where no other customer has it."""
    deletions = [s for s in statements if s.kind is Kind.DELETED] if policy.deletes_softly else []
    if not deletions:
        return frozenset()
    where = {s.stamp: address_at(s.stamp, contact, statements) or s.email for s in deletions}
    return frozenset(at for at, address in where.items() if not address or not others(address).are_alive)


def with_consent(
    told: Contact, statements: Sequence[Statement], blocking: Collection[Stamp]
) -> tuple[Contact, Stamp | None]:
    """The consent, and when an opt-out was turned into it, within this fold.

    A deletion that is `blocking` counts as an opt-out. Of somebody deleted an opt-out still counts, should
    they come back, and an opt-in does not.
    """
    accepts, at = told.accepts_marketing, told.consent_at
    turned_at = None
    for statement in statements:
        choice = False if statement.stamp in blocking else statement.accepts_marketing
        if choice is None or not _is_newer(statement, at):
            continue
        if choice and not told.is_alive and told.deleted_at and statement.stamp > told.deleted_at:
            continue
        if choice and accepts is False:
            turned_at = statement.stamp
        accepts, at = choice, statement.stamp
    if at != told.consent_at:
        told = replace(told, accepts_marketing=accepts, consent_at=at)
    return told, turned_at


def _is_newer(statement: Statement, at: Stamp | None) -> bool:
    return at is None or statement.stamp > at


def opts_out_at(
    address: str, contact: Contact, statements: Sequence[Statement], blocking: Collection[Stamp]
) -> bool:
    """Whether the customer opted out, as far as is said of this address, and that is news."""
    where = {s.stamp: address_at(s.stamp, contact, statements) for s in statements}
    there = [s for s in statements if where[s.stamp] in (address, None)]
    told, _ = with_consent(with_life(contact, there), there, blocking)
    return told.accepts_marketing is False and told.consent_at != contact.consent_at


def consent_flag(
    contact: Contact,
    told: Contact,
    others: Others,
    turned_at: Stamp | None,
    *,
    is_brought: bool,
    may_be_in: bool,
) -> bool | None:
    """What Brevo is told of the consent: True blocks, False lifts that, None leaves it alone.

    Opting in is said only when the shop itself turned an opt-out it had stated into an opt-in, later, and
    nobody with the same contact opted out since; or ever, if it `is_brought` along from another address.
    Anything weaker could re-subscribe somebody who unsubscribed. An opt-out is said anew to a missing
    contact, to one that `may_be_in` since, by an attempt whose end is unknown, and where it is news and
    another customer may have lifted the former one.
    """
    if told.accepts_marketing is False:
        is_known = contact.accepts_marketing is False and contact.synced_email is not None
        is_news = contact.is_overtaken and told.consent_at != contact.consent_at
        return None if is_known and not (may_be_in or is_news) else True
    if turned_at is None:
        return None
    out_at = others.out_at
    if out_at is not None and (is_brought or turned_at.at <= out_at.at):
        return True if may_be_in else None
    return False
