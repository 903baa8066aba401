"""Fold: what a customer's pending events and the contact as last delivered come to, as one change.

Pure. Shops deliver events shuffled and doubled, so they are not replayed but folded: each fact is a
register in which the newest version wins, a deletion is a tombstone, and the order of arrival does
not matter. Folding at once or piece by piece ends in the same contact. One limit: the values of an
update that is drained while its customer is known only as deleted are lost to a creation that comes later.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from outboxd.event import (
    Attribute,
    Change,
    Contact,
    Kind,
    Nothing,
    Others,
    Register,
    Remove,
    Stamp,
    Statement,
    Unaddressed,
    Upsert,
    Verdict,
)
from outboxd.labels import Known
from outboxd.values import CLEARED

GONE = frozenset({Kind.DELETED, Kind.REDACTED})

UNKNOWN = ""
"""In place of a hash: Brevo may have the value, or none."""


BEFORE = Nothing(Verdict.SUPERSEDED, "the customer was deleted before")

OVERRULED = "another customer with the same contact has said something newer"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator decided about every contact, and the attributes of the account as far as known."""

    list_ids: tuple[int, ...] = ()
    deletes_softly: bool = True
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def can_empty(self, name: str) -> bool:
        """Whether Brevo can be told to empty an attribute; of unknown ones that is tried."""
        return name not in self.attributes or self.attributes[name].can_be_emptied


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
    told = _with_life(contact, statements)
    void = frozenset(s.stamp.event_id for s in statements if _is_void(s, told))
    doubtful = [s for s in statements if s.stamp.event_id in tried]
    blocking = _blocking(contact, statements, policy, others)
    told, turned_at = _with_consent(told, statements, blocking)
    if not told.is_alive:
        if any(s.kind is Kind.REDACTED for s in statements):
            told = replace(told, is_redacted=True)
            policy = replace(policy, deletes_softly=False)
        return Folded(*_removal(contact, told, statements, policy, others, doubtful, blocking), void)
    said = [s for s in statements if s.kind not in GONE and s.stamp.event_id not in void]
    address, address_at = _address(told, said)
    if address is None:
        return Folded(Unaddressed(), contact, void)
    perhaps = _perhaps(doubtful)
    fields, labels, complete = _fields(told, said, policy, perhaps)
    rest = others(address)
    overruled = _newer(rest.said, fields) & complete.keys()
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
    is_brought = turned_at is not None and _address_at(turned_at, contact, said) != address
    flag = _flag(contact, told, rest, turned_at, is_brought=is_brought, may_be_in=may_be_in)
    is_consent_said = told.accepts_marketing is not False or flag is not None
    is_unknown = contact.synced_email is None
    moves = contact.synced_email not in (None, address)
    is_shared = moves and others(contact.synced_email).are_alive
    own = _own(contact, address_at, rest) - overruled if moves else frozenset()
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
        leaves_opt_out=is_shared and _opts_out_at(str(contact.synced_email), contact, statements, blocking),
        delivered=frozenset(contact.fields),
        own=frozenset() if is_shared and contact.is_overtaken else own,
    )
    is_idle = _is_idle(change)
    is_overtaken = contact.is_overtaken or bool(overruled)
    if is_overtaken and not is_idle and is_consent_said:
        delivered = {name for name, register in fields.items() if register.digest != EMPTIED}
        is_overtaken = not delivered <= change.attributes.keys()
    told = replace(
        told,
        email=address,
        email_at=address_at,
        synced_email=address,
        fields=fields,
        labels=labels,
        is_redacted=False,
        is_overtaken=is_overtaken,
    )
    if is_idle and overruled:
        return Folded(Nothing(Verdict.SUPERSEDED, OVERRULED), told, void)
    if is_idle:
        return Folded(Nothing(Verdict.UNCHANGED, "Brevo already has all of it"), told, void)
    return Folded(change, told, void)


def digest(value: Any) -> str:
    """A short hash of an attribute's value: enough to see that it differs, not to read it."""
    return hashlib.sha256(_written(value).encode()).hexdigest()[:16]


_written = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode

EMPTIED = digest(CLEARED)
"""The hash of an attribute that Brevo was told to empty."""


def _newest(first: Stamp | None, *others: Stamp) -> Stamp | None:
    return max((*((first,) if first else ()), *others), default=None)


