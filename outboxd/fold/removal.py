"""The removal: what Brevo is told of a customer who is gone."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from outboxd.event import Change, Contact, Nothing, Others, Remove, Stamp, Statement, Upsert, Verdict
from outboxd.fold.consent import opts_out_at
from outboxd.fold.life import GONE, address_at
from outboxd.fold.policy import Policy
from outboxd.fold.registers import left_behind, with_emptied

BEFORE = Nothing(Verdict.SUPERSEDED, "the customer was deleted before")

STAYS = "another customer has the same contact: it stays"


def removal(
    contact: Contact,
    told: Contact,
    statements: Sequence[Statement],
    policy: Policy,
    others: Callable[[str], Others],
    doubtful: Sequence[Statement],
    blocking: Collection[Stamp],
) -> tuple[Change, Contact]:
    """What Brevo is told of a customer who is gone, and the contact once it is.

    Another customer's contact stays, without what only this one had said. `blocking` are the deletions that
    count as an opt-out, `doubtful` the statements that an earlier attempt, its end unknown, may have
    delivered.
    """
    may_be_there = contact.is_alive or any(s.kind not in GONE for s in doubtful)
    was_removed = not may_be_there and (contact.synced_email is None or policy.deletes_softly)
    address = _whose(contact, statements)
    stays = address is not None and others(address).are_alive
    if was_removed and not stays:
        return BEFORE, told
    emptied = left_behind(contact, others(address), policy, doubtful) if address and stays else {}
    if not policy.deletes_softly:
        gone = replace(told, email=None, email_at=None, synced_email=None, fields={}, labels={})
    elif told.accepts_marketing is not False and not stays:
        gone = replace(told, accepts_marketing=False, consent_at=told.deleted_at)
    else:
        gone = replace(told, fields=with_emptied(told.fields, emptied))
    if address is None:
        return Nothing(Verdict.UNCHANGED, "nobody here knows this customer: nothing to remove"), gone
    gone = replace(gone, is_overtaken=True)  # whoever comes back may find another one there
    if stays:
        is_known = contact.accepts_marketing is False and not contact.is_overtaken
        opts_out = not is_known and opts_out_at(address, contact, statements, blocking)
        change = _stay(address, others(address), emptied, opts_out=opts_out, is_redacted=told.is_redacted)
        return BEFORE if was_removed and isinstance(change, Nothing) else change, gone
    unlink = policy.list_ids if policy.deletes_softly else ()
    return Remove(address, is_soft=policy.deletes_softly, unlink_list_ids=unlink), gone


def _whose(contact: Contact, statements: Sequence[Statement]) -> str | None:
    """The address at which a contact is to be removed."""
    last = statements[-1].stamp
    named = [statement.email for statement in statements if statement.email]
    return contact.synced_email or address_at(last, contact, statements) or next(reversed(named), None)


def _stay(
    address: str, others: Others, emptied: Mapping[str, Any], *, opts_out: bool, is_redacted: bool
) -> Change:
    """What is told of a customer who is gone where another one has the contact: their opt-out, and what only
    they said, `emptied`. Of whoever is to be forgotten that is what must be done.
    """
    if not opts_out and not emptied:
        return Nothing(Verdict.UNCHANGED, STAYS)
    must, may = (emptied, {}) if is_redacted else ({}, emptied)
    return Upsert(
        email=address,
        known_as=address,
        attributes=must,
        complete=must,
        is_first=False,
        email_blacklisted=True if opts_out else None,
        is_opted_out=opts_out or others.out_at is not None,
        is_shared=True,
        emptied=may,
    )
