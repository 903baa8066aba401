"""Fold: what a customer's pending events and the contact as last delivered come to, as one change.

Pure. Shops deliver events shuffled and doubled, so they are not replayed but folded: each fact is a
register in which the newest version wins, a deletion is a tombstone, and the order of arrival does
not matter. Folding at once or piece by piece ends in the same contact. Two limits: the values of an
update that is drained while its customer is known only as deleted are lost to a creation that comes later;
and what was brought to a contact over a newer word of another customer's counts as said when it came.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache

from outboxd.event import (
    EMPTIED,
    Change,
    Contact,
    Kind,
    Nothing,
    Others,
    Statement,
    Unaddressed,
    Upsert,
    Verdict,
)
from outboxd.fold.consent import blocking_deletions, consent_flag, opts_out_at, with_consent
from outboxd.fold.life import GONE, address_at, is_void, newest_address, with_life
from outboxd.fold.policy import Policy
from outboxd.fold.registers import (
    brought_along,
    brought_over,
    left_behind,
    outlived,
    overruling,
    perhaps_given,
    registered,
)
from outboxd.fold.removal import removal

OVERRULED = "another customer with the same contact has said something newer"


@dataclass(frozen=True, slots=True)
class Folded:
    """The one change, the contact once it is delivered, and the events that newer news made void."""

    change: Change
    contact: Contact
    superseded: frozenset[int]


def fold(
    contact: Contact,
    statements: Sequence[Statement],
    policy: Policy,
    *,
    tried: Collection[int] = (),
    others: Callable[[str], Others] = lambda _: Others(),
) -> Folded:
    """Fold `statements` (any order, doubles included, at least one) into `contact`.

    `tried` are the events among them that an earlier attempt, its end unknown, may have delivered; `others`
    tells who else has the contact at an address.
    """
    others = cache(others)
    statements = sorted(statements, key=lambda statement: statement.stamp)
    told = with_life(contact, statements)
    void = frozenset(s.stamp.event_id for s in statements if is_void(s, told))
    doubtful = [s for s in statements if s.stamp.event_id in tried]
    blocking = blocking_deletions(contact, statements, policy, others)
    told, turned_at = with_consent(told, statements, blocking)
    if not told.is_alive:
        if any(s.kind is Kind.REDACTED for s in statements):
            told = replace(told, is_redacted=True)
            policy = replace(policy, deletes_softly=False)
        return Folded(*removal(contact, told, statements, policy, others, doubtful, blocking), void)
    said = [s for s in statements if s.kind not in GONE and s.stamp.event_id not in void]
    address, moved_at = newest_address(told, said)
    if address is None:
        return Folded(Unaddressed(), contact, void)
    perhaps = perhaps_given(doubtful)
    fields, labels, complete = registered(told, said, policy, perhaps)
    rest = others(address)
    overruled = (
        overruling(rest.said, fields) | outlived(told, fields, perhaps, rest, policy)
    ) & complete.keys()
    if overruled:
        complete = {name: value for name, value in complete.items() if name not in overruled}
    differing = {
        name: value
        for name, value in complete.items()
        if contact.is_overtaken
        or name in perhaps
        or name not in contact.fields
        or contact.fields[name].digest != fields[name].digest
    }
    may_be_in = any(s.accepts_marketing for s in doubtful)
    is_brought = turned_at is not None and address_at(turned_at, contact, said) != address
    flag = consent_flag(contact, told, rest, turned_at, is_brought=is_brought, may_be_in=may_be_in)
    is_consent_said = told.accepts_marketing is not False or flag is not None
    is_unknown = contact.synced_email is None
    moves = contact.synced_email not in (None, address)
    former = others(contact.synced_email) if moves else Others()
    is_shared = former.are_alive
    emptied = left_behind(contact, former, policy) if is_shared else {}
    own = brought_along(contact, moved_at, rest) - overruled if moves else frozenset()
    if is_shared and contact.is_overtaken:
        own &= emptied.keys()  # of the rest it is not sure that it is theirs
    change = Upsert(
        email=address,
        known_as=contact.synced_email,
        attributes=complete if is_unknown else differing,
        complete=complete,
        list_ids=policy.list_ids,
        is_first=is_unknown or not contact.is_alive or any(s.kind in GONE for s in doubtful),
        email_blacklisted=flag,
        is_opted_out=told.accepts_marketing is False or (flag is not False and rest.out_at is not None),
        is_shared=is_shared,
        leaves_opt_out=is_shared and opts_out_at(str(contact.synced_email), contact, statements, blocking),
        emptied=emptied,
        delivered=frozenset(contact.fields),
        own=own,
    )
    is_idle = _is_idle(change)
    is_overtaken = contact.is_overtaken or bool(overruled)
    if is_overtaken and not is_idle and is_consent_said:
        delivered = {name for name, register in fields.items() if register.digest != EMPTIED}
        is_overtaken = not delivered <= change.attributes.keys()
    told = replace(
        told,
        email=address,
        email_at=moved_at,
        synced_email=address,
        fields=brought_over(fields, own, moved_at, rest),
        labels=labels,
        is_redacted=False,
        is_overtaken=is_overtaken,
    )
    if is_idle and overruled:
        return Folded(Nothing(Verdict.SUPERSEDED, OVERRULED), told, void)
    if is_idle:
        return Folded(Nothing(Verdict.UNCHANGED, "Brevo already has all of it"), told, void)
    return Folded(change, told, void)


def _is_idle(change: Upsert) -> bool:
    return (
        change.email == change.known_as
        and not change.attributes
        and not change.is_first
        and change.email_blacklisted is None
    )
