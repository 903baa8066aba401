"""Verify: what we believe Brevo has, compared with what it has, page by page. Nothing is written here.

Customers who change meanwhile are left out: their contact was read before, or after, what we know of it.
Memory stays flat: of the addresses that were listed a temporary table keeps the hashes.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, TypeVar

from outboxd.backoff import Backoff
from outboxd.brevo.listing import Page
from outboxd.clock import from_text, to_text
from outboxd.errors import BlockedError, BrevoError
from outboxd.event import Outcome, Verdict
from outboxd.keys import address_key
from outboxd.verify.believed import Believed, at_addresses, everyone, owners
from outboxd.verify.comparison import Difference, Kind, Wishes, compare, missing, remaining

__all__ = ["Difference", "Kind", "Verification", "Wishes", "patiently"]

LISTED = "CREATE TEMP TABLE listed (address_key TEXT PRIMARY KEY) WITHOUT ROWID"

LIST = "INSERT OR IGNORE INTO temp.listed SELECT value FROM json_each(:keys)"

UNLISTED = """
SELECT value FROM json_each(:keys) WHERE value NOT IN (SELECT address_key FROM temp.listed)
"""

AGAIN = Backoff(max_attempts=5, first=timedelta(seconds=1), cap=timedelta(seconds=30), jitter=0.0)
"""How often, and after what time, what Brevo did not answer is asked again."""

_Told = TypeVar("_Told")


class Verification:
    """One look at all of Brevo's contacts. `connection` is one to our database, read-only, and its own.

    `listed`, `compared`, `in_flux` and `unknown` count the contacts that Brevo listed, our customers who
    were compared and those who were left out, and contacts that no event ever told of.
    """

    def __init__(
        self, connection: sqlite3.Connection, wishes: Wishes, *, clock: Callable[[], datetime]
    ) -> None:
        self.listed = self.compared = self.in_flux = self.unknown = 0
        self._connection = connection
        self._wishes = wishes
        self._clock = clock
        connection.execute("PRAGMA temp_store = FILE")
        connection.execute(LISTED)

    def differences(self, pages: Iterable[Page]) -> Iterator[tuple[Page | None, list[Difference]]]:
        """The differences on each page, and at the end (None) those of whom Brevo did not list."""
        begun_at = asked_at = to_text(self._clock())
        for page in pages:
            yield page, self._on_page(page, asked_at)
            asked_at = to_text(self._clock())
        for chunk in everyone(self._connection):
            yield None, self._unlisted(chunk, begun_at)

    def _on_page(self, page: Page, asked_at: str) -> list[Difference]:
        contacts = {address: contact for contact in page if (address := _address(contact))}
        fresh = self._not_listed({address_key(address): address for address in contacts})
        self._connection.execute(LIST, {"keys": json.dumps(list(fresh))})
        self.listed += len(page.contacts)
        self.unknown += sum(not _address(contact) for contact in page)
        ours = at_addresses(self._connection, fresh.values())
        found: list[Difference] = []
        for address, customers in ours.items():
            if not self._is_left_out(customers, asked_at):
                found += compare(customers, contacts[address], self._wishes)
        others = {key: address for key, address in fresh.items() if address not in ours}
        former = owners(self._connection, others)
        self.unknown += len(others.keys() - former.keys())
        for key, customers in former.items():
            gone = [
                customer for customer in customers if self._should_be_gone(customer, contacts[others[key]])
            ]
            if gone and not self._is_left_out(customers, asked_at):
                found.append(remaining(gone[0], others[key]))
        return found

    def _unlisted(self, customers: list[Believed], begun_at: str) -> list[Difference]:
        """Whose contacts are missing: of these customers, and of all who have the same ones."""
        keys = {address_key(each.address or ""): each.address for each in customers if each.is_alive}
        unlisted = self._not_listed(keys)
        former = owners(self._connection, unlisted)
        found: list[Difference] = []
        for address, sharers in at_addresses(self._connection, unlisted.values()).items():
            is_wanted = any(each.is_alive for each in sharers)
            if is_wanted and not self._is_left_out(sharers, begun_at):
                found += missing(sharers, former.get(address_key(address), ()))
        self._connection.execute(
            LIST, {"keys": json.dumps(list(unlisted))}
        )  # told once, however many have it
        return found

    def _not_listed(self, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the address keys that no page had so far."""
        rows = self._connection.execute(UNLISTED, {"keys": json.dumps(list(keys))})
        return {row[0]: keys[row[0]] for row in rows}

    def _is_left_out(self, customers: list[Believed], since: str) -> bool:
        """Whether somebody's contact may have changed since; they are counted."""
        is_left_out = any(customer.is_in_flux(since) for customer in customers)
        self.in_flux += len(customers) * is_left_out
        self.compared += len(customers) * (not is_left_out)
        return is_left_out

    def _should_be_gone(self, customer: Believed, contact: Mapping[str, Any]) -> bool:
        """Whether we removed them for good, and later than this contact was made: newer ones are not ours."""
        is_removed = customer.address is None and not customer.is_alive and customer.synced_at is not None
        if not is_removed or (self._wishes.deletes_softly and not customer.is_redacted):
            return False
        with suppress(ValueError):
            return from_text(str(contact.get("createdAt"))) < from_text(str(customer.synced_at))
        return False


def patiently(
    asked: Iterator[_Told | Outcome], *, sleep: Callable[[float], object], tell: Callable[[str], object]
) -> Iterator[_Told]:
    """What `asked` comes to, where asking on tries again: limits are waited out, failures a few times.

    Raises BrevoError when Brevo stays out of reach, and BlockedError when it refuses everybody.
    """
    failures = 0
    for told in asked:
        if not isinstance(told, Outcome):
            failures = 0
            yield told
            continue
        detail = told.detail or "Brevo gave no answer"
        if told.wait is not None:
            seconds = told.wait.total_seconds()
            tell(f"{detail}: going on in {seconds:.0f} s")
        elif told.verdict is Verdict.RETRY and failures + 1 < AGAIN.max_attempts:
            failures += 1
            seconds = AGAIN.delay(failures).total_seconds()
        else:
            error = BlockedError if told.verdict is Verdict.BLOCKED else BrevoError
            raise error(detail, hint="see: outboxd check")
        sleep(seconds)


def _address(contact: Mapping[str, Any]) -> str:
    """A contact's address; empty where it has none."""
    return str(contact.get("email") or "").strip().lower()
