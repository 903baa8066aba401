"""Whose event it is: customers by the shop's id and by address. Addresses are kept as hashes."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from outboxd.event import Contact, Event, Outcome
from outboxd.outbox.rows import many

CUSTOMERS_BY_ID = """
SELECT customer_key, contacts.source, customer_id
FROM json_each(:wanted) AS wanted
JOIN contacts ON contacts.source = json_extract(wanted.value, '$[0]')
             AND contacts.customer_id = json_extract(wanted.value, '$[1]')
"""

CUSTOMERS_BY_ADDRESS = """
SELECT addresses.source, address_key, customer_key, customer_id,
       deleted_at IS NULL OR born_at IS NOT NULL
FROM json_each(:wanted) AS wanted
JOIN addresses ON addresses.source = json_extract(wanted.value, '$[0]')
              AND address_key = json_extract(wanted.value, '$[1]')
JOIN contacts USING (customer_key)
"""

MAKE = """
INSERT OR IGNORE INTO contacts (customer_key, source, customer_id) VALUES (:key, :source, :customer_id)
"""

NAME = "UPDATE contacts SET customer_id = :customer_id WHERE customer_key = :key"

OWN = """
INSERT INTO addresses (source, address_key, customer_key) VALUES (:source, :address, :key)
ON CONFLICT DO UPDATE SET customer_key = :key WHERE customer_key <> :key
"""

REMEMBER = """
INSERT INTO addresses (source, address_key, customer_key) VALUES (:source, :address, :key)
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Admission:
    """Whose event it is, by the shop's customer id or by address; or `outcome`: it ends here."""

    event: Event
    customer_id: str | None = None
    address_key: str | None = None
    outcome: Outcome | None = None


def hashed(text: str) -> str:
    """A short hash for keys: keys reach logs, what people are called does not."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def address_key(email: str) -> str:
    """The key of an address, the same however it is capitalised."""
    return hashed(email.strip().lower())


def customer_key(admission: Admission) -> str:
    """`shopify:4711`, or a hash where the customer is known by address or by an id that may name a person."""
    source, customer_id = admission.event.source, admission.customer_id
    if customer_id is None:
        return f"{source}:@{admission.address_key}"
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", customer_id):
        return f"{source}:{customer_id}"
    return f"{source}:#{hashed(customer_id)}"


def of(connection: Connection, admissions: Sequence[Admission]) -> dict[int, str]:
    """The customer of each event, by event id; new customers and addresses are written down.

    The shop's id decides. An event without one belongs to whoever has the address; an id seen for the
    first time joins the customer of its address if that one has no id yet (an order of a guest who
    then registers), and is a customer of its own otherwise (two accounts with one address).
    """
    ids = {(a.event.source, a.customer_id) for a in admissions if a.customer_id is not None}
    addresses = {(a.event.source, a.address_key) for a in admissions if a.address_key is not None}
    by_id: dict[tuple[str, str], str] = {
        (source, customer_id): key
        for key, source, customer_id in connection.exec_driver_sql(
            CUSTOMERS_BY_ID, {"wanted": json.dumps(sorted(ids))}
        )
    }
    owner: dict[tuple[str, str], str] = {}
    has_id: set[str] = set()
    is_dead: set[str] = set()
    for source, address, key, customer_id, is_alive in connection.exec_driver_sql(
        CUSTOMERS_BY_ADDRESS, {"wanted": json.dumps(sorted(addresses))}
    ):
        owner[source, address] = key
        if customer_id is not None:
            has_id.add(key)
        if not is_alive:
            is_dead.add(key)

    found: dict[int, str] = {}
    made: list[dict[str, Any]] = []
    named: list[dict[str, Any]] = []
    for admission in admissions:
        source, customer_id, address = admission.event.source, admission.customer_id, admission.address_key
        at_address = owner.get((source, address)) if address is not None else None
        if customer_id is None:
            key = at_address
        else:
            key = by_id.get((source, customer_id))
            if key is None and at_address is not None and at_address not in has_id:
                key = at_address
                named.append({"key": key, "customer_id": customer_id})
                by_id[source, customer_id] = key
                has_id.add(key)
        if key is None:
            key = customer_key(admission)
            made.append({"key": key, "source": source, "customer_id": customer_id})
            if customer_id is not None:
                by_id[source, customer_id] = key
                has_id.add(key)
        if address is not None and (at_address is None or (at_address in is_dead and at_address != key)):
            owner[source, address] = key
        found[admission.event.id] = key
    many(connection, MAKE, made)
    many(connection, NAME, named)
    many(connection, OWN, [{"source": s, "address": a, "key": key} for (s, a), key in owner.items()])
    return found


def remember(connection: Connection, contacts: Iterable[Contact]) -> None:
    """A customer that moved is met at the new address too."""
    rows = [
        {"source": contact.source, "address": address_key(contact.email), "key": contact.customer_key}
        for contact in contacts
        if contact.email is not None
    ]
    many(connection, REMEMBER, rows)
