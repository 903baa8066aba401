"""Takeover: what a process that was killed told Brevo last, and never wrote down.

It may have arrived, or arrive yet. So its claims are free again, and their addresses open, once nothing can
be under way any more; and of others at these addresses nothing is believed that may not stand.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from time import monotonic

from outboxd import mapping, sources
from outboxd.delivery import Closed
from outboxd.errors import EventError
from outboxd.event import Claim
from outboxd.keys import address_key
from outboxd.outbox import Outbox
from outboxd.payload import parse


def take_over(outbox: Outbox, reading: sources.Options, now: datetime, timeout: timedelta) -> Closed:
    """For whoever is alone at `outbox`, so that nobody is left who has a lease.

    `timeout` is how long a call may be under way.
    """
    until = monotonic() + timeout.total_seconds()
    met = [(claim, email) for claim in outbox.leases.under_way() for email in addresses(claim, reading)]
    outbox.leases.take_over(now + timeout, [(claim.contact.customer_key, email) for claim, email in met])
    return Closed(frozenset(address_key(email) for claim, email in met if claim.until > now), until)


def addresses(claim: Claim, reading: sources.Options) -> frozenset[str]:
    """Those at which Brevo may have been told something of the claim's customer."""
    known = {claim.contact.email, claim.contact.synced_email, *_named(claim, reading)}
    return frozenset(email for email in known if email is not None)


def _named(claim: Claim, reading: sources.Options) -> Iterator[str | None]:
    for event in claim.events:
        try:
            yield mapping.address(sources.read(event.source, event.event, parse(event.payload), reading))
        except EventError:  # nothing of it was told
            continue
