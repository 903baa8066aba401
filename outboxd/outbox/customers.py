"""Whose event it is: customers by the shop's id and by address. Addresses are kept as hashes."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from outboxd.event import NO_ADDRESS, Contact, Event, Outcome
from outboxd.keys import address_key, hashed
from outboxd.outbox.rows import Write, at_once, execute, many, table

CUSTOMERS_BY_ID = """
SELECT customer_key, contacts.source, customer_id
FROM json_each(:wanted) AS wanted
JOIN contacts ON contacts.source = json_extract(wanted.value, '$[0]')
             AND contacts.customer_id = json_extract(wanted.value, '$[1]')
"""

CUSTOMERS_BY_ADDRESS = """
SELECT addresses.source, address_key, contacts.customer_key, customer_id,
       deleted_at IS NULL OR born_at IS NOT NULL,
       EXISTS (SELECT 1 FROM outbox WHERE outbox.customer_key = contacts.customer_key
                 AND is_head = 1 AND claimed_at IS NOT NULL)
FROM json_each(:wanted) AS wanted
JOIN addresses ON addresses.source = json_extract(wanted.value, '$[0]')
              AND address_key = json_extract(wanted.value, '$[1]')
JOIN contacts USING (customer_key)
"""

# A customer whose events named no address yet takes over what is known of the address that is theirs.
ABSORB = """
UPDATE contacts SET (email, email_at, synced_email, fields, labels, accepts_marketing, consent_at,
                     deleted_at, born_at, is_redacted, is_overtaken, synced_at) =
    (SELECT email, email_at, synced_email, fields, labels, accepts_marketing, consent_at,
            deleted_at, born_at, is_redacted, is_overtaken, synced_at
     FROM contacts AS other WHERE other.customer_key = :old)
WHERE customer_key = :key AND email IS NULL AND synced_email IS NULL AND deleted_at IS NULL
"""

RETIRE = """
UPDATE contacts SET email = NULL, email_at = NULL, synced_email = NULL, fields = '{}', labels = '{}'
WHERE customer_key = :old
"""

# What is in flight ends where it began.
HAND_OVER = """
UPDATE outbox SET customer_key = :key, is_head = 0
WHERE customer_key = :old AND status = 'pending' AND claimed_at IS NULL
"""

# Events that died for want of an address, once one is known.
REVIVE_UNADDRESSED = f"""
UPDATE outbox SET status = 'pending', finished_at = NULL, attempts = 0
WHERE status = 'dead' AND dropped_at IS NULL AND customer_key IN (SELECT value FROM json_each(:keys))
  AND EXISTS (SELECT 1 FROM attempts WHERE event_id = outbox.id AND error_code = '{NO_ADDRESS}')
"""

MAKE = f"""
INSERT OR IGNORE INTO contacts (customer_key, source, customer_id, is_overtaken)
SELECT key, source, customer_id, is_overtaken FROM {table("key", "source", "customer_id", "is_overtaken")}
"""

# Whoever of two with one address is delivered later is to see what the other one said.
MEET = "UPDATE contacts SET is_overtaken = 1 WHERE customer_key = :key"

NAME = "UPDATE contacts SET customer_id = :customer_id WHERE customer_key = :key"

OWN = f"""
INSERT INTO addresses (source, address_key, customer_key)
SELECT source, address, key FROM {table("source", "address", "key")} WHERE true
ON CONFLICT DO UPDATE SET customer_key = excluded.customer_key WHERE customer_key <> excluded.customer_key
"""

REMEMBER = f"""
INSERT INTO addresses (source, address_key, customer_key)
SELECT source, address, key FROM {table("source", "address", "key")} WHERE true
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Admission:
    """Whose event it is, by the shop's customer id or by address; or `outcome`: it ends here."""

    event: Event
    customer_id: str | None = None
    address_keys: tuple[str, ...] = ()
    outcome: Outcome | None = None


def customer_key(admission: Admission) -> str:
    """`shopify:4711`, or a hash where the customer is known by address or by an id that may name a person."""
    source, customer_id = admission.event.source, admission.customer_id
    if customer_id is None:
        return f"{source}:@{admission.address_keys[0]}"
    if re.fullmatch(r"(cust_)?[0-9]{1,20}|[0-9a-fA-F-]{32,36}", customer_id):
        return f"{source}:{customer_id}"
    return f"{source}:#{hashed(customer_id)}"


