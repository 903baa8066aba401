"""Preview: what a backfill would come to, row by row, without writing to the outbox.

Each row is mapped and folded into its contact as the database has it by now, and after the rows before it:
what they made of their customers is kept in a temporary database, for they may be millions; so are those
who have the contact at an address that a row leads to, whichever shop they are of. What Brevo has
from elsewhere is not known here. Nothing is sent.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from outboxd import database, sources
from outboxd.admit import admission
from outboxd.backfill import EVENT, Entry
from outboxd.clock import from_text
from outboxd.draft import ADDRESSES, CONTACTS, SHARERS
from outboxd.errand import Plan, reason
from outboxd.errors import EventError
from outboxd.event import Attribute, Contact, Event, Nothing, Others, Remove, Unaddressed, Upsert
from outboxd.exports import Refusal
from outboxd.fold import fold
from outboxd.mapping import needs_document, statement
from outboxd.outbox import Admission, addresses, contacts, customers
from outboxd.outbox.rows import execute

LAST_ID = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outbox'"

MET = "CREATE TABLE met (email TEXT PRIMARY KEY) WITHOUT ROWID"

MEET = "INSERT OR IGNORE INTO met VALUES (:email)"

WRITTEN = """
SELECT idempotency_key FROM outbox WHERE idempotency_key IN (SELECT value FROM json_each(:keys))
"""


class Preview:
    """Takes entries as a writer would.

    `counts`: created, changed, left_alone, repeated (written before), would_die (written nevertheless).
    `details` say in how many contacts each attribute would be changed, and of what is left alone, and of the
    values left out, why.
    """

    kinds: tuple[str, ...] = ("created", "changed", "left_alone", "repeated", "would_die")

    def __init__(
        self,
        shop: sqlite3.Connection,
        draft: sqlite3.Connection,
        *,
        plan: Plan,
        catalogue: Mapping[str, Attribute] | None,
        source: str,
        now: datetime,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.details: dict[str, Counter[str]] = {
            kind: Counter() for kind in ("attributes", "reasons", "left_out")
        }
        self._shop = shop
        self._draft = draft
        self._plan = plan
        self._catalogue = catalogue
        self._policy = replace(plan.policy, attributes=catalogue or {})
        self._source = source
        self._now = now
        self._last_id = int(shop.execute(LAST_ID).fetchone()[0])

    @classmethod
    @contextmanager
    def of(cls, path: Path, **settings: Any) -> Iterator[Self]:
        """A preview of the outbox at `path`; `settings` are those of the class. The draft ends with it."""
        with ExitStack() as stack:
            directory = stack.enter_context(TemporaryDirectory(prefix="outboxd-"))
            shop = stack.enter_context(database.reading(path))
            database.check_revision(path, database.revision(shop))
            draft = Path(directory, "draft.db")
            database.migrate(draft)
            copy = stack.enter_context(closing(database.connect(draft)))
            copy.execute(MET)
            yield cls(shop, copy, **settings)

    def put(self, entries: Sequence[Entry]) -> Sequence[Refusal]:
        """Fold entries into their contacts; those that would be dead letters."""
        keys = json.dumps([entry.key for entry in entries])
        written = {row[0] for row in self._shop.execute(WRITTEN, {"keys": keys})}
        self.counts["repeated"] += sum(entry.key in written for entry in entries)
        events = [(self._event(entry), entry) for entry in entries if entry.key not in written]
        admissions = [admission(event, self._plan.reading) for event, _ in events]
        going_on = [each for each in admissions if each.outcome is None]
        doomed = []
        with database.immediate(self._draft):
            self._copy(going_on)
            owners = customers.of(self._draft, going_on)
            for event, entry in events:
                if event.id not in owners:
                    self._leave_alone(entry.reading.note or "nothing is to be done")
                elif told := self._fold(owners[event.id][0], event, entry):
                    doomed.append(Refusal(entry.number, told, is_written=True))
        self.counts["would_die"] += len(doomed)
        return doomed

    def _event(self, entry: Entry) -> Event:
        self._last_id += 1
        return Event(
            id=self._last_id,
            event=EVENT,
            payload=entry.payload,
            source=self._source,
            occurred_at=from_text(entry.occurred_at) if entry.occurred_at else None,
            created_at=self._now,
            attempts=1,
            is_backfill=True,
        )

    def _copy(self, admissions: Sequence[Admission]) -> None:
        """Into the draft whatever the outbox knows of these customers, unless it is there already."""
        ids = json.dumps([[each.event.source, each.customer_id] for each in admissions if each.customer_id])
        wanted = json.dumps([[each.event.source, key] for each in admissions for key in each.address_keys])
        known = [row[0] for row in self._shop.execute(customers.CUSTOMERS_BY_ID, {"wanted": ids})]
        known += [row[2] for row in self._shop.execute(addresses.CUSTOMERS_BY_ADDRESS, {"wanted": wanted})]
        self._put("contacts", CONTACTS, {"keys": json.dumps(known)})
        self._put("addresses", ADDRESSES, {"wanted": wanted})

    def _meet(self, email: str) -> None:
        """Into the draft whoever has the contact at an address: once, for they may be many."""
        if self._draft.execute(MEET, {"email": email}).rowcount:
            self._put("contacts", SHARERS, {"email": email})

    def _put(self, table: str, sql: str, values: Mapping[str, str]) -> None:
        rows = self._shop.execute(sql, values).fetchall()
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            self._draft.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)  # noqa: S608

    def _others(self, key: str, email: str) -> Others:
        self._meet(email)
        return contacts.others(lambda sql, values: self._draft.execute(sql, values).fetchall(), key, email)

    def _fold(self, key: str, event: Event, entry: Entry) -> str | None:
        """What becomes of one row; the reason if it would be a dead letter."""
        plan = self._plan
        document = sources.document(json.loads(entry.payload)) if needs_document(plan.rules) else None
        try:
            said = statement(
                event,
                entry.reading,
                plan.rules,
                document=document,
                catalogue=self._catalogue,
                region=plan.region,
            )
        except EventError as error:
            return reason(error)
        self.details["left_out"].update(said.left_out)
        draft = self._draft
        contact = contacts.load(draft, [key])[key]
        folded = fold(contact, [said], self._policy, others=partial(self._others, key))
        match folded.change:
            case Unaddressed():
                return f"no address is known for customer {key}"
            case Nothing(verdict, detail):
                self._leave_alone(f"{verdict}: {detail}")
            case Upsert() as change:
                self._count(contact, change)
            case Remove():
                self.counts["changed"] += 1
        execute(draft, contacts.save([folded.contact], self._now))
        if isinstance(folded.change, Upsert | Remove):
            self._meet(folded.change.email)
            execute(draft, contacts.overtake([(key, folded.change.email)]))
        execute(draft, addresses.remember([folded.contact]))
        return None

    def _count(self, contact: Contact, change: Upsert) -> None:
        if contact.synced_email is None:
            self.counts["created"] += 1
            return
        self.counts["changed"] += 1
        changes = self.details["attributes"]
        changes.update(change.attributes.keys())
        if change.known_as != change.email:
            changes["email"] += 1
        if change.email_blacklisted is not None:
            changes["emailBlacklisted"] += 1

    def _leave_alone(self, why: str) -> None:
        self.counts["left_alone"] += 1
        self.details["reasons"][why] += 1
