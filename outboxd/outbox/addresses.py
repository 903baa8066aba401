"""The addresses table: which customers of a source have an address, had it, or are named with it by events
that wait. Addresses are kept as hashes.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from outboxd.event import FINISHED_WELL, Contact, Nothing, Outcome, Result, Settled, Upsert
from outboxd.keys import address_key
from outboxd.outbox.rows import Write, at_once, table

AT_ADDRESS = """
SELECT addresses.source, address_key, contacts.customer_key, customer_id IS NOT NULL, email, synced_email,
       deleted_at IS NULL OR born_at IS NOT NULL, is_redacted, deleted_at, email_at,
       (SELECT claimed_at IS NOT NULL FROM outbox
        WHERE outbox.customer_key = contacts.customer_key AND is_head = 1)
FROM json_each(:wanted) AS wanted
JOIN addresses ON addresses.source = json_extract(wanted.value, '$[0]')
              AND address_key = json_extract(wanted.value, '$[1]'){}
JOIN contacts USING (customer_key)
"""

CUSTOMERS_BY_ADDRESS = AT_ADDRESS.format("")

# Whoever came without an id has a key that begins like this: found without all the others at the address.
GUESTS_BY_ADDRESS = AT_ADDRESS.format("""
              AND addresses.customer_key >= json_extract(wanted.value, '$[0]') || ':@'
              AND addresses.customer_key < json_extract(wanted.value, '$[0]') || ':A'""")

OWN = f"""
INSERT INTO addresses (source, address_key, customer_key)
SELECT source, address, key FROM {table("source", "address", "key")} WHERE true
ON CONFLICT DO NOTHING
"""

LEAVE = f"""
INSERT INTO addresses (source, address_key, customer_key, out_at)
SELECT source, address, key, out_at FROM {table("source", "address", "key", "out_at")} WHERE true
ON CONFLICT DO UPDATE SET out_at = excluded.out_at WHERE excluded.out_at > ifnull(addresses.out_at, '')
"""

# What they said against mails goes on counting at the address, whether or not anything else is taken over.
INHERIT = """
INSERT INTO addresses (address_key, source, customer_key, out_at, is_heir)
SELECT address_key, addresses.source, :key,
       nullif(max(ifnull(out_at, ''), iif(accepts_marketing = 0, ifnull(consent_at, ''), '')), ''),
       is_heir OR customer_key = addresses.source || ':@' || address_key
FROM addresses JOIN contacts USING (customer_key)
WHERE address_key = :address AND addresses.source = :source AND customer_key = :old
ON CONFLICT DO UPDATE SET
    out_at = nullif(max(ifnull(out_at, ''), ifnull(excluded.out_at, '')), ''),
    is_heir = max(is_heir, excluded.is_heir)
