"""The nouns of outboxd: an event, what it says, the contact it is about, and what became of it.

Frozen values only. This room knows neither SQL nor HTTP, neither shops nor Brevo's routes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from outboxd.clock import from_text, to_text


class Kind(StrEnum):
    """What happened to the customer in the shop."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    REDACTED = "redacted"  # erase for good, with all that is stored here
    NOTHING = "nothing"  # acknowledged; `Reading.note` says why there is nothing to do


class Verdict(StrEnum):
    """What became of one attempt, or of one event."""

    DELIVERED = "delivered"
    UNCHANGED = "unchanged"  # Brevo already has it: no call was needed
    SUPERSEDED = "superseded"  # newer news, of the customer or of another with the contact, made it void
    RETRY = "retry"
    REFUSED = "refused"
    BLOCKED = "blocked"  # not the event's fault: the whole lane waits


FINISHED_WELL = frozenset({Verdict.DELIVERED, Verdict.UNCHANGED, Verdict.SUPERSEDED})


PHONES = ("SMS", "WHATSAPP", "LANDLINE_NUMBER")
"""The attributes that hold a phone: each is unique in the account, and a bad one rejects the contact."""

NO_ADDRESS = "no_address"
"""The error code of an event that is dead for want of an address: an address that comes later revives it."""


class Stamp(NamedTuple):
    """The version of a fact: the shop's own time, and for equal times the row that arrived later."""

    at: datetime
    event_id: int

    def __str__(self) -> str:
        return f"{to_text(self.at)}#{self.event_id}"

    @classmethod
    def parse(cls, text: str) -> "Stamp":
        """The inverse of `str`."""
        moment, _, event_id = text.partition("#")
        return cls(from_text(moment), int(event_id))


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the outbox, the payload as the shop wrote it."""

    id: int
    event: str
    payload: str
    source: str
    occurred_at: datetime | None
    created_at: datetime
    attempts: int
    is_backfill: bool = False  # not news, but what was known before: live events go first
    was_tried: bool = False  # an attempt at it went wrong before, also one that was not its fault


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source's preset understands of one payload.

    `fields` holds canonical names (`firstName`, `acceptsMarketing`, …) and only what the payload
    states: absent is unknown, None is "the shop cleared it". `version_at` is the shop's own time.
    `note` says in one sentence, without personal data, why an event comes to nothing.
    """

    kind: Kind
    customer_id: str | None
    email: str | None
    fields: Mapping[str, Any] = field(default_factory=dict)
    version_at: datetime | None = None
    former_email: str | None = None  # the address before this event changed it, where the payload tells
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Labels:
    """What an event says of the labels in `attribute`: the whole of them, or which came and went."""

    attribute: str
    is_whole: bool
    here: frozenset[str]
    gone: frozenset[str] = frozenset()
    is_list: bool = False  # the attribute takes a list, not one text


@dataclass(frozen=True, slots=True)
class Statement:
    """What one event says of its customer in Brevo's terms: attributes by their names there."""

    stamp: Stamp
    kind: Kind
    email: str | None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    accepts_marketing: bool | None = None
    names_address: bool = True  # False: the address only says who is meant, it is no news of an address
    labels: Labels | None = None
    left_out: tuple[str, ...] = ()  # what Brevo would have dropped without a word, and why
    unmapped: tuple[str, ...] = ()  # the fields that the payload has and no rule asks for


def digest(value: Any) -> str:
    """A short hash of an attribute's value: enough to see that it differs, not to read it."""
    return hashlib.sha256(_written(value).encode()).hexdigest()[:16]


_written = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode

EMPTIED = digest("")
"""The hash of an attribute that Brevo was told to empty."""


class Register(NamedTuple):
    """One attribute as last delivered: its version, and a hash of its value."""

    stamp: Stamp
    digest: str


@dataclass(frozen=True, slots=True)
class Contact:
    """What Brevo has of a customer, as far as we know.

    `email` is the address the customer should have and `synced_email` the one Brevo knows (None: not
    there). `deleted_at` is a tombstone; `born_at` the newest creation, None if a deletion is newer.
    `is_overtaken` says that Brevo was told since of another customer who has the same contact, so that it may
    have none of this any more. `is_legible` False: it cannot be read what is known, and nothing may be built
    on what is left.
    """

    customer_key: str
    source: str
    customer_id: str | None = None
    email: str | None = None
    email_at: Stamp | None = None
    synced_email: str | None = None
    fields: Mapping[str, Register] = field(default_factory=dict)
    labels: Mapping[str, Register] = field(default_factory=dict)
    accepts_marketing: bool | None = None
    consent_at: Stamp | None = None
    deleted_at: Stamp | None = None
    born_at: Stamp | None = None
    is_redacted: bool = False  # nothing of the customer may be kept, nor of what comes late
    is_overtaken: bool = False
    is_legible: bool = True

    @property
    def is_alive(self) -> bool:
        return self.deleted_at is None or self.born_at is not None


