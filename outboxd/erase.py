"""Erase: one person leaves, in Brevo and here, and the file's own bytes are asked whether that is so.

A redaction is written and delivered at once, out of turn; then all that is kept of the person goes but a
tombstone, which keeps late events out. Nothing personal is told: customers by their keys, events by their
ids, texts by their kind. The statements are `person`'s and the outbox's, the bytes are `search`'s business.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic, sleep

from outboxd import database, intake, mapping, person, search, sources
from outboxd.admit import admit_fresh
from outboxd.delivery import Delivery
from outboxd.errand import Plan
from outboxd.errors import EX_TEMPORARY, EventError, OutboxdError
from outboxd.event import Claim, Kind, Outcome, Reading, Remove, Verdict
from outboxd.fold.removal import STAYS
from outboxd.outbox import Outbox
from outboxd.outbox.pruning import Pruning
from outboxd.payload import parse
from outboxd.person import Person, UnknownPersonError
from outboxd.takeover import addresses
from outboxd.topics import REDACTED
from outboxd.verify.believed import at_addresses
from outboxd.verify.comparison import missing
from outboxd.verify.repair import Repair

PATIENCE = 30.0
"""Seconds that another's delivery of the customer, or a reader of the log, is waited for."""

LOOK = 0.05
"""Seconds between two looks."""

LEAST = 4
"""Characters of a text that is searched for: a shorter one stands everywhere."""

KINDS = {"firstName": "name", "lastName": "name", "phone": "phone"}
"""What of a payload names its customer, besides the address."""

REMOVED = "removed"
"""What became of a contact of which Brevo says no more than that it is gone."""

NOBODY = ""
"""No customer's key: everybody is another one."""

UNMISTAKABLE = frozenset({"address", "phone"})
"""What only one person has. A name others may have, too."""


class PutOffError(OutboxdError):
    """The erasure could not be finished now. What was written of it stays, and the daemon goes on with it."""

    exit_code = EX_TEMPORARY


