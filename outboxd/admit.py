"""Admit: whose event is it? The payload is read as far as that takes."""

from collections.abc import Callable
from datetime import datetime

from outboxd import sources
from outboxd.errand import reason
from outboxd.errors import EventError
from outboxd.event import Event, Kind, Outcome, Verdict
from outboxd.keys import address_key
from outboxd.outbox import CHUNK, Admission, Outbox
from outboxd.payload import parse


def admission(event: Event, options: sources.Options) -> Admission:
    """The customer of `event`, by id or address, or the outcome it ends with here."""
    try:
        reading = sources.read(event.source, event.event, parse(event.payload), options)
    except EventError as error:
        return Admission(event, outcome=Outcome(Verdict.REFUSED, detail=reason(error)))
    if reading.kind is Kind.NOTHING:
        return Admission(event, outcome=Outcome(Verdict.UNCHANGED, warnings=(reading.note or "",)))
    addresses = tuple(address_key(address) for address in (reading.former_email, reading.email) if address)
    if reading.customer_id is None and not addresses:
        detail = "the payload has neither a customer id nor an address"
        return Admission(event, outcome=Outcome(Verdict.REFUSED, detail=detail))
    is_redaction = reading.kind is Kind.REDACTED
    return Admission(event, reading.customer_id, addresses, is_redaction=is_redaction)


def admit_fresh(outbox: Outbox, options: sources.Options, clock: Callable[[], datetime]) -> None:
    """Find out whose all the new events are, for whoever has more to do with them than to deliver them."""
    while events := outbox.fresh():
        outbox.admit([admission(event, options) for event in events], clock())
        if len(events) < CHUNK:  # what comes from now on is none of them
            return
