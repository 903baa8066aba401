"""The registers: of each attribute the newest value, whoever of those who have the contact said it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from outboxd.event import EMPTIED, Contact, Others, Register, Stamp, Statement, digest
from outboxd.fold.life import newest
from outboxd.fold.policy import Policy
from outboxd.labels import Known
from outboxd.values import CLEARED

UNKNOWN = ""
"""In place of a hash: Brevo may have the value, or none."""


def registered(
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


def overruling(said: Mapping[str, Register], fields: Mapping[str, Register]) -> frozenset[str]:
    """The attributes of which others said something newer. A blank of theirs may never have been told."""
    return frozenset(
        name
        for name, register in said.items()
        if register.digest != EMPTIED and name in fields and register.stamp.at > fields[name].stamp.at
    )


def outlived(
    told: Contact,
    fields: Mapping[str, Register],
    perhaps: Mapping[str, Register],
    others: Others,
    policy: Policy,
) -> frozenset[str]:
    """What is to be emptied in `fields` because an earlier life left it, and is by now what others said."""
    left = {
        name: register
        for name, register in {**perhaps, **told.fields}.items()
        if told.deleted_at is not None and fields[name] == Register(told.deleted_at, EMPTIED)
    }
    return frozenset(left) - emptied_of(left, others, policy).keys()


def brought_along(contact: Contact, moved_at: Stamp | None, others: Others) -> frozenset[str]:
    """What the contact brings along to an address: it counts as said when it moved there. Blanks are not."""
    brought = {
        name: register._replace(stamp=newest(moved_at, register.stamp) or register.stamp)
        for name, register in contact.fields.items()
        if register.digest != EMPTIED
    }
    return frozenset(brought) - overruling(others.said, brought)


def brought_over(
    fields: Mapping[str, Register], own: Collection[str], moved_at: Stamp | None, others: Others
) -> Mapping[str, Register]:
    """The registers once these are brought along, over what others had said there meanwhile: if they leave
    again, it is not taken for that of the others.
    """
    over = {
        name
        for name in others.said.keys() & own
        if name in fields and others.said[name].stamp > fields[name].stamp
    }
    if moved_at is None or not over:
        return fields
    return {
        name: register._replace(stamp=moved_at) if name in over else register
        for name, register in fields.items()
    }


def left_behind(
    contact: Contact, others: Others, policy: Policy, doubtful: Sequence[Statement] = ()
) -> dict[str, Any]:
    """What stays of this customer alone, emptied, in a contact that they leave to others."""
    return emptied_of({**perhaps_given(doubtful), **contact.fields}, others, policy)


def with_emptied(fields: Mapping[str, Register], names: Collection[str]) -> dict[str, Register]:
    """The registers once these are emptied."""
    return {
        name: register._replace(digest=EMPTIED) if name in names else register
        for name, register in fields.items()
    }


def perhaps_given(doubtful: Sequence[Statement]) -> dict[str, Register]:
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


def emptied_of(had: Mapping[str, Register], others: Others, policy: Policy) -> dict[str, Any]:
    """What a contact had of one customer alone, emptied: what nobody else said the same, or more lately."""
    theirs = {
        name
        for name, register in others.said.items()
        if name in had
        and register.digest != EMPTIED
        and (register.digest == had[name].digest or register.stamp > had[name].stamp)
    }
    return {
        name: CLEARED
        for name, register in had.items()
        if register.digest != EMPTIED and name not in theirs and policy.can_empty(name)
    }