@dataclass(frozen=True, slots=True)
class Known:
    """Whoever is meant: their customers, their events' status by id, and what they are known by.

    `texts` are personal; each has its kind: address, phone or name. `mentions` are the ids of other
    customers' events in which an address or a phone of theirs stands.
    """

    persons: Sequence[Person]
    events: Mapping[int, str]
    mentions: Sequence[int]
    texts: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was done, and what the bytes say.

    `told` is what became of the contact in Brevo, by customer key. `searched` is how many texts of each kind
    the bytes were searched for, and `left` how often any of them was still there; `shared` are those that
    others have too, for which nothing can be proved. `was_rewritten`: the whole file, to be rid of traces.
    """

    told: Mapping[str, str]
    events: int
    mentions: Sequence[int]
    searched: Mapping[str, int]
    shared: Mapping[str, int]
    left: int
    was_rewritten: bool

    @property
    def is_complete(self) -> bool:
        """Whether nothing that names the person is left anywhere in the file."""
        return not self.left and not self.mentions


class Eraser:
    """Erases from `outbox`, and from Brevo through `delivery`; `lease` is how long that may take."""

    def __init__(
        self,
        outbox: Outbox,
        delivery: Delivery,
        plan: Plan,
        *,
        clock: Callable[[], datetime],
        lease: timedelta,
    ) -> None:
        self._outbox = outbox
        self._delivery = delivery
        self._plan = plan
        self._clock = clock
        self._lease = lease

    def known(self, whom: str) -> Known:
        """What would be erased: of whoever has or had the address `whom`, or has that id.

        Raises UnknownPersonError for an id that nobody has, or customers of several shops, and for what is no
        address.
        """
        with database.reading(self._outbox.path) as connection:
            persons = person.find(connection, whom)
            texts = {address: "address" for each in persons for address in each.addresses}
            if "@" in whom:
                texts[whom.strip()] = "address"
            events: dict[int, str] = {}
            for each in persons:
                events |= person.events(connection, each, besides=REDACTED)
            for event_id in events:
                if kept := connection.execute(person.PAYLOAD, {"id": event_id}).fetchone():  # not pruned yet
                    texts |= self._texts(*kept)
            found = _mentions(connection, texts, UNMISTAKABLE)
        # what was never anybody's, and names the person, is the person's
        events |= {each.event_id: each.status for each in found if each.is_nobodys}
        mentions = sorted({each.event_id for each in found} - events.keys())
        if not persons and not events and _address(whom) is None:
            raise UnknownPersonError("nobody here has this address, and it is not a valid one")
        return Known(persons, events, mentions, texts)

    def erase(self, whom: str) -> Erasure:
        """Erase them. Raises PutOffError if Brevo, or another process, does not let that happen now."""
        self._admit()
        known = self.known(whom)
        unknown = Person("", self._outbox.default_source, None)
        told = dict(self._redact(each, whom) for each in known.persons or [unknown])
        with database.reading(self._outbox.path) as connection:
            late = [person.events(connection, each, besides=REDACTED) for each in known.persons]
        erased = sorted(known.events.keys() | {event_id for events in late for event_id in events})
        self._outbox.erasing.forget(erased)
        for customer_key in told:
            self._outbox.erasing.bury(customer_key)
        address = _address(whom)
        if address is not None and self._remove(address):
            told = dict.fromkeys(told, REMOVED)
        return self._proved(known, told, len(erased))

    def _admit(self) -> None:
        """Of the new events some may be the person's."""
        admit_fresh(self._outbox, self._plan.reading, self._clock)

    def _redact(self, whose: Person, whom: str) -> tuple[str, str]:
        """Have the customer redacted now: their key, and what became of the contact in Brevo."""
        body = {"id": whose.customer_id} if whose.customer_id else {}
        if "@" in whom:
            body["email"] = whom
        elif not body:
            body["email"] = whose.addresses[0]
        row = intake.checked(REDACTED, body, source=whose.source)
        [event_id] = intake.write(self._outbox.path, [row], self._clock)
        self._admit()
        give_up = monotonic() + PATIENCE
        while True:
            with database.reading(self._outbox.path) as connection:
                status, key, error = connection.execute(person.STATUS, {"id": event_id}).fetchone()
                is_redacted, call, detail = connection.execute(
                    person.REDACTION, {"key": key, "id": event_id}
                ).fetchone() or (0, None, None)
            if status != "pending":
                break
            claim = self._outbox.erasing.claim(key, self._clock(), lease=self._lease)
            if claim is not None:
                self._carry(claim)
            elif monotonic() > give_up:
                raise PutOffError(
                    f"another process delivers customer {key}, or the address, just now or in an import",
                    hint="the redaction is written: run the same again once it is delivered",
                )
            else:
                sleep(LOOK)
        if status == "dead":
            raise OutboxdError(f"customer {key} is not erased: {error}", hint=f"see: outboxd show {event_id}")
        if not is_redacted:
            raise OutboxdError(f"the shop has newer news of customer {key}", hint="run the same again")
        stays = call is not None and not call.startswith("DELETE")
        return key, STAYS if stays else str(detail or REMOVED)

    def _remove(self, address: str) -> bool:
        """Take out whatever contact Brevo has at the address from elsewhere, of which no redaction knows."""
        if self._outbox.others(NOBODY, address).are_alive:
            return False
        outcome = self._delivery.remove(address)
        _expect_told(outcome, hint="run the same again")
        if outcome.verdict is Verdict.REFUSED:
            raise OutboxdError(f"the contact in Brevo is not erased: {outcome.detail}")
        self._tell_again(address, NOBODY)
        return outcome.detail is None

    def _carry(self, claim: Claim) -> None:
        result = self._delivery.carry(claim)
        for each in result.settled:
            if isinstance(each.change, Remove):
                self._tell_again(each.change.email, claim.contact.customer_key)
        if result.is_redacted:
            self._outbox.purge(claim.contact.customer_key)
        self._outbox.record([result], self._clock())
        self._delivery.end(result)
        for outcome in result.outcomes.values():
            _expect_told(
                outcome, hint="the redaction is written, the daemon tries again; then run the same again"
            )

    def _tell_again(self, address: str, customer_key: str) -> None:
        """The contact at the address was removed. By then it may have been that of another customer, of whom
        a daemon had just told Brevo.
        """
        now, reading = self._clock(), self._plan.reading
        met = [
            each
            for each in self._outbox.leases.under_way()
            if each.contact.customer_key != customer_key and address in addresses(each, reading)
        ]
        self._outbox.erasing.lose(met, now, lease=self._lease)
        with database.reading(self._outbox.path) as connection:
            there = at_addresses(connection, [address]).get(address, [])
            others = [each for each in there if each.customer_key != customer_key]
            Repair(self._outbox, connection, reading).mend(missing(others), now)

    def _texts(self, event: str, payload: str | bytes, source: str | None) -> dict[str, str]:
        """What an event names its customer by, and its kind."""
        text = database.decoded(payload) if isinstance(payload, bytes) else payload
        try:
            reading = sources.read(
                source or self._outbox.default_source, event, parse(text), self._plan.reading
            )
        except EventError:
            return {}
        named = {each: "address" for each in (reading.former_email, reading.email) if each}
        said = {reading.fields.get(name): kind for name, kind in KINDS.items()}
        return named | {value: kind for value, kind in said.items() if isinstance(value, str)}

    def _proved(self, known: Known, told: Mapping[str, str], events: int) -> Erasure:
        """Wipe what is free and search the bytes; if traces are left, write the file anew and look again."""
        texts = {text: kind for text, kind in known.texts.items() if len(text) >= LEAST}
        files = [self._outbox.path, Path(database.log(self._outbox.path))]
        with closing(Pruning(self._outbox.path)) as pruning:
            while pruning.shrink(spare=0):
                pass
            _cut_log(pruning)
            with database.reading(self._outbox.path) as connection:
                found = _mentions(connection, texts, UNMISTAKABLE)
                shared = [text for text in texts if _is_in_rows(connection, text)]
            own = [text for text in texts if text not in shared]
            left = sum(search.occurrences(files, own))
            if was_rewritten := bool(left):
                pruning.rewrite()
                _cut_log(pruning)
                left = sum(search.occurrences(files, own))
        return Erasure(
            told=told,
            events=events,
            mentions=sorted({each.event_id for each in found}),
            searched=Counter(texts[text] for text in own),
            shared=Counter(texts[text] for text in shared),
            left=left,
            was_rewritten=was_rewritten,
        )


