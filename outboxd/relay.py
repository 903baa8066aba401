"""The relay: the drain of the outbox. Admit, claim, fold, deliver, record, announce.

One thread (whoever calls `step`) owns the database and records in groups; a pool of others carries the
claims to Brevo. HTTP never happens inside a transaction. `step` is one round and says how long to rest.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import Any

from outboxd import announce, trace
from outboxd.admit import admission
from outboxd.convoy import BulkCourier, Carried, Convoy
from outboxd.delivery import ASIDE, Courier, Delivery, place
from outboxd.errand import Plan
from outboxd.errors import OutboxdError
from outboxd.event import Claim, Event, Outcome, Result, Verdict
from outboxd.heartbeat import Heartbeat
from outboxd.importing import Charge, Importing
from outboxd.lane import Lane
from outboxd.logs import line, logger
from outboxd.notify import Notifying
from outboxd.outbox import CHUNK, Outbox
from outboxd.pace import Mode, Pace
from outboxd.pause import KEY, Pause, standing
from outboxd.prune import Pruner
from outboxd.webhook import Webhook

POLL = 0.04
"""Seconds between two looks for other processes' commits."""

TICK = 5.0
"""Seconds a round may be put off at most, whatever the clocks say."""

LEASE = 1.25
"""How much longer a lease is than the longest delivery: what is left lets a refused change be taken apart."""

LONG = timedelta(seconds=15)
"""The longest rest that a drain sits out."""

FIRST_ADMITTED = 500
"""So many chunks of new events are admitted before anything is claimed: a burst is folded as a whole."""

CONVOYS = 4
"""Convoys under way at once, each with so many batches:"""

BATCHES = 5