def _with_life(contact: Contact, statements: Sequence[Statement]) -> Contact:
    """The tombstone and the newest creation: only one newer than the tombstone makes a customer alive again.

    The creation is remembered of the living too, for an older deletion may come late.
    """
    deleted_at = _newest(contact.deleted_at, *(s.stamp for s in statements if s.kind in GONE))
    born_at = _newest(contact.born_at, *(s.stamp for s in statements if s.kind is Kind.CREATED))
    is_dead = deleted_at is not None and (born_at is None or born_at < deleted_at)
    born_at = None if is_dead else born_at
    if (deleted_at, born_at) == (contact.deleted_at, contact.born_at):
        return contact
    return replace(contact, deleted_at=deleted_at, born_at=born_at)


def _is_void(statement: Statement, told: Contact) -> bool:
    """Whether it tells of a life that is over."""
    if told.deleted_at is None:
        return False
    return statement.stamp < told.deleted_at or (statement.kind not in GONE and not told.is_alive)


def _address(told: Contact, said: Sequence[Statement]) -> tuple[str | None, Stamp | None]:
    """The newest address that an event named as news; failing one, the address that says who is meant."""
    email, at = told.email, told.email_at
    for statement in said:
        if statement.email and not statement.names_address and email is None:
            email, at = statement.email, None
    for statement in said:
        if statement.email and statement.names_address and (at is None or statement.stamp >= at):
            email, at = statement.email, statement.stamp
    return email, at


def _address_at(moment: Stamp, contact: Contact, statements: Sequence[Statement]) -> str | None:
    """The address that the customer had then."""
    until = [s for s in statements if s.kind not in GONE and s.stamp <= moment]
    return _address(contact, until)[0]


def _blocking(
    contact: Contact,
    statements: Sequence[Statement],
    policy: Policy,
    others: Callable[[str], Others],
) -> frozenset[Stamp]:
    """The deletions that block a contact: soft ones, where no other customer has it."""
    deletions = [s for s in statements if s.kind is Kind.DELETED] if policy.deletes_softly else []
    where = {s.stamp: _address_at(s.stamp, contact, statements) or s.email for s in deletions}
    return frozenset(at for at, address in where.items() if not address or not others(address).are_alive)


