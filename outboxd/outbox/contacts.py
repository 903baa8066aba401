"""The contacts table: what Brevo has of a customer, as far as we know."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from outboxd.clock import to_text
from outboxd.event import Contact, Others, Register, Stamp
from outboxd.outbox.rows import Write, at_once, table

CONTACTS = """
SELECT customer_key, source, customer_id, email, email_at, synced_email, fields, labels, accepts_marketing,
       consent_at, deleted_at, born_at, is_redacted, is_overtaken
FROM contacts WHERE customer_key IN (SELECT value FROM json_each(:keys))
"""

CHANGED = (
    "email", "email_at", "synced_email", "fields", "labels", "accepts_marketing", "consent_at", "deleted_at",
    "born_at", "is_redacted", "is_overtaken",
)  # fmt: skip

CHANGES = ", ".join(f"{column} = told.{column}" for column in CHANGED)

OTHERS = """
SELECT max(deleted_at IS NULL OR born_at IS NOT NULL), max(iif(accepts_marketing = 0, consent_at, NULL))
FROM contacts WHERE synced_email = :email AND customer_key <> :key
"""

SAID = """
SELECT fields FROM contacts
WHERE synced_email = :email AND customer_key <> :key AND (deleted_at IS NULL OR born_at IS NOT NULL)
"""

_compact = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make an encoder at each call

SAVE_CONTACTS = f"""
UPDATE contacts SET {CHANGES}, synced_at = :now
FROM {table("customer_key", *CHANGED)} WHERE contacts.customer_key = told.customer_key
"""

# All but the last who was told are overtaken already: however many have the contact, this finds one of them.
OVERTAKE = f"""
UPDATE contacts SET is_overtaken = 1 WHERE customer_key IN (
    SELECT contacts.customer_key FROM {table("customer_key", "email")} CROSS JOIN contacts
    ON contacts.synced_email = told.email AND contacts.is_overtaken = 0
       AND contacts.customer_key <> told.customer_key
)
"""


def load(connection: Connection, keys: Collection[str]) -> dict[str, Contact]:
    """The contacts of customers, which admission made, by their keys."""
    return {key: contact(row) for key, row in rows(connection, keys).items()}


def rows(connection: Connection, keys: Collection[str]) -> dict[str, Sequence[Any]]:
    """As `load`, as they stand in the table: `contact` is made of one once the transaction is over.

    Of one that another program removed there is but the key.
    """
    found = connection.exec_driver_sql(CONTACTS, {"keys": json.dumps(list(keys))}).all()
    return {key: (key, "", None) for key in keys} | {row[0]: row for row in found}


def contact(row: Sequence[Any]) -> Contact:
    """The contact in a row of the table; of one that another program spoiled only whose it is."""
    try:
        return _contact(row)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return Contact(customer_key=row[0], source=str(row[1]), is_legible=False)


def _contact(row: Sequence[Any]) -> Contact:
    key, source, customer_id, email, email_at, synced_email, fields, labels, accepts, *rest = row
    consent_at, deleted_at, born_at, is_redacted, is_overtaken = rest
    if not isinstance(source, str) or any(
        isinstance(each, bytes) for each in (customer_id, email, synced_email)
    ):
        raise TypeError
    return Contact(
        customer_key=key,
        source=source,
        customer_id=customer_id,
        email=email,
        email_at=_stamp(email_at),
        synced_email=synced_email,
        fields=_registers(fields),
        labels=_registers(labels),
        accepts_marketing=None if accepts is None else bool(accepts),
        consent_at=_stamp(consent_at),
        deleted_at=_stamp(deleted_at),
        born_at=_stamp(born_at),
        is_redacted=bool(is_redacted),
        is_overtaken=bool(is_overtaken),
    )


def _stamp(text: str | None) -> Stamp | None:
    return Stamp.parse(text) if text else None


def others(ask: Callable[[str], Sequence[Sequence[Any]]]) -> Others:
    """What `ask` tells of those others by OTHERS and, if one of them lives, by SAID."""
    [(are_alive, out_at)] = ask(OTHERS)
    newest: dict[str, Sequence[str]] = {}
    for (fields,) in ask(SAID) if are_alive else ():
        with suppress(ValueError, TypeError, AttributeError, RecursionError):  # another program spoiled it
            for name, told in json.loads(fields).items():
                newest[name] = max(told, newest.get(name, told))
    said = {name: Register(Stamp.parse(at), digest) for name, (at, digest) in newest.items()}
    return Others(bool(are_alive), _stamp(out_at), said)


def save(changed: Sequence[Contact], now: datetime) -> list[Write]:
    """Contacts as they were delivered at `now`."""
    return at_once(SAVE_CONTACTS, [_row(contact) for contact in changed], now=to_text(now))


def overtake(told: Iterable[tuple[str, str]]) -> list[Write]:
    """Of these customers, by their keys, Brevo was told something at these addresses: what it was told there
    of others may stand no more.
    """
    return at_once(OVERTAKE, [{"customer_key": key, "email": email} for key, email in told])


def _row(contact: Contact) -> dict[str, Any]:
    def text(stamp: Stamp | None) -> str | None:
        return str(stamp) if stamp else None

    return {
        "customer_key": contact.customer_key,
        "email": contact.email,
        "email_at": text(contact.email_at),
        "synced_email": contact.synced_email,
        "fields": _text(contact.fields),
        "labels": _text(contact.labels),
        "accepts_marketing": contact.accepts_marketing,
        "consent_at": text(contact.consent_at),
        "deleted_at": text(contact.deleted_at),
        "born_at": text(contact.born_at),
        "is_redacted": contact.is_redacted,
        "is_overtaken": contact.is_overtaken,
    }


def _registers(text: str) -> dict[str, Register]:
    return {name: Register(Stamp.parse(at), value) for name, (at, value) in json.loads(text).items()}


def _text(registers: Mapping[str, Register]) -> str:
    told = {name: [str(register.stamp), register.digest] for name, register in registers.items()}
    return _compact(told)
