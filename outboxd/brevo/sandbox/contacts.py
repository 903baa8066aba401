"""Who is in the account: contacts, and the identifiers that no two of them may share.

A contact is a frozen value; a change puts a new one in the place of the old. That makes undoing half a
batch a matter of putting the old ones back.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from outboxd.brevo.sandbox.messages import Refusal
from outboxd.brevo.sandbox.values import Value
from outboxd.clock import to_text

UNIQUE_ATTRIBUTES = ("SMS", "WHATSAPP", "LANDLINE_NUMBER", "EXT_ID")


@dataclass(frozen=True, slots=True)
class Contact:
    """One contact. `email` is in lower case; telephone numbers and EXT_ID live among the attributes."""

    id: int
    created_at: datetime
    modified_at: datetime
    email: str | None = None
    attributes: Mapping[str, Value] = field(default_factory=dict)
    list_ids: tuple[int, ...] = ()
    email_blacklisted: bool = False
    sms_blacklisted: bool = False

    def identifiers(self) -> dict[str, str]:
        """What must be unique in the account: `{"email": …, "SMS": …}`, by the names Brevo's errors use."""
        found = {} if self.email is None else {"email": self.email}
        for name in UNIQUE_ATTRIBUTES:
            value = self.attributes.get(name)
            if isinstance(value, str):
                found[name] = value
        return found

    def shown(self) -> dict[str, Any]:
        """The contact as GET shows it; one that has no address shows no `email`."""
        return {
            **({} if self.email is None else {"email": self.email}),
            "id": self.id,
            "emailBlacklisted": self.email_blacklisted,
            "smsBlacklisted": self.sms_blacklisted,
            "createdAt": to_text(self.created_at),
            "modifiedAt": to_text(self.modified_at),
            "listIds": list(self.list_ids),
            "listUnsubscribed": [],
            "attributes": dict(self.attributes),
        }


@dataclass(frozen=True, slots=True)
class Since:
    """Contacts made, or made or changed, after a time; None: whenever."""

    created: datetime | None = None
    modified: datetime | None = None

    def takes(self, contact: Contact) -> bool:
        """Whether the contact is one of them."""
        return (self.created is None or contact.created_at > self.created) and (
            self.modified is None or contact.modified_at > self.modified
        )


EVER = Since()


class Directory:
    """All contacts of the account, found by id or by any unique identifier. Ids are never reused."""

    def __init__(self, *, clash_status: int = 400, clash_code: str = "duplicate_parameter") -> None:
        self._clash = (clash_status, clash_code)
        self._contacts: dict[int, Contact] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._contacts)

    def __iter__(self) -> Iterator[Contact]:
        """Contacts in the order of their creation."""
        return iter(self._contacts.values())

    def count(self, since: Since) -> int:
        """How many contacts there are of those."""
        return len(self) if since == EVER else sum(map(since.takes, self))

    def page(self, limit: int, offset: int, *, oldest_first: bool, since: Since) -> list[Contact]:
        """Some of those contacts, in the order of their creation or the other way round."""
        every = self._contacts.values()
        ordered = iter(every) if oldest_first else reversed(every)
        found = ordered if since == EVER else filter(since.takes, ordered)
        return list(islice(found, offset, offset + limit))

    def next_id(self) -> int:
        """An id for a contact about to be created."""
        self._last_id += 1
        return self._last_id

    def by_id(self, contact_id: int) -> Contact | None:
        return self._contacts.get(contact_id)

    def find(self, kind: str, value: str) -> Contact | None:
        """The contact with that identifier; `kind` is a key of `Contact.identifiers`."""
        contact_id = self._ids.get((kind, value))
        return None if contact_id is None else self._contacts[contact_id]

    def put(self, contact: Contact) -> None:
        """Store a new contact, or a new state of one; refuses identifiers that another contact has."""
        identifiers = contact.identifiers()
        taken = [
            kind
            for kind, value in identifiers.items()
            if self._ids.get((kind, value), contact.id) != contact.id
        ]
        former = self._contacts.get(contact.id)
        if taken:
            status, code = self._clash
            raise Refusal(
                status,
                code,
                f"Unable to {'update' if former else 'create'} contact, {' or '.join(taken)} "
                f"{'is' if len(taken) == 1 else 'are'} already associated with another Contact",
                {"duplicate_identifiers": taken},
            )
        if former:
            self._forget(former)
        self._contacts[contact.id] = contact
        for identifier in identifiers.items():
            self._ids[identifier] = contact.id

    def remove(self, contact: Contact) -> None:
        self._forget(self._contacts.pop(contact.id))

    def _forget(self, contact: Contact) -> None:
        for identifier in contact.identifiers().items():
            del self._ids[identifier]