def _with_consent(
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


def _opts_out_at(
    address: str, contact: Contact, statements: Sequence[Statement], blocking: Collection[Stamp]
) -> bool:
    """Whether the customer opted out, as far as is said of this address, and that is news."""
    where = {s.stamp: _address_at(s.stamp, contact, statements) for s in statements}
    there = [s for s in statements if where[s.stamp] in (address, None)]
    told, _ = _with_consent(_with_life(contact, there), there, blocking)
    return told.accepts_marketing is False and told.consent_at != contact.consent_at


def _flag(
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


def _fields(
    told: Contact, said: Sequence[Statement], policy: Policy, perhaps: Mapping[str, Register]
) -> tuple[Mapping[str, Register], Mapping[str, Register], dict[str, Any]]:
    """The registers of attributes and of labels, and the values that won them in this fold.

    What an earlier life left in Brevo, and the present one does not state, is cleared. Nothing else is
    cleared that was not, or not perhaps, delivered from here: a blank in the shop must not wipe what Brevo
    has from elsewhere.
    """
    fields = {**perhaps, **told.fields}
    values: dict[str, Any] = {}
    for statement in said:
        for name, value in statement.attributes.items():
            if name not in fields or statement.stamp >= fields[name].stamp:
                fields[name] = Register(statement.stamp, digest(value))
                values[name] = value
    labels = Known(told.labels) if told.deleted_at is None else Known(told.labels).since(told.deleted_at)
    for statement in said:
        if statement.labels is not None:
            labels = labels.told(statement.stamp, statement.labels)
            name, value = statement.labels.attribute, labels.value(is_list=statement.labels.is_list)
            newest = max(register.stamp for register in labels.registers.values())
            fields[name] = Register(newest, digest(value))
            values[name] = value
    for name, register in fields.items():
        if told.deleted_at is not None and register.stamp < told.deleted_at and policy.can_empty(name):
            fields[name] = Register(told.deleted_at, EMPTIED)
            values[name] = CLEARED
    known = (*told.fields.items(), *perhaps.items())
    delivered = {name for name, register in known if register.digest != EMPTIED}
    values = {name: value for name, value in values.items() if value != CLEARED or name in delivered}
    return fields, labels.registers, values


def _newer(said: Mapping[str, Register], fields: Mapping[str, Register]) -> frozenset[str]:
    """The attributes of which others said something newer. A blank of theirs may never have been told."""
    return frozenset(
        name
        for name, register in said.items()
        if register.digest != EMPTIED and name in fields and register.stamp.at > fields[name].stamp.at
    )


def _own(contact: Contact, moved_at: Stamp | None, others: Others) -> frozenset[str]:
    """What the contact brings along to an address: it counts as said when it moved there."""
    brought = {
        name: register._replace(stamp=_newest(moved_at, register.stamp) or register.stamp)
        for name, register in contact.fields.items()
    }
    return frozenset(brought) - _newer(others.said, brought)


def _perhaps(doubtful: Sequence[Statement]) -> dict[str, Register]:
    """What these may have given the contact: of each attribute the first value that is one."""
    perhaps: dict[str, Register] = {}
    for statement in doubtful:
        said = dict(statement.attributes)
        if statement.labels is not None:
            said[statement.labels.attribute] = statement.labels.attribute
        for name, value in said.items():
            if name not in perhaps or perhaps[name].digest == EMPTIED:
                perhaps[name] = Register(statement.stamp, digest(value))
    return perhaps


def _whose(contact: Contact, statements: Sequence[Statement]) -> str | None:
    """The address at which a contact is to be removed."""
    last = statements[-1].stamp
    named = [statement.email for statement in statements if statement.email]
    return contact.synced_email or _address_at(last, contact, statements) or next(reversed(named), None)


def _removal(
    contact: Contact,
    told: Contact,
    statements: Sequence[Statement],
    policy: Policy,
    others: Callable[[str], Others],
    doubtful: Sequence[Statement],
    blocking: Collection[Stamp],
) -> tuple[Change, Contact]:
    may_be_there = contact.is_alive or any(s.kind not in GONE for s in doubtful)
    was_removed = not may_be_there and (contact.synced_email is None or policy.deletes_softly)
    address = _whose(contact, statements)
    stays = address is not None and others(address).are_alive
    if was_removed and not stays:
        return BEFORE, told
    if not policy.deletes_softly:
        gone = replace(told, email=None, email_at=None, synced_email=None, fields={}, labels={})
    elif told.accepts_marketing is not False and not stays:
        gone = replace(told, accepts_marketing=False, consent_at=told.deleted_at)
    else:
        gone = told
    if address is None:
        return Nothing(Verdict.UNCHANGED, "nobody here knows this customer: nothing to remove"), gone
    gone = replace(gone, is_overtaken=True)  # whoever comes back may find another one there
    if stays:
        had = {**_perhaps(doubtful), **contact.fields} if told.is_redacted else {}
        is_known = contact.accepts_marketing is False and not contact.is_overtaken
        opts_out = not is_known and _opts_out_at(address, contact, statements, blocking)
        change = _stay(address, others(address), _emptied(had, others(address), policy), opts_out=opts_out)
        return BEFORE if was_removed and isinstance(change, Nothing) else change, gone
    unlink = policy.list_ids if policy.deletes_softly else ()
    return Remove(address, is_soft=policy.deletes_softly, unlink_list_ids=unlink), gone


def _stay(address: str, others: Others, emptied: Mapping[str, Any], *, opts_out: bool) -> Change:
    """What is told of a customer who is gone where another one has the contact: their opt-out, and `emptied`
    of what they said, if they are to be forgotten.
    """
    if not opts_out and not emptied:
        return Nothing(Verdict.UNCHANGED, "another customer has the same contact: it stays")
    return Upsert(
        email=address,
        known_as=address,
        attributes=emptied,
        complete=emptied,
        is_first=False,
        email_blacklisted=True if opts_out else None,
        is_opted_out=opts_out or others.out_at is not None,
        is_shared=True,
    )


def _emptied(had: Mapping[str, Register], others: Others, policy: Policy) -> dict[str, Any]:
    """What a contact had of one customer alone, emptied: what nobody else said the same, or more lately."""
    theirs = {
        name
        for name, register in others.said.items()
        if name in had
        and register.digest != EMPTIED
        and (register.digest == had[name].digest or register.stamp.at > had[name].stamp.at)
    }
    return {
        name: CLEARED
        for name, register in had.items()
        if register.digest != EMPTIED and name not in theirs and policy.can_empty(name)
    }


def _is_newer(statement: Statement, at: Stamp | None) -> bool:
    return at is None or statement.stamp > at


def _is_idle(change: Upsert) -> bool:
    return (
        change.email == change.known_as
        and not change.attributes
        and not change.is_first
        and change.email_blacklisted is None
    )