class Relay:
    """The drain of one outbox through one courier."""

    def __init__(
        self,
        outbox: Outbox,
        courier: Courier,
        bulk: BulkCourier,
        plan: Plan,
        mode: Mode,
        pruner: Pruner,
        *,
        clock: Callable[[], datetime],
        chance: Callable[[], float],
        charge: Charge,
        webhook: Webhook | None = None,
    ) -> None:
        self.bell = threading.Event()
        self.lane = Lane()
        self._outbox = outbox
        self._courier = courier
        self._plan = plan
        self.triggers = mode.triggers
        self._mode = mode
        self._pruner = pruner
        self._delivery = Delivery(courier, plan, clock=clock)
        self._convoy = Convoy(self._delivery, bulk, plan)
        self._importing = Importing(
            outbox.imports, self._delivery, self._convoy, bulk, self, plan, clock, charge
        )
        self._clock = clock
        self._chance = chance
        self._notifying = Notifying(outbox.notices, webhook, self, clock=clock, chance=chance)
        self._pool = ThreadPoolExecutor(plan.workers + CONVOYS + 1, thread_name_prefix="delivery")
        self._done: SimpleQueue[tuple[Callable[[Any], None], Any]] = SimpleQueue()
        self._jobs = 0
        self._alone = 0
        self._convoys = 0
        self._admitted = 0
        self._now = clock()
        self._paces: Sequence[Pace] = ()
        self.is_drained = False
        self.paused: Pause | None = None
        self._is_draining = False
        self._unrecorded: list[Result] = []
        self.stepped_at = monotonic()
        self._heart = Heartbeat(outbox, courier.left, enabled=plan.enabled)

    # The loop, and its two ways of ending.

    def run(self, stopping: threading.Event, grace: timedelta) -> None:
        """Drain until `stopping` is set and the bell rung; then finish what is in flight, for `grace`."""
        while not stopping.is_set():
            self.bell.clear()
            try:
                seen = self._outbox.data_version()
                self._sleep(self.step(), seen)
            except Exception as error:  # the disk is full, the file is locked: it may mend
                _tell_stuck(error)
                stopping.wait(TICK)
        self._finish(grace)

    def _finish(self, grace: timedelta) -> None:
        """Record what is in flight as it ends. What does not end in time keeps its lease until it lapses."""
        give_up = monotonic() + grace.total_seconds()
        while (self._jobs or self._unrecorded) and monotonic() < give_up:
            self.bell.clear()
            try:
                self._take_back(self._clock())
            except Exception as error:
                _tell_stuck(error)
                self.bell.wait(1.0)
            if self._jobs:
                self.bell.wait(max(0.0, min(TICK, give_up - monotonic())))
        self.close()

    def drain(self, *, until_nothing_waits: bool = False) -> None:
        """Deliver until nothing is due (or even waits for another attempt), or the lane is blocked."""
        self._is_draining = True
        if standing(self._outbox.state(KEY)) is None:
            self._mode.demand(self._clock())
        with self._notifying.awaited():
            while True:
                self.bell.clear()
                pause = self.step()
                is_idle = not self._jobs and not self._unrecorded and not self._notifying.is_busy
                has_work = self._has_work(later=until_nothing_waits)
                self.is_drained = not has_work and self._importing.is_idle and self.paused is None
                if is_idle and (self.is_drained or self._is_stopped()):
                    return
                self.bell.wait(pause)

    def step(self) -> float:
        """One round: record what came back, admit what is new, begin what is due; seconds to rest."""
        self.stepped_at = monotonic()
        now = self._clock()
        self._take_back(now)
        self.paused = standing(self._outbox.state(KEY))
        self._heart.beat(self.lane, self.paused, now)
        if not self._plan.enabled:
            return min(TICK, self._pruner.step(now, is_idle=True))
        more = self._admit(now)
        beside = self._notifying.step(now)
        if self.paused is None:  # no window opens meanwhile; one that was missed opens afterwards
            is_full = self._importing.is_full
            self._paces = [pace for pace in self._mode.paces(now) if not (pace.is_backfill and is_full)]
        if more and self._admitted < FIRST_ADMITTED:
            return 0.0
        self._admitted = 0
        if self.paused is not None:
            imports = self._importing.step(now, is_last=False)
            return 0.0 if more else min(TICK, imports, beside)
        begun = self._begin(now)
        imports = self._importing.step(now, is_last=self._is_draining and not begun and not self._convoys)
        if more or begun:
            self._pruner.step(now, is_idle=False)
            return 0.0
        is_idle = not self._jobs and self._importing.is_idle
        if is_idle and not any(self._is_due(now, pace) for pace in self._paces):
            self._mode.rested(now)
        pruning = self._pruner.step(now, is_idle=is_idle)
        return min(self._rest(now), imports, beside, pruning)

    @property
    def is_busy(self) -> bool:
        """Whether deliveries are under way."""
        return self._jobs > 0

    def close(self) -> None:
        """Let the delivery threads and the database go."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._outbox.close()
        self._pruner.close()

    # What others may ask of it: see importing.Crew.

    def submit(self, job: Callable[[], Any], then: Callable[[Any], None], *, is_beside: bool = False) -> None:
        """Run `job` in the pool, and `then` with what it returned in the next round here.

        A job that breaks off has returned a failed outcome. Nobody waits for one that is beside the rest.
        """
        if not is_beside:
            self._jobs += 1
        self._pool.submit(self._work, job, then if is_beside else partial(self._worked, then))

    def _worked(self, then: Callable[[Any], None], told: Any) -> None:
        self._jobs -= 1
        then(told)

    def finish(self, results: Sequence[Result], *, is_judged: bool = False) -> None:
        """Record these in this round. `is_judged`: the lane knows of them already."""
        now = self._now  # that of the record, so that the wait is what the backoff says
        seen: dict[int, Outcome] = {}
        self._unrecorded.extend(self._judged(result, seen, now, is_judged=is_judged) for result in results)

    def judge(self, outcome: Outcome) -> Outcome:
        """What the lane makes of the outcome of a call."""
        self.lane, judged = self.lane.judge(outcome, self._clock())
        return judged

    def _hand_back(self, results: Sequence[Result]) -> None:
        """From a thread of the pool: record these in the next round, though the job goes on."""
        self._done.put((self.finish, results))
        self.bell.set()

    def _work(self, job: Callable[[], Any], then: Callable[[Any], None]) -> None:
        try:
            self._done.put((then, job()))
        except Exception as error:
            logger.error(line("bug", error=type(error).__name__, at=place(error)))
            failed = Outcome(Verdict.RETRY, detail=f"internal error: {type(error).__name__}")
            self._done.put((then, failed))
        self.bell.set()

    # The stages.

    def _admit(self, now: datetime) -> bool:
        """Take in one chunk of new events; whether there may be more."""
        events = self._outbox.fresh()
        if not events:
            return False
        admissions = [admission(event, self._plan.reading) for event in events]
        self._outbox.admit(admissions, now)
        announce.refused(admissions)
        self._mode.admitted(events)
        self._admitted += 1
        return len(events) == CHUNK

    def _begin(self, now: datetime) -> bool:
        """Claim what may go, as much as there is room for, and hand it out; whether there may be more."""
        allowed = self.lane.room(now)
        if allowed is not None:
            return self._probe(now) if allowed and not self._jobs else False
        more = False
        for pace in self._paces:
            begin = self._begin_convoy if pace.is_together else self._begin_alone
            more = begin(now, pace) or more
        return more

    def _begin_alone(self, now: datetime, pace: Pace) -> bool:
        room = min(self._plan.workers - self._alone, self._courier.room())
        if room <= 0 or not self._is_due(now, pace):
            return False
        for claim in self._claim(now, pace, room):
            self._alone += 1
            self.submit(partial(self._delivery.carry, claim), self._carried_alone)
        return self._alone < self._plan.workers and self._courier.room() > 0

    def _begin_convoy(self, now: datetime, pace: Pace) -> bool:
        if self._convoys == CONVOYS or self._courier.room() <= 0 or not self._is_due(now, pace):
            return False
        most = self._plan.batch_size * BATCHES
        claims: list[Claim] = []
        while len(claims) < most and (more := self._claim(now, pace, min(most - len(claims), CHUNK))):
            claims.extend(more)
        if not claims:
            return False
        self._convoys += 1
        self.submit(partial(self._convoy.carry, claims, self._hand_back), self._carried_together)
        return self._convoys < CONVOYS

    def _probe(self, now: datetime) -> bool:
        """One delivery, to see whether Brevo is well again."""
        for pace in self._paces:
            for claim in self._claim(now, pace, 1):
                self._alone += 1
                self.submit(partial(self._delivery.carry, claim), self._carried_alone)
                return True
        return False

    def _claim(self, now: datetime, pace: Pace, limit: int) -> list[Claim]:
        lease = self._courier.longest * LEASE
        return self._outbox.claim(
            now, limit=limit, lease=lease, is_backfill=pace.is_backfill, before=pace.before
        )

    def _carried_alone(self, result: Result) -> None:
        self._alone -= 1
        self.finish([result])

    def _carried_together(self, carried: Carried) -> None:
        self._convoys -= 1
        self.finish(carried.results)
        self._importing.load(carried.rows)

    def _take_back(self, now: datetime) -> None:
        """Take back what came of the jobs that ended, and record it."""
        self._now = now
        while not self._done.empty():
            then, told = self._done.get()
            then(told)
        while self._unrecorded:
            self._record(self._unrecorded[:CHUNK], now)
            del self._unrecorded[:CHUNK]

    def _record(self, results: Sequence[Result], now: datetime) -> None:
        for result in results:
            if result.is_redacted:
                self._outbox.purge(result.claim.contact.customer_key)
        kept = {id(result) for result in self._outbox.record(results, now)}
        self._mode.told(results)
        for result in results:
            self._delivery.end(result)
            trace.tell(result, self._plan.rules)
            announce.recorded(result, now, is_lost=id(result) not in kept)

    def _judged(self, result: Result, seen: dict[int, Outcome], now: datetime, *, is_judged: bool) -> Result:
        """The result with its outcomes as the lane and the backoff see them; `seen` are those of one call."""
        outcomes = {}
        for event in result.claim.events:
            outcome = result.outcomes.get(event.id)
            if outcome is None:
                continue
            if id(outcome) not in seen:
                seen[id(outcome)] = outcome if is_judged else self.judge(outcome)
            left_out = result.left_out.get(event.id, ())
            judged = seen[id(outcome)]
            told = replace(judged, warnings=(*judged.warnings, *left_out)) if left_out else judged
            outcomes[event.id] = self._scheduled(event, told, now)
        return replace(result, outcomes=outcomes)

    def _scheduled(self, event: Event, outcome: Outcome, now: datetime) -> Outcome:
        backoff = self._plan.backoff
        if outcome.verdict is not Verdict.RETRY:
            return outcome
        if event.attempts >= backoff.max_attempts:
            detail = f"gave up after {event.attempts} attempts; the last one: {outcome.detail}"
            return replace(outcome, verdict=Verdict.REFUSED, detail=detail)
        return replace(outcome, retry_at=now + backoff.delay(event.attempts, self._chance()))

    # How long to rest.

    def _is_due(self, now: datetime, pace: Pace) -> bool:
        due = self._next_due(pace)
        return due is not None and due <= now

    def _next_due(self, pace: Pace) -> datetime | None:
        return self._outbox.next_due(is_backfill=pace.is_backfill, before=pace.before)

    def _rest(self, now: datetime) -> float:
        """Until something is due; whatever comes earlier rings the bell."""
        is_full = self._alone >= self._plan.workers or self._convoys == CONVOYS
        if self.lane.state == "running" and is_full and not self._courier.wait():
            return TICK  # a delivery that ends makes room
        dues = [due for pace in self._paces if (due := self._next_due(pace)) is not None]
        waits = (
            [max((min(dues) - now).total_seconds(), self._courier.wait(), self._stopped_for(now))]
            if dues
            else []
        )
        if (at := self._mode.next_at()) is not None:
            waits.append((at - now).total_seconds())
        return min(TICK, max(0.0, min(waits, default=TICK)))

    def _stopped_for(self, now: datetime) -> float:
        """Seconds until the lane lets anything go."""
        until = None if self.lane.state == "running" else self.lane.until
        return (until - now).total_seconds() if until is not None else 0.0

    def _is_stopped(self) -> bool:
        """Whether the lane stands still for longer than somebody who waits would like."""
        patience = LONG if self.lane.state == "waiting" else timedelta(0)
        is_stopped = self.lane.until is not None and self.lane.until > self._clock() + patience
        return is_stopped or self.paused is not None

    def _has_work(self, *, later: bool) -> bool:
        dues = [due for pace in self._paces if (due := self._next_due(pace)) is not None]
        horizon = self._clock() + 2 * ASIDE
        return bool(self._outbox.fresh(1)) or any(later or due <= horizon for due in dues)

    def _sleep(self, seconds: float, seen: int) -> None:
        """Sleep until the bell, another process's commit, or the end of `seconds`."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            if self.bell.wait(min(left, POLL)) or self._outbox.data_version() != seen:
                return


def _tell_stuck(error: Exception) -> None:
    if isinstance(error, OutboxdError):
        logger.error(line("stuck", reason=str(error), hint=error.hint))
    else:
        logger.error(line("bug", error=type(error).__name__, at=place(error)))
