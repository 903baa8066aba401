"""Whom a call is about, as far as its path, its body and the account tell.

Needed to hit one person's calls with a fault, and to see that no two calls about one contact overlap.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from outboxd.brevo.sandbox.account import Account
from outboxd.brevo.sandbox.contacts import Contact
from outboxd.brevo.sandbox.messages import Refusal, Request
from outboxd.brevo.sandbox.routes import segments

_TYPE_OF_KEY = {"email": "email_id", "id": "contact_id", "sms": "phone_id", "ext_id": "ext_id"}
_NO_PERSON = frozenset({"batch", "import", "attributes", "lists"})


class Subjects(NamedTuple):
    """`email` is the one address that the call is about, `names` everything that it calls its contacts,
    `keys` what two calls about the same contact have in common: addresses and contact ids."""

    email: str | None
    names: frozenset[str]
    keys: frozenset[str | int]


def of(account: Account, request: Request) -> Subjects:
    """The subjects of a request below /v3, before it is carried out."""
    direct = list(_named(request))
    listed = list(_listed(request))
    emails: dict[str, None] = {}
    keys: set[str | int] = set()
    for identifier, identifier_type in direct + listed:
        contact = _find(account, identifier, identifier_type)
        if contact:
            keys.add(contact.id)
        if email := contact.email if contact else _as_email(identifier):
            emails[email] = None
    alone = bool(direct) or len(emails) == 1
    return Subjects(
        next(iter(emails), None) if alone else None,
        frozenset(identifier.lower() for identifier, _ in direct + listed) | emails.keys(),
        frozenset(keys | emails.keys()),
    )


def _as_email(identifier: str) -> str | None:
    return identifier.lower() if "@" in identifier else None


def _find(account: Account, identifier: str, identifier_type: str | None) -> Contact | None:
    try:
        return account.find(identifier, identifier_type)
    except Refusal:
        return None


def _named(request: Request) -> Iterator[tuple[str, str | None]]:
    """Identifiers with their types: the path's, then the body's own."""
    parts = segments(request.path)
    if len(parts) == 2 and parts[0] == "contacts" and parts[1] not in _NO_PERSON:
        given = parse_qs(request.query).get("identifierType") if request.query else None
        yield parts[1], given[-1] if given else None
    if isinstance(request.document, dict):
        yield from _named_in(request.document)


def _listed(request: Request) -> Iterator[tuple[str, str | None]]:
    """Identifiers in the lists of a body: a batch, an import, the addresses for a list."""
    body = request.document if isinstance(request.document, dict) else {}
    for key in ("contacts", "jsonBody"):
        rows = body.get(key)
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict):
                yield from _named_in(row)
    emails = body.get("emails")
    for email in emails if isinstance(emails, list) else ():
        yield str(email), "email_id"


def _named_in(body: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    for key, identifier_type in _TYPE_OF_KEY.items():
        if isinstance(body.get(key), str | int):
            yield str(body[key]), identifier_type
    attributes = body.get("attributes")
    if isinstance(attributes, dict) and isinstance(attributes.get("EMAIL"), str):
        yield attributes["EMAIL"], "email_id"
