"""Importing: rows gather here until they are an import, and each import is seen through to its end.

An import is known to the database before Brevo hears of it, and its customers are barred until its end is
recorded, so that a crash loses none and nothing newer is overtaken; what a crash interrupted is taken up
again from there. Everything here happens in the relay's thread, but for the calls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any, Protocol

from outboxd.backoff import Backoff
from outboxd.brevo.bulk import Process, Reached
from outboxd.brevo.limiter import Limiter
from outboxd.cargo import Cargo
from outboxd.convoy import TRIES, BulkCourier, Carried, Convoy
from outboxd.delivery import Closed, Delivery
from outboxd.errand import Plan
from outboxd.errors import AdriftError
from outboxd.event import Claim, Import, ImportRow, Outcome, Result, Verdict
from outboxd.logs import line, logger
from outboxd.outbox.imports import Barred, Ledger
from outboxd.trouble import Trouble

FEW = 50
"""So many rows, and fewer, are sent one by one: an import has calls of its own, and takes its time."""

LINGER = timedelta(seconds=2)
"""How long rows wait for others; longer while an import is under way, for then there is no haste."""

LONG_LINGER = timedelta(seconds=20)

FIRST_LOOK = timedelta(seconds=2)
LATEST_LOOK = timedelta(seconds=60)
"""How long after its start, and at the latest, an import is looked at."""

LOOKING = Backoff(first=FIRST_LOOK * 2, cap=LATEST_LOOK, jitter=0.0)

LONGEST = timedelta(days=1)
"""An import that has not ended by then is not waited for any more: the contacts tell what it has done."""

PATIENCE = 10
"""Looks that an import gets in any case: the clock may have been set forward by a day."""

MOST = 3
"""Imports under way at once, before backfilled events wait here rather than in Brevo."""

ORPHANED = timedelta(minutes=15)
"""How old an import is that another drainer began and seems to have left."""

LOOKS = 60
"""Looks at imports in an hour. Brevo allows a hundred for all that are not contacts."""

SKEW = timedelta(minutes=10)
"""How far Brevo's clock may be behind this one where it does not say when an import began."""


@dataclass(slots=True)
class Charge:
    """What this process answers for, over all of its relays: imports. And whether it is the one who drains.

    Whoever `is_alone` at its start inherits, once, those of nobody, too: whatever is under way was left by a
    process that is no more. One that drains beside others must not: theirs would be sent twice, and the
    second time perhaps after newer news. What such a process told Brevo last may yet arrive where it is
    `closed`.
    """

    is_alone: bool = True
    has_inherited: bool = False
    ids: set[int] = field(default_factory=set)
    stands: Callable[[], bool] = lambda: True
    trouble: Trouble = field(default_factory=Trouble)
    closed: Closed = field(default_factory=Closed)

    def check(self) -> None:
        """Raise AdriftError if others may drain by now, because the files that lock them out were removed."""
        if not self.stands():
            raise AdriftError("the lock files beside the outbox were removed")


