"""Doubts: customers of whom Brevo turned out to have something else than was believed.

What is believed of them becomes what Brevo has, and what their events said is told again: the fold then finds
what differs. Copies of events keep the times of the originals, so that whatever is newer still wins.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from sqlite3 import Connection

from outboxd.clock import to_text
from outboxd.event import Contact, Stamp
from outboxd.outbox import contacts
from outboxd.outbox.rows import EVENT, execute, insert

KEPT = f"SELECT {EVENT} FROM outbox WHERE id = :id AND status = 'delivered' AND payload <> '{{}}'"

# Whoever was delivered to, or has news, since the doubt arose is left alone; and events can be erased.
STANDS = """
SELECT 1 FROM contacts
WHERE customer_key = :key AND synced_at IS :synced_at
  AND NOT EXISTS (SELECT 1 FROM outbox WHERE status = 'pending' AND customer_key = :key)
  AND :size = (SELECT count(*) FROM outbox
               WHERE id IN (SELECT value FROM json_each(:ids)) AND status = 'delivered' AND payload <> '{}')
"""

TELL_AGAIN = """
INSERT INTO outbox (event, payload, source, occurred_at, is_backfill, created_at, next_attempt_at)
SELECT event, payload, source, :at, 1, :now, :now FROM outbox WHERE id = :id
"""


@dataclass(frozen=True, slots=True)
class Doubt:
    """What Brevo has of a customer, and the versions of the events that are to be told again.

    `synced_at` is what it was when Brevo was asked. `attributes` are the hashes of values that Brevo has
    otherwise; `remains_at` is the address of a contact that should have been removed.
    """

    customer_key: str
    synced_at: str | None
    told: Sequence[Stamp]
    is_missing: bool = False
    lacks_opt_out: bool = False
    remains_at: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def chunks(doubts: Iterable[Doubt], most: int) -> Iterator[list[Doubt]]:
    """`doubts` in parts of about as many events."""
    chunk: list[Doubt] = []
    for doubt in doubts:
        chunk.append(doubt)
        if sum(len(each.told) for each in chunk) >= most:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def settle(connection: Connection, doubt: Doubt, now: datetime) -> bool:
    """Write down what Brevo has, and tell the events again; False if the doubt does not stand any more."""
    ids = [stamp.event_id for stamp in doubt.told]
    values = {"key": doubt.customer_key, "synced_at": doubt.synced_at, "ids": json.dumps(ids)}
    if connection.execute(STANDS, {**values, "size": len(ids)}).fetchone() is None:
        return False
    believed = contacts.load(connection, [doubt.customer_key])[doubt.customer_key]
    if not believed.is_legible:
        return False
    copies = {}
    for stamp in sorted(doubt.told, key=lambda stamp: stamp.event_id):
        copy = {"id": stamp.event_id, "at": to_text(stamp.at), "now": to_text(now)}
        copies[stamp.event_id] = insert(connection, TELL_AGAIN, copy)
    execute(connection, contacts.save([_as_found(believed, doubt, copies)], now))
    return True


def _as_found(contact: Contact, doubt: Doubt, copies: Mapping[int, int]) -> Contact:
    """The contact as Brevo has it; `copies` are the ids of events told again, by those of the originals."""
    if doubt.remains_at is not None:
        return replace(contact, synced_email=doubt.remains_at)
    if doubt.is_missing:
        contact = replace(contact, synced_email=None, fields={})
    else:
        there = {name: contact.fields[name]._replace(digest=told) for name, told in doubt.attributes.items()}
        contact = replace(contact, fields={**contact.fields, **there})
    if doubt.lacks_opt_out:
        # A deletion that left the contact open to mails is yet to be carried out: in Brevo they still live.
        contact = replace(contact, accepts_marketing=None)
        if contact.deleted_at is not None and not contact.is_alive:
            contact = replace(contact, born_at=Stamp(contact.deleted_at.at, 0))
        return contact
    if contact.consent_at is not None:
        # The copy is no news of consent: an opt-in must not be taken for one, and subscribe anybody again.
        at, event_id = contact.consent_at
        contact = replace(contact, consent_at=Stamp(at, copies.get(event_id, event_id)))
    return contact