def of(connection: Connection, admissions: Sequence[Admission]) -> dict[int, str]:
    """The customer of each event, by event id; new customers and addresses are written down.

    The shop's id decides. An event without one belongs to whoever has the address; an id seen for the
    first time joins the customer of its address if that one has no id yet (an order of a guest who
    then registers), and is a customer of its own otherwise (two accounts with one address). An id that
    was known before its address takes over the customer who was known by that address alone.
    """
    directory = _Directory(connection, admissions)
    found = {admission.event.id: directory.customer(admission) for admission in admissions}
    execute(connection, at_once(MAKE, directory.made))
    many(connection, NAME, directory.named)
    many(connection, MEET, [{"key": key} for key in sorted(directory.met)])
    owned = [{"source": s, "address": a, "key": key} for (s, a), key in directory.owned.items()]
    execute(connection, at_once(OWN, owned))
    merged = [{"key": key, "old": old} for old, key in directory.merged.items()]
    for statement in (ABSORB, RETIRE, HAND_OVER):
        many(connection, statement, merged)
    execute(connection, revive_unaddressed(directory.merged.values()))
    return {event_id: directory.merged.get(key, key) for event_id, key in found.items()}


class _Directory:
    """Customers by id and by address: as they are known, and as one batch of events makes them known."""

    def __init__(self, connection: Connection, admissions: Sequence[Admission]) -> None:
        self.made: list[dict[str, Any]] = []
        self.met: set[str] = set()
        self.named: list[dict[str, Any]] = []
        self.merged: dict[str, str] = {}
        self.owned: dict[tuple[str, str], str] = {}
        self._by_id: dict[tuple[str, str], str] = {}
        self._by_address: dict[tuple[str, str], str] = {}
        self._with_id: set[str] = set()
        self._gone: set[str] = set()
        ids = {(a.event.source, a.customer_id) for a in admissions if a.customer_id is not None}
        addresses = {(a.event.source, address) for a in admissions for address in a.address_keys}
        for key, source, customer_id in connection.exec_driver_sql(
            CUSTOMERS_BY_ID, {"wanted": json.dumps(sorted(ids))}
        ):
            self._by_id[source, customer_id] = key
        for source, address, key, customer_id, is_alive, is_in_flight in connection.exec_driver_sql(
            CUSTOMERS_BY_ADDRESS, {"wanted": json.dumps(sorted(addresses))}
        ):
            self._by_address[source, address] = key
            if customer_id is not None or is_in_flight:
                self._with_id.add(key)  # whoever is in flight cannot be taken over now
            if not is_alive:
                self._gone.add(key)

    def customer(self, admission: Admission) -> str:
        """Whose event it is; somebody new if need be."""
        source, customer_id = admission.event.source, admission.customer_id
        owners = [self._by_address.get((source, address)) for address in admission.address_keys]
        at_address = next((owner for owner in owners if owner is not None), None)
        if customer_id is None:
            key = at_address
        else:
            key = self._by_id.get((source, customer_id))
            if key is None and at_address is not None and at_address not in self._with_id:
                key = at_address
                self.named.append({"key": key, "customer_id": customer_id})
        if key is None:
            key = customer_key(admission)
            made = {"key": key, "source": source, "customer_id": customer_id}
            self.made.append({**made, "is_overtaken": at_address is not None})
            if at_address is not None:
                self.met.add(at_address)
        if customer_id is not None:
            self._by_id[source, customer_id] = key
            self._with_id.add(key)
        is_guests = at_address is not None and at_address != key and at_address not in self._with_id
        if at_address is not None and customer_id is not None and is_guests:
            self.merged[at_address] = key
        for address, owner in zip(admission.address_keys, owners, strict=True):
            is_free = owner is None or owner in self._gone or (customer_id and owner not in self._with_id)
            if is_free and owner != key:
                self._by_address[source, address] = self.owned[source, address] = key
        return key


def revive_unaddressed(keys: Iterable[str]) -> list[Write]:
    """These customers' addresses are known now."""
    found = sorted(set(keys))
    return [(REVIVE_UNADDRESSED, {"keys": json.dumps(found)})] if found else []


def remember(contacts: Iterable[Contact]) -> list[Write]:
    """A customer that moved is met at the new address too."""
    rows = [
        {"source": contact.source, "address": address_key(contact.email), "key": contact.customer_key}
        for contact in contacts
        if contact.email is not None
    ]
    return at_once(REMEMBER, rows)