class Crew(Protocol):
    """Who does the work: the relay."""

    def submit(self, job: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Run `job` in a thread, and `then` with what it returned in the relay's own."""

    def finish(self, results: Sequence[Result], *, is_judged: bool = False) -> None:
        """Record these before anything else is done. `is_judged`: the lane knows of them already."""

    def judge(self, outcome: Outcome) -> Outcome:
        """What the lane makes of the outcome of a call."""


@dataclass(slots=True)
class _Voyage:
    """An import under way. `rows` are kept until Brevo has them; `settle` makes results of its claims once it
    is known how it ended. `calls` were made for it, and are counted with the first of those.
    """

    made: Import
    look_at: datetime
    rows: list[ImportRow] = field(default_factory=list)
    failures: int = 0
    looks: int = 0
    calls: int = 0
    after: str = ""
    is_busy: bool = False
    settle: Callable[[list[Barred]], list[Result]] | None = None
    status: str = "running"
    left_out: int | None = None


class Importing:
    """The imports of one relay."""

    def __init__(
        self,
        ledger: Ledger,
        delivery: Delivery,
        convoy: Convoy,
        courier: BulkCourier,
        crew: Crew,
        plan: Plan,
        clock: Callable[[], datetime],
        charge: Charge,
    ) -> None:
        self._ledger = ledger
        self._charge = charge
        self._delivery = delivery
        self._convoy = convoy
        self._courier = courier
        self._crew = crew
        self._list_ids = plan.policy.list_ids
        self._backoff = plan.backoff
        self._clock = clock
        self._cargoes = {is_opted_out: Cargo(plan.import_size) for is_opted_out in (False, True)}
        self._looks = Limiter([(LOOKS, 3600.0)])
        self._voyages: dict[int, _Voyage] = {}
        self._adopt_at: datetime | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits here, and nothing is under way."""
        return not self._voyages and not self._waiting

    @property
    def is_full(self) -> bool:
        """Whether so many are under way that more would only wait, in Brevo and in memory."""
        return len(self._voyages) >= MOST

    @property
    def _waiting(self) -> bool:
        return any(cargo.rows for cargo in self._cargoes.values())

    def load(self, rows: Sequence[ImportRow]) -> None:
        """Let these wait for company; whoever is opted out travels apart, and under that flag."""
        now = self._clock()
        for row in rows:
            self._cargoes[row.is_opted_out].add(row, now)

    def shift(self, by: timedelta) -> None:
        """The clock was set by so much: what waits, waits as long as it would have."""
        for cargo in self._cargoes.values():
            cargo.shift(by)
        for voyage in self._voyages.values():
            voyage.look_at += by
        self._adopt_at = self._adopt_at and self._adopt_at + by

    def step(self, now: datetime, *, is_last: bool) -> float:
        """Do what is to be done now; seconds until there is more. `is_last`: nobody else will come."""
        linger = timedelta(0) if is_last else LONG_LINGER if self._voyages else LINGER
        for cargo in self._cargoes.values():
            while rows := cargo.ready(now, linger):
                self._depart(rows, now)
                cargo.unload(len(rows), now)
        waits = [self._advance(voyage, now) for voyage in list(self._voyages.values())]
        waits += [LINGER.total_seconds()] if self._waiting else []
        return min(waits, default=float("inf"))

    # Leaving.

    def _depart(self, rows: Sequence[ImportRow], now: datetime) -> None:
        if len(rows) <= FEW:
            claims = [claim for claim in self._ledger.reclaimed(rows) if self._holds(claim)]
            self._crew.submit(partial(self._convoy.alone, claims), self._crew.finish)
        else:
            self._open(rows, now)

    def _open(self, rows: Sequence[ImportRow], now: datetime, *, calls: int = 0) -> None:
        made, held = self._ledger.open(rows, now)
        self._charge.ids.add(made.id)
        self._delivery.bar((row.address_key, row.customer_key, row.claimed_at) for row in held)
        keys = {row.customer_key for row in held}
        for row in rows:
            if row.customer_key not in keys:  # the lease was lost
                self._delivery.let_go(row.customer_key, row.claimed_at)
        voyage = self._voyages[made.id] = _Voyage(made, now, held, calls=calls)
        self._start(voyage)

    def _start(self, voyage: _Voyage) -> None:
        voyage.is_busy = True
        voyage.after = ""  # should the start not be recorded, all of its rows are made once more
        bodies = [row.body for row in voyage.rows]
        is_opted_out = any(row.is_opted_out for row in voyage.rows)
        job = partial(self._courier.start_import, bodies, self._list_ids, is_opted_out=is_opted_out)
        self._crew.submit(job, partial(self._started, voyage))

    def _started(self, voyage: _Voyage, told: int | Outcome) -> None:
        now = self._clock()
        voyage.is_busy = False
        voyage.calls += 1
        rows, voyage.rows = voyage.rows, []
        if isinstance(told, int):
            self._ledger.started(voyage.made.id, told)
            voyage.made = replace(voyage.made, process_id=told)
            voyage.look_at = now + FIRST_LOOK
            logger.info(line("import", id=voyage.made.id, process=told, rows=len(rows)))
            return
        outcome = self._crew.judge(told)
        if outcome.verdict is Verdict.REFUSED:
            self._divide(voyage, rows, now)
        elif (told.verdict is Verdict.RETRY or voyage.failures) and voyage.failures < TRIES:
            # Brevo may have taken it nevertheless: nobody is let go, it is sent again as after a crash
            voyage.failures += 1
            voyage.look_at = now + self._backoff.delay(voyage.failures)
        else:
            self._fail(voyage, outcome)

    def _divide(self, voyage: _Voyage, rows: Sequence[ImportRow], now: datetime) -> None:
        """Somebody spoils it, or everybody: its halves become imports of their own; of a few each goes alone.

        Its rows are moved or settled before it ends: at no time are there any that no import answers for.
        """
        voyage.status, voyage.settle = "refused", self._convoy.refused
        if len(rows) > 2 * FEW:
            self._open(rows[: len(rows) // 2], now, calls=voyage.calls)
            self._open(rows[len(rows) // 2 :], now)

    # Under way.

    def _advance(self, voyage: _Voyage, now: datetime) -> float:
        """Do what this import needs now; seconds until it needs more."""
        if voyage.is_busy:
            return float("inf")
        if wait := self._charge.closed.seconds:  # until then nothing can be made of what it did there
            return wait
        if voyage.settle is not None:
            return self._settle(voyage, now)
        if now < voyage.look_at:
            return (voyage.look_at - now).total_seconds()
        if voyage.made.process_id is None:
            return self._gather(voyage, now)
        if wait := self._looks.take(monotonic()):
            return wait
        voyage.is_busy = True
        self._crew.submit(
            partial(self._courier.process, voyage.made.process_id), partial(self._looked, voyage)
        )
        return float("inf")

    def _looked(self, voyage: _Voyage, told: Process | Outcome) -> None:
        now = self._clock()
        voyage.is_busy = False
        voyage.calls += 1
        voyage.looks += 1
        voyage.look_at = now + LOOKING.delay(voyage.looks)
        is_given_up = voyage.looks > PATIENCE and now > voyage.made.started_at + LONGEST
        if isinstance(told, Outcome):
            voyage.look_at = now + LATEST_LOOK
            logger.warning(line("import", id=voyage.made.id, reason=f"cannot be looked at: {told.detail}"))
        elif told.has_failed:
            detail = f"Brevo ended the import as {told.status}"
            self._fail(voyage, Outcome(Verdict.RETRY, call="POST /contacts/import", detail=detail))
        elif told.has_ended and told.left_out == 0:
            self._arrive(voyage, 0, None)
        elif told.has_ended or is_given_up:
            voyage.is_busy = True
            since = (told.created_at or voyage.made.started_at - SKEW) - timedelta(seconds=1)
            self._crew.submit(
                partial(self._courier.reached, since), partial(self._searched, voyage, told.left_out)
            )

    def _searched(self, voyage: _Voyage, left_out: int | None, told: Reached | Outcome) -> None:
        """Some rows were left out, Brevo does not say which: the contacts tell."""
        voyage.is_busy = False
        voyage.calls += told.calls
        if isinstance(told, Outcome):
            self._crew.judge(told)
            voyage.look_at = self._clock() + LATEST_LOOK
        else:
            self._arrive(voyage, left_out, told)

    # The end.

    def _arrive(self, voyage: _Voyage, left_out: int | None, reached: Reached | None) -> None:
        voyage.status, voyage.left_out = "completed", left_out
        voyage.settle = partial(self._convoy.taken, reached=reached)

    def _fail(self, voyage: _Voyage, outcome: Outcome) -> None:
        voyage.status = "failed"
        voyage.settle = partial(self._convoy.failed, outcome=outcome)

    def _settle(self, voyage: _Voyage, now: datetime) -> float:
        """Make results of the next claims, until there are none."""
        claims = self._claims(voyage)
        if not claims or voyage.settle is None:
            self._end(voyage, voyage.status, now)
            return 0.0
        voyage.is_busy = True
        self._crew.submit(partial(voyage.settle, claims), partial(self._settled, voyage))
        return float("inf")

    def _settled(self, voyage: _Voyage, results: Sequence[Result]) -> None:
        voyage.is_busy = False
        counted = [replace(each, calls=each.calls + voyage.calls) for each in results[:1]]
        voyage.calls = 0
        self._crew.finish([*counted, *results[1:]], is_judged=voyage.status == "failed")

    def _end(self, voyage: _Voyage, status: str, now: datetime) -> None:
        made = voyage.made
        self._ledger.ended(made.id, status, voyage.left_out, now)
        del self._voyages[made.id]
        self._charge.ids.discard(made.id)
        if not self._voyages:
            self._delivery.unbar()
        logger.info(line("import", id=made.id, status=status, rows=made.size, left_out=voyage.left_out))

    def _claims(self, voyage: _Voyage, after: str = "") -> list[Barred]:
        """The next of its claims that still hold, by customer key; none left: none."""
        while found := self._ledger.claims(voyage.made.id, after=after):
            if held := [each for each in found if self._holds(each[0])]:
                return held
            after = found[-1][0].contact.customer_key
        return []

    def _holds(self, claim: Claim) -> bool:
        """Whether nobody else has ended the claim; if somebody has, it keeps nobody waiting any more."""
        if not claim.events:
            self._delivery.let_go(claim.contact.customer_key, claim.claimed_at)
        return bool(claim.events)

    # After a crash.

    def adopt(self, now: datetime) -> None:
        """Take over the imports that nobody looks after: those of our own, and those that are old.

        Before anything is delivered, and now and then.
        """
        if self._adopt_at is not None and now < self._adopt_at:
            return
        inherits = self._charge.is_alone and not self._charge.has_inherited
        for made in self._ledger.under_way():
            is_ours = inherits or made.id in self._charge.ids
            if made.id not in self._voyages and (is_ours or made.started_at < now - ORPHANED):
                self._voyages[made.id] = _Voyage(made, now)
                self._charge.ids.add(made.id)
        self._delivery.bar(self._ledger.barred(self._voyages))
        self._charge.has_inherited = True
        self._adopt_at = now + ORPHANED

    def _gather(self, voyage: _Voyage, now: datetime) -> float:
        """Nobody knows whether Brevo was told of this import: its rows are made once more, and sent again.

        They are the same rows, and Brevo takes imports in their order, so the later one is the last word.
        """
        claims = [claim for claim, _ in self._claims(voyage, voyage.after)]
        if not claims:
            if voyage.rows:
                self._start(voyage)
                return float("inf")
            self._end(voyage, "empty", now)
            return 0.0
        voyage.after = claims[-1].contact.customer_key
        voyage.is_busy = True
        self._crew.submit(partial(self._convoy.carry, claims), partial(self._gathered, voyage))
        return float("inf")

    def _gathered(self, voyage: _Voyage, carried: Carried) -> None:
        voyage.is_busy = False
        voyage.rows.extend(carried.rows)
        self._crew.finish(carried.results)
