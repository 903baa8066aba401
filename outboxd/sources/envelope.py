"""What is wrapped round a customer: the specification's envelope, CloudEvents, and wrappers of one key.

This room looks for the customer and for what is written outside; what the customer is like it leaves to
`specification` and the platforms.
"""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from outboxd.errors import EventError
from outboxd.event import Kind
from outboxd.sources import words
from outboxd.sources.words import Record
from outboxd.topics import EVENTS, KNOWN, plain

KINDS = dict(zip(EVENTS, (Kind.CREATED, Kind.UPDATED, Kind.DELETED), strict=True))

_WRAPPERS = ("data", "event", "payload", "value", "customer", "user")
_DEPTH = 4  # CloudEvents' data.value.customer, and one to spare
_NAMING = ("id", "entity_id", "customer_id", "customerId", "email", "email_address")
_SENT_AT = ("timestamp", "time", "created_at")
_SENT_AT_BARE = ("timestamp",)  # there, created_at is when the customer came to the shop


@dataclass(frozen=True, slots=True)
class Letter:
    """A payload out of its envelope, with what was written on that.

    `is_ours` says that the specification's shapes are to be expected inside; otherwise a word means
    only what it means to the platform.
    """

    topic: str
    kind: Kind
    data: Record
    envelope: Record
    sent_at: datetime | None
    is_ours: bool


def open_letter(topic: str, payload: Record, kinds: Mapping[str, Kind], *, is_ours: bool = False) -> Letter:
    """Take `payload` out of its envelope, if it has one; `kinds` are the events the preset understands, and
    `is_ours` says that it speaks the specification's words alone.

    Raises EventError where the event is none of them, and where row and envelope contradict each other.
    """
    name = plain(topic)
    if topic not in KNOWN or name not in kinds:
        raise EventError("the event's name is none that this source sends", hint=_nearest(topic, kinds))
    if not isinstance(payload, Mapping):
        raise EventError(
            "the payload is no JSON object", hint='write one customer as one object: {"id": …, "email": …}'
        )
    data = unwrapped(payload)
    is_wrapped = data is not payload
    event = payload.get("event")
    if not isinstance(event, str) or not (is_wrapped or event in KNOWN):
        event = None  # a bare customer may have a field of that name
    if event is not None and kinds.get(plain(event)) is not kinds[name]:
        raise EventError(
            "the row's event and the envelope's `event` contradict each other",
            hint="write the same event into both, or leave the envelope's `event` out",
        )
    return Letter(
        topic=name,
        kind=kinds[name],
        data=data,
        envelope=payload,
        sent_at=words.first_instant(payload, *(_SENT_AT if is_wrapped else _SENT_AT_BARE)),
        is_ours=is_ours or topic in EVENTS or event is not None or isinstance(data.get("changes"), Mapping),
    )


def unwrapped(payload: Record) -> Record:
    """The outermost object that names a customer, or else the innermost one."""
    data = payload
    # An envelope may have an id of its own: the event's.
    names_event = "specversion" in payload or (
        "event" in payload and isinstance(payload.get("data"), Mapping)
    )
    for _ in range(_DEPTH):
        if not names_event and any(key in data for key in _NAMING):
            break
        inner = next((data[key] for key in _WRAPPERS if isinstance(data.get(key), Mapping)), None)
        if inner is None:
            break
        data, names_event = inner, False
    return data


def _nearest(topic: str, kinds: Collection[str]) -> str:
    near = difflib.get_close_matches(topic[:80], [known for known in KNOWN if plain(known) in kinds], 1)
    question = f"did you mean {near[0]}? " if near else ""
    return (
        f"{question}every source understands {', '.join(EVENTS)}; "
        "an event of another platform needs that platform's name as its source"
    )
