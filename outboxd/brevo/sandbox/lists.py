"""Lists of contacts: showing them, putting contacts on them, taking contacts off."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from outboxd.brevo.sandbox.account import Account, Body, ContactList
from outboxd.brevo.sandbox.contacts import Contact
from outboxd.brevo.sandbox.messages import Refusal, absent, invalid, number
from outboxd.clock import to_text

_LARGEST_CALL = 150
_TYPES = {"emails": "email_id", "ids": "contact_id", "extIds": "ext_id"}


def get(account: Account, list_id: str) -> ContactList:
    """The list that a path means, or 404."""
    found = account.lists.get(number(list_id) or 0)
    if found is None:
        raise absent("List ID does not exist")
    return found


def shown(account: Account, chosen: ContactList) -> dict[str, Any]:
    """The list as GET /contacts/lists shows it."""
    members = list(_members(account, chosen.id))
    blocked = sum(contact.email_blacklisted for contact in members)
    return {
        "id": chosen.id,
        "name": chosen.name,
        "folderId": chosen.folder_id,
        "uniqueSubscribers": len(members),
        "totalSubscribers": len(members) - blocked,
        "totalBlacklisted": blocked,
    }


def shown_alone(account: Account, chosen: ContactList) -> dict[str, Any]:
    """The list as GET /contacts/lists/{id} shows it."""
    more = {"createdAt": to_text(chosen.created_at), "dynamicList": False, "campaignStats": []}
    return shown(account, chosen) | more


def add(account: Account, chosen: ContactList, body: Body, now: datetime) -> dict[str, Any]:
    """Put existing contacts on the list; those who are on it already, or nowhere, are failures."""
    return _move(account, chosen, body, now, joining=True)


def remove(account: Account, chosen: ContactList, body: Body, now: datetime) -> dict[str, Any]:
    """Take contacts off the list; those who are not on it are failures."""
    return _move(account, chosen, body, now, joining=False)


def empty(account: Account, chosen: ContactList, now: datetime) -> dict[str, Any]:
    """Take everybody off the list: what the process started by `{"all": true}` does."""
    for contact in list(_members(account, chosen.id)):
        _put(account, contact, chosen.id, now, joining=False)
    return {}


def size(account: Account, chosen: ContactList) -> int:
    """How many contacts are on the list."""
    return sum(1 for _ in _members(account, chosen.id))


def _move(
    account: Account, chosen: ContactList, body: Body, now: datetime, *, joining: bool
) -> dict[str, Any]:
    names = [name for name in _TYPES if name in body]
    wanted = body[names[0]] if len(names) == 1 else None
    if not isinstance(wanted, list) or not 1 <= len(wanted) <= _LARGEST_CALL:
        raise invalid("Pass one of emails, ids or extIds, with 1 to 150 of them")
    success: list[object] = []
    failure: list[object] = []
    for identifier in wanted:
        contact = account.find(str(identifier), _TYPES[names[0]])
        if contact is None or (chosen.id in contact.list_ids) == joining:
            failure.append(identifier)
        else:
            _put(account, contact, chosen.id, now, joining=joining)
            success.append(identifier)
    if not success:
        done = "already in list" if joining else "already removed from list"
        raise Refusal(400, "invalid_parameter", f"Contact {done} and/or does not exist")
    return {"contacts": {"success": success, "failure": failure}}


def _put(account: Account, contact: Contact, list_id: int, now: datetime, *, joining: bool) -> None:
    others = tuple(each for each in contact.list_ids if each != list_id)
    list_ids = (*others, list_id) if joining else others
    account.contacts.put(replace(contact, list_ids=list_ids, modified_at=now))


def _members(account: Account, list_id: int) -> Iterable[Contact]:
    return (contact for contact in account.contacts if list_id in contact.list_ids)