class Others(NamedTuple):
    """The other customers who have the same contact in Brevo: whether one of them lives, when one of them, or
    of those who had it, opted out last there, and of each attribute the last value that the living said.
    """

    are_alive: bool = False
    out_at: Stamp | None = None
    said: Mapping[str, Register] = {}


def illegible(customer_key: str) -> str:
    """What is told of a customer whose row cannot be read."""
    return (
        f"what is kept of customer {customer_key} in the table contacts cannot be read: "
        "another program wrote there"
    )


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of the Brevo account. `type` is text, float, boolean, date, category or multiple-choice;
    None for one that Brevo calculates. `options` are those of the last two: their names in small letters,
    and what is sent for each.
    """

    name: str
    type: str | None = "text"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def can_be_emptied(self) -> bool:
        """Whether "" clears it: of other types than text it is not known that Brevo can."""
        return self.type == "text" and not self.options


@dataclass(frozen=True, slots=True)
class Upsert:
    """Make the contact, or change it where it differs.

    `attributes` is what differs from what was last delivered; `complete` is all that these events
    know, for when the contact turns out to be missing. `list_ids` are joined when the contact is new
    to us (`is_first`) or turns out to be missing. `email_blacklisted` None leaves Brevo's flag alone;
    `is_opted_out` is the shop's known opt-out, whoever of those who have the contact said it, to be said
    again wherever Brevo would forget it.
    """

    email: str
    known_as: str | None
    attributes: Mapping[str, Any]
    complete: Mapping[str, Any]
    list_ids: tuple[int, ...] = ()
    is_first: bool = True
    email_blacklisted: bool | None = None
    is_opted_out: bool = False
    is_shared: bool = False  # the contact that the customer leaves is another one's, too …
    leaves_opt_out: bool = False  # … and is to hear of the opt-out that was said there, …
    emptied: Mapping[str, Any] = field(default_factory=dict)  # … and loses what this one alone said there
    delivered: frozenset[str] = frozenset()  # the attributes that the contact had from here before …
    own: frozenset[str] = frozenset()  # … and those of them that are this customer's, surely
    tried_since: datetime | None = None  # an earlier attempt, its end unknown, may have made the contact


@dataclass(frozen=True, slots=True)
class Remove:
    """Take the contact out: for good, or (soft) blocklisted and off the lists."""

    email: str
    is_soft: bool
    unlink_list_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Nothing:
    """No call is needed. `verdict` says why: unchanged or superseded."""

    verdict: Verdict
    detail: str


@dataclass(frozen=True, slots=True)
class Unaddressed:
    """Nobody has named an address for the customer, so there is nothing that Brevo could be told."""


Change = Upsert | Remove | Nothing | Unaddressed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change. `detail` is for people and holds no personal data.

    `wait` is how long the lane must rest (429); `is_network` marks a failure to reach Brevo at all;
    `warnings` names what was healed on the way; `holds` the only attributes the contact is known to have
    where it turned out to be another one, or none (None: all that were ever delivered). `retry_at` is
    when to try again.
    """

    verdict: Verdict
    call: str | None = None
    http_status: int | None = None
    error_code: str | None = None
    detail: str | None = None
    request_id: str | None = None
    wait: timedelta | None = None
    is_network: bool = False
    calls: int = 0
    warnings: tuple[str, ...] = ()
    holds: frozenset[str] | None = None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Told in place of an outcome: Brevo has the contact otherwise than was believed, so that its events must
    be folded anew. `holds` are the attributes that it has from here by now; None: there is no such contact.
    `has_consent` says that it has the opt-out, too.
    """

    holds: frozenset[str] | None = None
    has_consent: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """Events that were folded together: what they said, the contact `before` and, once `change` is delivered,
    `after`; which of them newer news made void; and what was told of the change.
    """

    said: Sequence[tuple[Event, Statement]]
    before: Contact
    change: Change
    after: Contact
    superseded: frozenset[int]
    told: Outcome | Found


@dataclass(frozen=True, slots=True)
class Claim:
    """A customer's pending events, leased to one delivery until `until`. The first one is the head."""

    contact: Contact
    events: Sequence[Event]
    claimed_at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class ImportRow:
    """A customer's row of an import: who it is, under which claim, and what is sent."""

    customer_key: str
    claimed_at: datetime
    address_key: str
    body: bytes
    is_opted_out: bool

    @property
    def digest(self) -> str:
        """A short hash of what is sent."""
        return hashlib.sha256(self.body).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Import:
    """A process in Brevo that imports `size` rows; `process_id` None: whether it began is unknown."""

    id: int
    size: int
    started_at: datetime
    process_id: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a claim: the outcome of each event that was tried, and the contact as Brevo has it now.

    `left_out` says of an event what of it Brevo would have dropped; `is_redacted` that nothing of the
    customer may be kept; `settled` is how it went.
    """

    claim: Claim
    outcomes: Mapping[int, Outcome]
    contact: Contact
    calls: int = 0
    left_out: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    is_redacted: bool = False
    settled: Sequence[Settled] = ()