"""

DISOWN = """
DELETE FROM addresses WHERE address_key = :address AND source = :source AND customer_key = :old
"""

Ask = Callable[[str, dict[str, Any]], Iterable[Sequence[Any]]]
"""Executes a statement, with its values."""

Address = tuple[str, str]
"""A source, and the key of an address: what an address is to one shop."""


class Nearness(IntEnum):
    """What an address is to a customer who has to do with it."""

    HERE = 0  # they live there
    COMING = 1  # as far as is known they will: nothing else is known of them, or events of theirs wait
    LEFT = 2  # they lived there


@dataclass(slots=True)
class Holder:
    """A customer who has to do with an address. `addresses` are the keys of those that they have by now;
    none: nothing was delivered of them yet, or all of it is gone.
    """

    key: str
    has_id: bool
    addresses: frozenset[str] = frozenset()
    is_alive: bool = True
    is_redacted: bool = False
    is_pending: bool = True
    is_in_flight: bool = False
    left_at: str = ""  # when they left whichever address they left last

    def nearness(self, address: str) -> Nearness:
        """What this address is to them."""
        if self.is_alive and address in self.addresses:
            return Nearness.HERE
        if self.is_pending or (self.is_alive and not self.addresses):
            return Nearness.COMING
        return Nearness.LEFT

    def is_elsewhere(self, address: str) -> bool:
        """Whether they, living or not, have another address and not this one."""
        return bool(self.addresses) and address not in self.addresses


def holders(ask: Ask, sql: str, wanted: Iterable[Address]) -> Iterator[tuple[Address, Holder]]:
    """Who has to do with these addresses, by one of the statements above."""
    for row in ask(sql, {"wanted": json.dumps(sorted(wanted))}):
        source, address, key, has_id, email, synced_email, is_alive, is_redacted, *rest = row
        deleted_at, email_at, is_in_flight = rest
        left_at = email_at if is_alive else deleted_at
        yield (
            (source, address),
            Holder(
                key,
                has_id=bool(has_id),
                addresses=keys((email, synced_email)),
                is_alive=bool(is_alive),
                is_redacted=bool(is_redacted),
                is_pending=is_in_flight is not None,
                is_in_flight=bool(is_in_flight),
                left_at=left_at if isinstance(left_at, str) else "",
            ),
        )


def chosen(address: str, found: Iterable[Holder]) -> str | None:
    """Whose an event is that names this address alone: the nearest one's of those who were found.

    Of several a guest, of whom nothing but an address is known; else whoever has the lowest id, whom the shop
    has known longest: whatever else happens, the next such event finds the same one. Of those who left,
    whoever was the last.
    """
    near = sorted(found, key=_seniority)
    nearest = min((each.nearness(address) for each in near), default=None)
    near = [each for each in near if each.nearness(address) is nearest]
    if nearest is Nearness.LEFT:
        return max(near, key=lambda each: each.left_at).key
    return near[0].key if near else None


def concerned(address: str, found: Iterable[Holder]) -> list[Holder]:
    """Whom a redaction is about that names this address alone: all who have it, or of whom nothing is known
    but that they had it, living or not. Whoever is elsewhere by now is another person.
    """
    those = [each for each in found if not (each.is_redacted or each.is_elsewhere(address))]
    return sorted(those, key=_seniority)


def _seniority(holder: Holder) -> tuple[bool, int, str]:
    return holder.has_id, len(holder.key), holder.key


def keys(told: Iterable[object]) -> frozenset[str]:
    """The keys of the addresses that a contact's columns hold. Another program may have written anything."""
    return frozenset(address_key(each) for each in told if isinstance(each, str))


def own(owned: Iterable[tuple[Address, str]]) -> list[Write]:
    """These customers, by their keys, have to do with these addresses; most of it is known."""
    rows = [{"source": source, "address": address, "key": key} for (source, address), key in owned]
    return at_once(OWN, rows)


def remember(contacts: Iterable[Contact]) -> list[Write]:
    """A customer that moved is met at the new address too."""
    return own(
        ((contact.source, address_key(contact.email)), contact.customer_key)
        for contact in contacts
        if contact.email is not None
    )


def leave(results: Iterable[Result]) -> list[Write]:
    """Whoever leaves a contact to others leaves their opt-out there, whatever they say elsewhere from now on.

    It is not forgotten any more, not even if the contact is removed later: to be too careful does no harm.
    """
    rows = [
        {
            "source": result.contact.source,
            "address": address_key(left),
            "key": result.contact.customer_key,
            "out_at": out_at,
        }
        for result in results
        for each in result.settled
        if (left := _left(each)) is not None and (out_at := _out_at(each)) is not None
    ]
    return at_once(LEAVE, rows)


def _left(settled: Settled) -> str | None:
    """The address that the customer left to others."""
    told, change = settled.told, settled.change
    left = settled.before.synced_email
    is_done = isinstance(told, Outcome) and told.verdict in FINISHED_WELL
    stays = isinstance(change, Nothing) or (isinstance(change, Upsert) and change.is_shared)
    return left if is_done and stays and left != settled.after.synced_email else None


def _out_at(settled: Settled) -> str | None:
    """When the customer had opted out last."""
    both = (settled.before, settled.after)
    said = [each.consent_at for each in both if each.accepts_marketing is False and each.consent_at]
    return str(max(said)) if said else None
