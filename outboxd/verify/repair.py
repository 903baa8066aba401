"""Repair: which events, told again, make Brevo agree. It calls nobody; the outbox writes, the drain delivers.

Every fact that was delivered carries the version of the event that said it, so the events that are needed
are known by id. Those that were erased or pruned are lost, and with them what only they said.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from outboxd.admit import admission
from outboxd.event import Stamp
from outboxd.outbox import Outbox, customers
from outboxd.outbox.doubts import KEPT, Doubt
from outboxd.outbox.rows import event_of
from outboxd.sources import Options
from outboxd.verify.believed import Believed
from outboxd.verify.comparison import WRONG, Difference, Kind


@dataclass(frozen=True, slots=True)
class Repaired:
    """Customer keys: who is repaired wholly or in part, who had news meanwhile, whose turn comes once another
    one's opt-out is in force, of whom nothing is kept.
    """

    wholly: Sequence[str] = ()
    in_part: Sequence[str] = ()
    overtaken: Sequence[str] = ()
    behind: Sequence[str] = ()
    beyond: Sequence[str] = ()
    events: int = 0


class Repair:
    """Repairs through `outbox`; `connection` is for reading, `reading` how payloads are understood."""

    def __init__(self, outbox: Outbox, connection: sqlite3.Connection, reading: Options) -> None:
        self._outbox = outbox
        self._connection = connection
        self._reading = reading

    def mend(self, differences: Iterable[Difference], now: datetime) -> Repaired:
        """Have told again what these need, as far as it is kept."""
        wrong = [difference for difference in differences if difference.kinds & set(WRONG)]
        behind = {each.customer.customer_key: each.behind for each in wrong if each.behind is not None}
        doubts = {each.customer.customer_key: self._doubt(each) for each in wrong if each.behind is None}
        standing = [doubt for doubt, _ in doubts.values() if doubt is not None]
        told = {doubt.customer_key for doubt in standing}
        settled = self._outbox.settle(standing, now)
        return Repaired(
            wholly=[key for key, (_, is_whole) in doubts.items() if key in settled and is_whole],
            in_part=[key for key, (_, is_whole) in doubts.items() if key in settled and not is_whole],
            overtaken=[doubt.customer_key for doubt in standing if doubt.customer_key not in settled],
            behind=[key for key, first in behind.items() if first in told],
            beyond=[
                *(key for key in doubts if key not in told),
                *(key for key, first in behind.items() if first not in told),
            ],
            events=sum(len(doubt.told) for doubt in standing if doubt.customer_key in settled),
        )

    def _doubt(self, difference: Difference) -> tuple[Doubt | None, bool]:
        """What can be repaired, and whether that is all of it."""
        customer, kinds = difference.customer, difference.kinds
        needed = _versions(customer)
        kept = {stamp for stamp in needed if self._is_kept(stamp, customer.customer_key)}
        if not kept or {stamp.at for stamp in kept} & {stamp.at for stamp in needed - kept}:
            return None, False  # of equal times the later event wins, and a copy is later than all
        attributes = {
            name: told for name, told in difference.attributes.items() if customer.fields[name].stamp in kept
        }
        said = customer.consent_at if customer.is_alive else customer.deleted_at
        lacks_opt_out = Kind.OPT_OUT in kinds and said in kept
        is_missing = Kind.MISSING in kinds
        if not (attributes or lacks_opt_out or is_missing or difference.remains_at):
            return None, False
        doubt = Doubt(
            customer.customer_key,
            customer.synced_at,
            sorted(kept),
            is_missing=is_missing,
            lacks_opt_out=lacks_opt_out,
            remains_at=difference.remains_at,
            attributes=attributes,
        )
        lost = needed - kept
        is_whole = (
            len(attributes) == len(difference.attributes)
            and lacks_opt_out == (Kind.OPT_OUT in kinds)
            and not (is_missing and any(register.stamp in lost for register in customer.fields.values()))
        )
        return doubt, is_whole

    def _is_kept(self, stamp: Stamp, customer_key: str) -> bool:
        """Whether the event is there to be told again, and would still be taken for this customer's."""
        row = self._connection.execute(KEPT, {"id": stamp.event_id}).fetchone()
        if row is None:
            return False
        event = event_of(row, self._outbox.default_source)
        return customers.owner(self._connection.execute, admission(event, self._reading)) == customer_key


def _versions(customer: Believed) -> set[Stamp]:
    """The versions of all that is known of somebody; of somebody deleted, that of the deletion alone."""
    if not customer.is_alive:
        return {customer.deleted_at} if customer.deleted_at else set()
    told = (customer.email_at, customer.consent_at, customer.born_at)
    return {register.stamp for register in customer.fields.values()} | {each for each in told if each}
