"""The state of one Brevo account and the rules its contacts live by.

Pure: no HTTP, no clock of its own (`now` comes in), not safe for threads (the server holds a lock).
Bodies are JSON objects as a client sent them; whatever breaks a rule raises Refusal and changes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from outboxd.brevo.sandbox.contacts import Contact, Directory
from outboxd.brevo.sandbox.messages import Refusal, absent, invalid, number
from outboxd.brevo.sandbox.values import STANDARD_ATTRIBUTES, Attribute, Value, accept, address, phone

Body = Mapping[str, Any]

_KIND_OF_TYPE = {
    "email_id": "email",
    "ext_id": "EXT_ID",
    "phone_id": "SMS",
    "whatsapp_id": "WHATSAPP",
    "landline_number_id": "LANDLINE_NUMBER",
}
_SHAPES: Mapping[str, type] = {
    "email": str,
    "ext_id": str,
    "sms": str,
    "id": int,
    "attributes": dict,
    "listIds": list,
    "unlinkListIds": list,
    "smtpBlacklistSender": list,
    "emailBlacklisted": bool,
    "smsBlacklisted": bool,
    "updateEnabled": bool,
}


@dataclass(frozen=True, slots=True)
class ContactList:
    """A list that contacts can be on."""

    id: int
    name: str
    created_at: datetime
    folder_id: int = 1


class Account:
    """One account: its contacts, its attributes, its lists, and its owner's address."""

    def __init__(
        self,
        *,
        now: datetime,
        attributes: Iterable[Attribute] = (),
        lists: Iterable[int] = range(1, 21),
        owner: str = "owner@sandbox.example",
        clash_status: int = 400,
        clash_code: str = "duplicate_parameter",
    ) -> None:
        self.owner = owner.lower()
        self.contacts = Directory(clash_status=clash_status, clash_code=clash_code)
        self.attributes = {**STANDARD_ATTRIBUTES, **{attribute.name: attribute for attribute in attributes}}
        self.lists = {each: ContactList(each, f"List {each}", now) for each in lists}

    def find(self, identifier: str, identifier_type: str | None = None) -> Contact | None:
        """The contact that a path means; untyped, all digits are a contact id, else it is an address."""
        if identifier_type is None:
            identifier_type = "contact_id" if identifier.isdigit() else "email_id"
        if identifier_type == "contact_id":
            contact_id = number(identifier)
            return None if contact_id is None else self.contacts.by_id(contact_id)
        kind = _KIND_OF_TYPE.get(identifier_type)
        if kind is None:
            raise invalid("identifierType is not valid")
        if kind == "email":
            return self.contacts.find(kind, identifier.lower())
        return self.contacts.find(kind, identifier if kind == "EXT_ID" else _bare(identifier))

    def get(self, identifier: str, identifier_type: str | None) -> Contact:
        """The contact that a path means, or 404."""
        contact = self.find(identifier, identifier_type)
        if contact is None:
            raise absent("Contact does not exist")
        return contact

    def save(self, body: Body, now: datetime) -> int | None:
        """POST /contacts: the new contact's id, or None when `updateEnabled` made it an update."""
        _check(body)
        fresh = Contact(0, now, now, address(body["email"]) if "email" in body else None)
        fresh = self._changed(fresh, body, now)
        identifiers = fresh.identifiers()
        key = next((kind for kind in ("email", "SMS", "EXT_ID") if kind in identifiers), None)
        if key is None:
            raise Refusal(400, "missing_parameter", "One of email, attributes.SMS or ext_id is required")
        existing = self.contacts.find(key, identifiers[key])
        if existing and body.get("updateEnabled", False):
            self.contacts.put(self._changed(existing, body, now))
            return None
        created = replace(fresh, id=self.contacts.next_id())
        self.contacts.put(created)
        return created.id

    def update(self, contact: Contact, body: Body, now: datetime) -> None:
        """PUT /contacts/{identifier}: a new address goes in `attributes.EMAIL`."""
        _check(body)
        self.contacts.put(self._changed(self._readdressed(contact, body), body, now))

    def update_all(self, items: Sequence[Body], now: datetime) -> None:
        """POST /contacts/batch: every one of them, or none."""
        found = [self._batched(item) for item in items]
        missing = [str(index) for index, contact in enumerate(found) if contact is None]
        if missing:
            raise absent(f"No contact found for indexes {','.join(missing)}")
        done: list[Contact] = []
        try:
            for item, contact in zip(items, found, strict=True):
                assert contact is not None  # noqa: S101 - the indexes above are those of the absent ones
                former = self.contacts.by_id(contact.id) or contact  # an earlier item may have changed it
                self.update(former, item, now)
                done.append(former)
        except Refusal:
            for former in reversed(done):
                self.contacts.put(former)
            raise

    def delete(self, identifier: str, identifier_type: str | None) -> None:
        """DELETE /contacts/{identifier}; the owner of the account cannot be deleted."""
        contact = self.find(identifier, identifier_type)
        if self.owner == (contact.email if contact else identifier.lower()):
            raise Refusal(
                405, "method_not_allowed", "You're not allowed to delete registered email contact with Brevo"
            )
        self.contacts.remove(self.get(identifier, identifier_type))

    def unsubscribe(self, contact: Contact, now: datetime) -> None:
        """A person follows the link in a mail: nothing that the shop hears of."""
        self.contacts.put(replace(contact, email_blacklisted=True, modified_at=now))

    def merged(
        self, current: Mapping[str, Value], sent: Mapping[str, object], *, erasing: bool = False
    ) -> dict[str, Value]:
        """Attributes after a change: unknown names and wrong types are dropped, `""` clears text and phone.

        With `erasing` an empty value clears an attribute of any type, as an import can ask for.
        """
        merged = dict(current)
        for name, value in sent.items():
            attribute = self.attributes.get(name)  # capitals matter
            if attribute is None:
                continue
            accepted = "" if erasing and value in ("", None) else accept(attribute, value)
            if accepted == "":
                merged.pop(name, None)
            elif accepted is not None:
                merged[name] = accepted
        return merged

    def known_lists(self, list_ids: Sequence[object]) -> list[int]:
        """The ids, when every one is that of a list."""
        known = [each for each in list_ids if type(each) is int and each in self.lists]
        if len(known) != len(list_ids):
            raise invalid("List ID does not exist")
        return known

    def _changed(self, contact: Contact, body: Body, now: datetime) -> Contact:
        sent = body.get("attributes", {})
        if "ext_id" in body:
            sent = {**sent, "EXT_ID": body["ext_id"]}
        joined = dict.fromkeys([*contact.list_ids, *self.known_lists(body.get("listIds", ()))])
        left = self.known_lists(body.get("unlinkListIds", ()))
        return replace(
            contact,
            attributes=self.merged(contact.attributes, sent),
            list_ids=tuple(each for each in joined if each not in left),
            email_blacklisted=body.get("emailBlacklisted", contact.email_blacklisted),
            sms_blacklisted=body.get("smsBlacklisted", contact.sms_blacklisted),
            modified_at=now,
        )

    def _readdressed(self, contact: Contact, body: Body) -> Contact:
        """The contact under a new address, which nobody has unsubscribed: the block is gone.

        Only `emailBlacklisted: true` in the same request keeps it, and that is applied after this.
        """
        wanted = body.get("attributes", {}).get("EMAIL")
        if not isinstance(wanted, str) or (email := address(wanted)) == contact.email:
            return contact
        return replace(contact, email=email, email_blacklisted=False)

    def _batched(self, item: Body) -> Contact | None:
        _check(item)
        if len({"email", "id", "sms"} & item.keys()) != 1:
            raise invalid("Pass exactly one of email, id or sms for each contact")
        if "email" in item:
            return self.find(item["email"], "email_id")
        return self.find(item["sms"], "phone_id") if "sms" in item else self.contacts.by_id(item["id"])


def _check(body: Body) -> None:
    """Refuse known parameters of the wrong type; a null is the wrong type for each of them."""
    for name, wanted in _SHAPES.items():
        if name in body and (
            not isinstance(body[name], wanted) or (wanted is int and isinstance(body[name], bool))
        ):
            raise invalid(f"{name} is not valid in params")


def _bare(text: str) -> str:
    """A telephone number as it is stored; what is none is looked up as it stands, and not found."""
    try:
        return phone(text)
    except Refusal:
        return text
