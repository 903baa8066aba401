"""Importing many contacts at once: rows that take effect later, some of them not at all.

Where an import differs from single calls is what makes it treacherous: booleans are lost, flags on a row
mean nothing, a row that clashes is left out and merely counted, and rows written down a while ago overwrite
what single calls have changed since.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from outboxd.brevo.sandbox.account import Account, Body, ContactList
from outboxd.brevo.sandbox.contacts import Contact
from outboxd.brevo.sandbox.messages import Refusal, invalid
from outboxd.brevo.sandbox.values import PHONES, address, from_cell, phone

LARGEST_IMPORT = 10_000_000  # bytes

_COUNTED_AS = {
    "email": "duplicate_email_id",
    "EXT_ID": "duplicate_ext_id",
    "SMS": "duplicate_phone_id",
    "WHATSAPP": "duplicate_whatsapp_id",
    "LANDLINE_NUMBER": "duplicate_landline_number_id",
}


@dataclass(frozen=True, slots=True)
class Import:
    """One accepted import. A row is `{"email": …, "attributes": {…}}`."""

    account: Account
    rows: Sequence[Body]
    list_ids: tuple[int, ...]
    updates: bool
    erases: bool
    blocks_email: bool
    blocks_sms: bool

    def carry_out(self, now: datetime) -> dict[str, Any]:
        """Apply the rows; returns the `info` of the process, where a null means none."""
        left_out: Counter[str] = Counter()
        seen: set[str] = set()
        for row in self.rows:
            reasons = self._apply(row, seen, now)
            left_out.update(reasons)
        counts = {name: left_out[name] or None for name in _COUNTED_AS.values()}
        invalid_emails = left_out["invalid_emails"] or None
        return {"import": {"invalid_emails": invalid_emails, "duplicate_contact_id": None, **counts}}

    def _apply(self, row: Body, seen: set[str], now: datetime) -> list[str]:
        """Take one row; returns what kept it out, which is nothing for a row that was taken."""
        try:
            email = address(str(row.get("email", "")))
        except Refusal:
            return ["invalid_emails"]
        if email in seen:
            return [_COUNTED_AS["email"]]
        seen.add(email)
        known = self.account.contacts
        existing = known.find("email", email)
        contact = existing or Contact(known.next_id(), now, now, email)
        if existing is None or self.updates:
            contact = replace(
                contact,
                attributes=self.account.merged(contact.attributes, self._sent(row), erasing=self.erases),
                email_blacklisted=contact.email_blacklisted or self.blocks_email,
                sms_blacklisted=contact.sms_blacklisted or self.blocks_sms,
            )
        list_ids = tuple(dict.fromkeys([*contact.list_ids, *self.list_ids]))
        try:
            known.put(replace(contact, list_ids=list_ids, modified_at=now))
        except Refusal as refusal:
            taken = (refusal.metadata or {}).get("duplicate_identifiers")
            return [_COUNTED_AS[kind] for kind in taken] if isinstance(taken, list) else []
        return []

    def _sent(self, row: Body) -> dict[str, object]:
        """The attributes of a row without what an import loses: booleans, bad numbers, empty values."""
        attributes = row.get("attributes")
        if not isinstance(attributes, Mapping):
            return {}
        return {
            name: value
            for name, value in attributes.items()
            if not isinstance(value, bool)
            and (self.erases or value not in ("", None))
            and not (name in PHONES and value and not _is_phone(value))
        }


def accepted(account: Account, body: Body, size: int, now: datetime) -> Import:
    """Read the body of POST /contacts/import, `size` bytes long, or refuse it."""
    if size > LARGEST_IMPORT:
        raise Refusal(400, "out_of_range", "Import is larger than 10 MB")
    if "fileUrl" in body:
        raise invalid("fileUrl is not fetched by the sandbox, send jsonBody or fileBody")
    rows = body["jsonBody"] if "jsonBody" in body else _rows(account, body.get("fileBody"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise invalid("jsonBody is not valid in params")
    flags = {
        name: body.get(name, default)
        for name, default in (
            ("updateExistingContacts", True),
            ("emptyContactsAttributes", False),
            ("emailBlacklist", False),
            ("smsBlacklist", False),
            ("disableNotification", False),
        )
    }
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise invalid(f"{name} is not valid in params")
    return Import(
        account,
        rows,
        _lists(account, body, now),
        updates=flags["updateExistingContacts"],
        erases=flags["emptyContactsAttributes"],
        blocks_email=flags["emailBlacklist"],
        blocks_sms=flags["smsBlacklist"],
    )


def _lists(account: Account, body: Body, now: datetime) -> tuple[int, ...]:
    list_ids = body.get("listIds")
    if isinstance(list_ids, list) and list_ids:
        return tuple(account.known_lists(list_ids))
    new = body.get("newList")
    if not isinstance(new, dict) or not isinstance(new.get("listName"), str):
        raise Refusal(400, "missing_parameter", "listIds or newList is required")
    if type(new.get("folderId")) is not int:
        raise Refusal(400, "missing_parameter", "newList.folderId is required")
    list_id = max(account.lists, default=0) + 1
    account.lists[list_id] = ContactList(list_id, new["listName"], now, new["folderId"])
    return (list_id,)


def _rows(account: Account, content: object) -> list[Body]:
    """The rows of a CSV text: semicolons, a first line with the attributes' names, one of them EMAIL."""
    if not isinstance(content, str):
        raise Refusal(400, "missing_parameter", "One of jsonBody, fileBody or fileUrl is required")
    rows: list[Body] = []
    for line in csv.DictReader(io.StringIO(content, newline=""), delimiter=";"):
        cells = {name.strip().upper(): cell or "" for name, cell in line.items() if isinstance(name, str)}
        email = cells.pop("EMAIL", "")
        known = {
            name: from_cell(account.attributes[name], cells[name])
            for name in cells.keys() & account.attributes
        }
        rows.append({"email": email, "attributes": known})
    return rows


def _is_phone(value: object) -> bool:
    try:
        return bool(phone(str(value)))
    except Refusal:
        return False