def _address(whom: str) -> str | None:
    """The address as Brevo is told it; None for what is no valid one."""
    return mapping.address(Reading(Kind.REDACTED, None, whom))


def _expect_told(outcome: Outcome, *, hint: str) -> None:
    if outcome.verdict in (Verdict.RETRY, Verdict.BLOCKED):
        raise PutOffError(f"Brevo could not be told: {outcome.detail}", hint=hint)


def _mentions(
    connection: sqlite3.Connection, texts: Mapping[str, str], kinds: Iterable[str]
) -> list[person.Mention]:
    """The events in which a text of these kinds stands."""
    wanted = [text for text, kind in texts.items() if kind in kinds and len(text) >= LEAST]
    return [each for text in wanted for each in person.holding(connection, text)]


def _is_in_rows(connection: sqlite3.Connection, text: str) -> bool:
    """Whether somebody else is known by the text, or an event of theirs holds it."""
    return any(True for _ in person.holding(connection, text)) or bool(person.known_as(connection, text))


def _cut_log(pruning: Pruning) -> None:
    give_up = monotonic() + PATIENCE
    while not pruning.cut_log(limit=0):
        if monotonic() > give_up:
            raise PutOffError(
                "another program reads an old state of the file, and so keeps traces in its log",
                hint="end that program's transaction, and run the same again",
            )
        sleep(LOOK)
