"""Whose event it is: customers by the shop's id and by address."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from sqlite3 import Connection
from typing import Any

from outboxd.event import NO_ADDRESS, Event, Outcome
from outboxd.keys import hashed
from outboxd.outbox import addresses
from outboxd.outbox.addresses import CUSTOMERS_BY_ADDRESS, GUESTS_BY_ADDRESS, Address, Ask, Holder
from outboxd.outbox.rows import Write, at_once, execute, insert, many, table

CUSTOMERS_BY_ID = """
SELECT customer_key, contacts.source, customer_id, deleted_at IS NULL OR born_at IS NOT NULL,
       email, synced_email
FROM json_each(:wanted) AS wanted
JOIN contacts ON contacts.source = json_extract(wanted.value, '$[0]')
             AND contacts.customer_id = json_extract(wanted.value, '$[1]')
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
INSERT OR IGNORE INTO contacts (customer_key, source, customer_id)
SELECT key, source, customer_id FROM {table("key", "source", "customer_id")}
"""

NAME = "UPDATE contacts SET customer_id = :customer_id WHERE customer_key = :key"

COPY = """
INSERT INTO outbox (event, payload, source, occurred_at, is_backfill, created_at, next_attempt_at)
SELECT event, payload, source, occurred_at, is_backfill, created_at, created_at FROM outbox WHERE id = :id
"""


@dataclass(frozen=True, slots=True)
class Admission:
    """Whose event it is, by the shop's customer id or by address; or `outcome`: it ends here."""

    event: Event
    customer_id: str | None = None
    address_keys: tuple[str, ...] = ()
    outcome: Outcome | None = None
    is_redaction: bool = False


def customer_key(admission: Admission) -> str:
    """`shopify:4711`, or a hash where the customer is known by address or by an id that may name a person."""
    source, customer_id = admission.event.source, admission.customer_id
    if customer_id is None:
        return f"{source}:@{admission.address_keys[0]}"
    if re.fullmatch(r"(cust_)?[0-9]{1,20}|[0-9a-fA-F-]{32,36}", customer_id):
        return f"{source}:{customer_id}"
    return f"{source}:#{hashed(customer_id)}"


def of(connection: Connection, admissions: Sequence[Admission]) -> dict[int, list[str]]:
    """The customer of each event, by event id; new customers and addresses are written down.

    The shop's id decides. An event without one belongs to whoever has the address by now; `addresses.chosen`
    says which of several. So does a deletion: the contact stays while another customer has it, for a deletion
    too few can be made up for, and one too many cannot. A redaction that names an address alone is about all
    who have it, the one whose event it is before the others; one with an id also about a guest who has the
    address, and is not taken over.
    An id seen for the first time joins the customer of its address if that one has no id yet (an order of a
    guest who then registers), and is a customer of its own otherwise (two accounts with one address). An id
    that was known before its address takes over the customer who was known by that address alone. While it is
    elsewhere, or gone, it leaves them their contact: news of the address may be old, and then nobody would
    answer for that.
    """
    directory = _Directory(connection.execute, admissions)
    found = {admission.event.id: directory.customers(admission) for admission in admissions}
    execute(connection, at_once(MAKE, directory.made))
    many(connection, NAME, directory.named)
    execute(connection, addresses.own(directory.owned))
    merged = [{"key": key, "old": old} for old, key in directory.merged.items()]
    for statement, rows in (
        (addresses.INHERIT, directory.inherited),
        (addresses.DISOWN, directory.inherited),
        *((each, merged) for each in (ABSORB, RETIRE, HAND_OVER)),
    ):
        many(connection, statement, rows)
    execute(connection, revive_unaddressed(directory.merged.values()))
    return {
        event_id: list(dict.fromkeys(directory.merged.get(key, key) for key in keys))
        for event_id, keys in found.items()
    }


def spread(connection: Connection, admissions: Sequence[Admission]) -> list[tuple[Event, str]]:
    """As `of`, each event with its customer: what is about several is copied, an event for each of them."""
    found = of(connection, admissions)
    spread = []
    for admission in admissions:
        event = admission.event
        first, *others = found[event.id]
        spread.append((event, first))
        for key in others:
            copy = replace(event, id=insert(connection, COPY, {"id": event.id}))
            spread.append((copy, key))
    return spread


def owner(ask: Ask, admission: Admission) -> str | None:
    """Whose the event would be, if that is somebody who is known already."""
    directory = _Directory(ask, [admission])
    return directory.by_id(admission) if admission.customer_id else directory.by_address(admission)


