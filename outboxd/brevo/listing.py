"""The listing: every contact that Brevo has, page by page.

It knows GET /contacts and how pages shift while others write; what is looked for in them is not its business.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from outboxd.brevo import answers
from outboxd.brevo.client import Brevo
from outboxd.clock import to_text
from outboxd.event import Outcome, Verdict

LIMIT = 1000
"""Contacts on a page: as many as Brevo allows."""

LARGEST = 16 << 20
"""Bytes of a page that are read."""

LONGER = 50.0
"""Seconds that a page may take beyond other calls."""


@dataclass(frozen=True, slots=True)
class Page:
    """Contacts as Brevo shows them, and how many it says there are on all pages together."""

    contacts: Sequence[Mapping[str, Any]]
    count: int

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.contacts)


def pages(brevo: Brevo, *, modified_since: datetime | None = None) -> Iterator[Page | Outcome]:
    """The contacts, oldest first; of all, or of those made or changed since then.

    An Outcome says why a page did not come; whoever asks on has the same page tried again. A contact that
    is there all the while is on some page, whatever others make and delete meanwhile; it may be on two.
    """
    offset, known = 0, frozenset[Any]()
    while True:
        answer = brevo.call("GET", _path(offset, modified_since), longer=LONGER, largest=LARGEST)
        contacts = answer.body.get("contacts")
        if not answer.is_success:
            yield answers.outcome(answer)
            continue
        if not isinstance(contacts, list) or not all(isinstance(c, dict) and "id" in c for c in contacts):
            yield Outcome(Verdict.RETRY, call=answer.call, detail="Brevo did not list its contacts")
            continue
        there = frozenset(contact["id"] for contact in contacts)
        if offset and not there & known:
            offset = max(0, offset - LIMIT + 1)
            continue
        news = [contact for contact in contacts if contact["id"] not in known]
        count = answer.body.get("count")
        yield Page(news, count if isinstance(count, int) else offset + len(contacts))
        if len(contacts) < LIMIT:
            return
        # The next page begins with the last contact of this one: if it does not, contacts that came before
        # are gone, and those that moved up into their places must not be missed.
        offset, known = offset + LIMIT - 1, there


def _path(offset: int, modified_since: datetime | None) -> str:
    query: dict[str, Any] = {"limit": LIMIT, "offset": offset, "sort": "asc"}
    if modified_since is not None:
        query["modifiedSince"] = to_text(modified_since)
    return f"/contacts?{urlencode(query)}"
