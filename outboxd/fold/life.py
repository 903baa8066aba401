"""The life of a customer: when they came and went, and where they could be reached."""

from collections.abc import Sequence
from dataclasses import replace

from outboxd.event import Contact, Kind, Stamp, Statement

GONE = frozenset({Kind.DELETED, Kind.REDACTED})


def newest(first: Stamp | None, *others: Stamp) -> Stamp | None:
    return max((*((first,) if first else ()), *others), default=None)


def with_life(contact: Contact, statements: Sequence[Statement]) -> Contact:
    """The tombstone and the newest creation: only one newer than the tombstone makes a customer alive again.

    The creation is remembered of the living too, for an older deletion may come late.
    """
    deleted_at = newest(contact.deleted_at, *(s.stamp for s in statements if s.kind in GONE))
    born_at = newest(contact.born_at, *(s.stamp for s in statements if s.kind is Kind.CREATED))
    is_dead = deleted_at is not None and (born_at is None or born_at < deleted_at)
    born_at = None if is_dead else born_at
    if (deleted_at, born_at) == (contact.deleted_at, contact.born_at):
        return contact
    return replace(contact, deleted_at=deleted_at, born_at=born_at)


def is_void(statement: Statement, told: Contact) -> bool:
    """Whether it tells of a life that is over."""
    if told.deleted_at is None:
        return False
    return statement.stamp < told.deleted_at or (statement.kind not in GONE and not told.is_alive)


def newest_address(told: Contact, said: Sequence[Statement]) -> tuple[str | None, Stamp | None]:
    """The newest address that an event named as news; failing one, the address that says who is meant."""
    email, at = told.email, told.email_at
    for statement in said:
        if statement.email and not statement.names_address and email is None:
            email, at = statement.email, None
    for statement in said:
        if statement.email and statement.names_address and (at is None or statement.stamp >= at):
            email, at = statement.email, statement.stamp
    return email, at


def address_at(moment: Stamp, contact: Contact, statements: Sequence[Statement]) -> str | None:
    """The address that the customer had then."""
    until = [s for s in statements if s.kind not in GONE and s.stamp <= moment]
    return newest_address(contact, until)[0]