class _Directory:
    """Customers by id and by address: as they are known, and as one batch of events makes them known."""

    def __init__(self, ask: Ask, admissions: Sequence[Admission]) -> None:
        self.made: list[dict[str, Any]] = []
        self.named: list[dict[str, Any]] = []
        self.merged: dict[str, str] = {}
        self.inherited: list[dict[str, Any]] = []
        self.owned: dict[tuple[Address, str], None] = {}
        self._by_id: dict[tuple[str, str], str] = {}
        self._holders: dict[str, Holder] = {}
        self._at: defaultdict[Address, dict[str, Holder]] = defaultdict(dict)
        ids = {(a.event.source, a.customer_id) for a in admissions if a.customer_id is not None}
        named = {address for each in admissions for address in _addresses(each)}
        alone = {address for each in admissions if each.customer_id is None for address in _addresses(each)}
        for sql, wanted in ((CUSTOMERS_BY_ADDRESS, alone), (GUESTS_BY_ADDRESS, named - alone)):
            for address, holder in addresses.holders(ask, sql, wanted) if wanted else ():
                self._at[address][holder.key] = self._holders.setdefault(holder.key, holder)
        for key, source, customer_id, is_alive, *told in ask(
            CUSTOMERS_BY_ID, {"wanted": json.dumps(sorted(ids))}
        ):
            self._by_id[source, customer_id] = key
            holder = Holder(key, has_id=True, addresses=addresses.keys(told), is_alive=bool(is_alive))
            self._holders.setdefault(key, holder)

    def customers(self, admission: Admission) -> list[str]:
        """Whose event it is, before the others whom it is about; somebody new if need be."""
        if admission.customer_id is not None:
            keys = [self._named(admission), *self._concerned(admission)]
        else:
            keys = self._concerned(admission) or [self.by_address(admission) or self._made(admission)]
        key = keys[0]
        holder = self._holders[key]
        holder.is_pending = True
        for address in _addresses(admission):
            self.owned[address, key] = None
            self._at[address][key] = holder
        return keys

    def by_id(self, admission: Admission) -> str | None:
        """Whoever has the id of the event, if that is known."""
        return self._by_id.get((admission.event.source, admission.customer_id or ""))

    def by_address(self, admission: Admission) -> str | None:
        """Whose an event without an id is, by the first of its addresses that anybody has to do with."""
        found = (addresses.chosen(each[1], self._at[each].values()) for each in _addresses(admission))
        return next((key for key in found if key is not None), None)

    def _concerned(self, admission: Admission) -> list[str]:
        """All whom a redaction is about by its addresses: of one with an id guests who stay apart."""
        wanted = _addresses(admission) if admission.is_redaction else ()
        found = [
            holder
            for each in wanted
            for holder in addresses.concerned(each[1], self._at[each].values())
            if admission.customer_id is None or not holder.has_id
        ]
        return list(dict.fromkeys(holder.key for holder in found))

    def _named(self, admission: Admission) -> str:
        """Whose an event with an id is. Guests who have its address turn out to be the same person."""
        guests = self._guests(admission)
        key = self.by_id(admission)
        if key is None and guests:
            key = guests[0].key
            guests[0].has_id = True
            self.named.append({"key": key, "customer_id": admission.customer_id})
        if key is None:
            key = self._made(admission)
        self._by_id[admission.event.source, admission.customer_id or ""] = key
        for guest in guests:
            if guest.key != key and _comes_along(guest, self._holders[key]):
                self._merge(guest, key, admission)
        return key

    def _guests(self, admission: Admission) -> list[Holder]:
        """Those without an id who have the addresses of the event. Whoever is in flight cannot be taken over
        now, and whoever is elsewhere is not meant.
        """
        found = {
            holder.key: holder
            for address in _addresses(admission)
            for holder in self._at[address].values()
            if not (holder.has_id or holder.is_in_flight or holder.is_elsewhere(address[1]))
            and holder.key not in self.merged
        }
        return list(found.values())

    def _made(self, admission: Admission) -> str:
        key, source = customer_key(admission), admission.event.source
        self.made.append({"key": key, "source": source, "customer_id": admission.customer_id})
        self._holders[key] = Holder(key, has_id=admission.customer_id is not None)
        return key

    def _merge(self, guest: Holder, key: str, admission: Admission) -> None:
        source = admission.event.source
        self.merged[guest.key] = key
        self._holders[key].addresses |= guest.addresses
        first = guest.key.rpartition(":@")[2]  # by which they were known
        for address in {first, *guest.addresses, *admission.address_keys}:
            self.inherited.append({"source": source, "address": address, "key": key, "old": guest.key})
            self._at[source, address].pop(guest.key, None)


def _comes_along(guest: Holder, heir: Holder) -> bool:
    """Whether the contact of the guest, if they have one, is the heir's from now on."""
    return heir.is_alive and (not heir.addresses or guest.addresses <= heir.addresses)


def _addresses(admission: Admission) -> list[Address]:
    return [(admission.event.source, each) for each in admission.address_keys]


def revive_unaddressed(keys: Iterable[str]) -> list[Write]:
    """These customers' addresses are known now."""
    found = sorted(set(keys))
    return [(REVIVE_UNADDRESSED, {"keys": json.dumps(found)})] if found else []
