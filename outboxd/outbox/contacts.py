"""The contacts table: what Brevo has of a customer, as far as we know."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from sqlite3 import Connection
from typing import Any

from outboxd.clock import to_text
from outboxd.event import EMPTIED, Contact, Others, Register, Stamp
from outboxd.keys import address_key
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

STAMP = "dddd-dd-ddTdd:dd:dd.dddZ#d*".replace("d", "[0-9]")
"""How a stamp is written, for GLOB: what is written otherwise another program wrote."""

NOBODY = Others()

SPOILED = (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError)
"""What comes of reading something else than was written."""

FEW = 100
"""Rows that are read at once: of more Python would look whether they are garbage."""

Said = Mapping[str, list[str]]
"""Attributes as they are written: the stamp, and the hash, of each."""

# As bytes: each text would be decoded by a call of its own. Of those who left, whoever they are: what the
# customer left behind may be that of a guest who turned out to be them.
OTHERS = f"""
SELECT deleted_at IS NULL OR born_at IS NOT NULL, CAST(fields AS BLOB),
       iif(accepts_marketing = 0 AND consent_at GLOB '{STAMP}', CAST(consent_at AS TEXT), NULL)
FROM contacts WHERE synced_email = :email AND customer_key <> :key
UNION ALL
SELECT 0, NULL, out_at FROM addresses WHERE address_key = :address_key AND out_at GLOB '{STAMP}'
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
    found = connection.execute(CONTACTS, {"keys": json.dumps(list(keys))}).fetchall()
    return {key: (key, "", None) for key in keys} | {row[0]: row for row in found}


def contact(row: Sequence[Any]) -> Contact:
    """The contact in a row of the table; of one that another program spoiled only whose it is."""
    try:
        return _contact(row)
    except SPOILED:
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


def others(ask: Callable[[str, dict[str, Any]], Sequence[Sequence[Any]]], key: str, email: str) -> Others:
    """Who but the customer of this key has the contact at this address, as `ask`, which executes a statement,
    tells.
    """
    found = ask(OTHERS, {"key": key, "email": email, "address_key": address_key(email)})
    if not found:
        return NOBODY
    out_at = [each for *_, each in found if each is not None]
    living = [fields for is_alive, fields, _ in found if is_alive]
    return Others(bool(living), _stamp(max(out_at, default=None)), _said(living))


def _said(told: Sequence[bytes]) -> dict[str, Register]:
    """Of each attribute the newest value that stands in any of these, of which there may be thousands."""
    newest: Said = {}
    for start in range(0, len(told), FEW):
        part = told[start : start + FEW]
        try:
            newest = _newest([newest, *json.loads(b"[%b]" % b",".join(part))])
        except SPOILED:  # one of them is, by another program
            newest = _newest([newest, *(each for fields in part for each in _legible(fields))])
    return {name: Register(Stamp.parse(at), digest) for name, (at, digest) in newest.items()}


def _newest(told: Sequence[Said]) -> Said:
    """A blank may never have been told, and hides nothing that another one said."""
    newest = {}
    for name in set[str]().union(*told):
        registers = [fields[name] for fields in told if name in fields]
        found = max(registers)
        if found[1] == EMPTIED:
            found = max((each for each in registers if each[1] != EMPTIED), default=found)
        Stamp.parse(found[0])
        newest[name] = found
    return newest


def _legible(fields: bytes) -> Iterator[Said]:
    with suppress(*SPOILED):
        told = json.loads(fields)
        yield _newest([told])


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
