"""The relay: the drain of the outbox. Admit, claim, fold, deliver, record, announce.

One thread (whoever calls `step`) owns the database and records in groups; a pool of others carries the
claims to Brevo. HTTP never happens inside a transaction. `step` is one round and says how long to rest.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from time import monotonic

from outboxd import announce, trace
from outboxd.admit import admission
from outboxd.clockwork import Clockwork
from outboxd.convoy import BulkCourier, Carried, Convoy
from outboxd.crew import Crew
from outboxd.delivery import Courier, Delivery
from outboxd.errand import Plan
from outboxd.errors import AdriftError
from outboxd.event import Claim, Outcome, Result, Verdict
from outboxd.heartbeat import Heartbeat
from outboxd.importing import Charge, Importing
from outboxd.lane import Lane
from outboxd.notify import Notifying
from outboxd.outbox import CHUNK, Outbox
from outboxd.pace import Mode, Pace
from outboxd.pause import KEY, Pause, standing
from outboxd.processor import on_one_processor
from outboxd.prune import Pruner
from outboxd.retry import scheduled
from outboxd.salvage import leave
from outboxd.trouble import AGAIN
from outboxd.wake import Wake
from outboxd.webhook import Webhook

GATHER = 0.01
"""Seconds for which deliveries that end wait for others to end, so that one transaction records them all."""

TICK = 30.0
"""Seconds a round may be put off at most, whatever the clocks say."""

LEASE = 1.25
"""How much longer a lease is than the longest delivery: what is left lets a refused change be taken apart."""

LONG = timedelta(seconds=15)
"""The longest wait, at once or in turns, that a drain sits out."""

FIRST_ADMITTED, STRANGERS = 2000, 100
"""Chunks that are admitted first, to be folded as a whole; one in which nobody recurs counts as so many."""

AHEAD = 0.1
"""Seconds' worth of deliveries that are claimed ahead while calls are plenty, so that no worker waits …"""

MOST_AHEAD = 192
"""… and how many at most. What a killed daemon had claimed waits for the next one to take it over."""

CONVOYS, BATCHES = 4, 5
"""Convoys under way at once, and the batches that each is of."""


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
        self._wake = Wake(outbox.path, outbox.data_version)
        self.bell = self._wake.bell
        self._crew = Crew(plan.workers, CONVOYS + 2, self.bell.set)  # one for imports, one for notices
        self.submit = self._crew.submit
        outbox.quiet = self._crew.standing
        self.lane = Lane()
        self._outbox = outbox
        self._courier = courier
        self._plan = plan
        self.triggers = mode.triggers
        self._mode = mode
        self._pruner = pruner
        self._delivery = Delivery(courier, plan, outbox.others, clock=clock, closed=charge.closed)
        self._convoy = Convoy(self._delivery, bulk, plan, self._crew)
        self._importing = Importing(
            outbox.imports, self._delivery, self._convoy, bulk, self, plan, clock, charge
        )
        self._clockwork = Clockwork(outbox, self._delivery, self._importing, clock)
        self._clock = clock
        self._charge = charge
        self._placed = on_one_processor if charge.is_alone else nullcontext  # two might choose the same
        self._chance = chance
        self._notifying = Notifying(outbox.notices, webhook, self._crew, clock=clock, chance=chance)
        self._alone = self._convoys = self._admitted = 0
        self._now = clock()
        self._paces: Sequence[Pace] = ()
        self.is_drained = self.is_adrift = self._goes_together = False
        self.paused: Pause | None = None
        self._is_draining = self._is_ending = self._is_wary = self._is_left = False
        self._unrecorded: list[Result] = []
        self._heart = Heartbeat(outbox, courier.left, enabled=plan.enabled)

    # The loop, and its two ways of ending.

    def run(self, stopping: threading.Event, grace: timedelta) -> None:
        """Drain until `stopping` is set and the bell rung; then finish what is in flight, for `grace`."""
        with self._placed():
            while not stopping.is_set():
                try:
                    seen = self._wake.seen()
                    self._charge.check()
                    pause = self.step()
                    self._charge.trouble.note(self._delivery.fault)
                    self._sleep(pause, seen)
                except AdriftError as error:
                    self._charge.trouble.tell(error)
                    self.is_adrift = True
                    self._delivery.halt()
                    self._leave(stopping.wait)
                    self._crew.close(waits=True)  # what is in flight ends, unrecorded
                    return self.close()
                except Exception as error:  # the disk is full, the file is locked: it may mend
                    self._charge.trouble.tell(error)
                    stopping.wait(AGAIN)
            return self._finish(grace)

    def _finish(self, grace: timedelta) -> None:
        """Record what is in flight as it ends. What does not end in time keeps its lease until it lapses."""
        self._is_ending = True
        give_up = monotonic() + grace.total_seconds()
        while (self._crew.jobs or self._unrecorded) and monotonic() < give_up:
            self.bell.clear()
            try:
                self._take_back(self._clock())
            except Exception as error:
                self._charge.trouble.tell(error)
                if isinstance(error, AdriftError):
                    break
                self.bell.wait(AGAIN)
            if self._crew.jobs:
                self.bell.wait(max(0.0, min(TICK, give_up - monotonic())))
        self.close()

    def drain(self, *, until_nothing_waits: bool = False) -> None:
        """Deliver until nothing is due (or even waits for another attempt), or the lane is blocked."""
        self._is_draining = True
        if standing(self._outbox.state(KEY)) is None:
            self._mode.demand(self._clock())
        with self._notifying.awaited():
            while True:
                seen = self._wake.seen()
                pause = self.step()
                is_idle = not self._crew.jobs and not self._unrecorded and not self._notifying.is_busy
                has_work = self._has_work(later=until_nothing_waits) or not self._importing.is_idle
                is_held_up = self.lane.state == "blocked" and self._has_work(later=True)
                self.is_drained = not (has_work or is_held_up) and self.paused is None
                if is_idle and (not has_work or self._is_stopped()):
                    return self._delivery.check()
                self._sleep(pause, seen)

    def step(self) -> float:
        """One round: record what came back, admit what is new, begin what is due; seconds to rest."""
        now, self.lane = self._clockwork.follow(self.lane)
        self._take_back(now)
        self.paused = standing(self._outbox.state(KEY))
        self._heart.beat(self.lane, self.paused, now)
        if not self._plan.enabled:
            return min(TICK, self._pruner.step(now, is_idle=True))
        more = self._admit(now)
        self._importing.adopt(now)
        beside = self._notifying.step(now)
        if self.paused is None:  # no window opens meanwhile; one that was missed opens afterwards
            is_full = self._importing.is_full
            self._paces = [pace for pace in self._mode.paces(now) if not (pace.is_backfill and is_full)]
        if more and self._admitted < FIRST_ADMITTED:
            return 0.0
        self._admitted = self._admitted if more and not self._goes_together else 0
        if self.paused is not None:
            imports = self._importing.step(now, is_last=False)
            return 0.0 if more else min(TICK, imports, beside)
        begun = self._begin(now)
        imports = self._importing.step(now, is_last=self._is_draining and not begun and not self._convoys)
        if more or begun:
            self._pruner.step(now, is_idle=False)
            return 0.0
        is_idle = not self._crew.jobs and self._importing.is_idle
        if is_idle and not any(self._is_due(now, pace) for pace in self._paces):
            self._mode.rested(now)
        pruning = self._pruner.step(now, is_idle=is_idle)
        return min(self._rest(now), imports, beside, pruning)

    @property
    def lively_at(self) -> float:
        """When it last turned to the database, whether or not that let it wait."""
        return self._outbox.asked_at

    @property
    def is_busy(self) -> bool:
        """Whether deliveries are under way."""
        return self._crew.jobs > 0

    def close(self) -> None:
        """Let the delivery threads and the database go."""
        self._delivery.halt()
        self._crew.close()
        self._leave(lambda _: True)
        self._wake.close()
        self._pruner.close()
        self._outbox.close()  # the last one, for it knows what is to become of the log

    def _leave(self, wait: Callable[[float], bool]) -> None:
        """Once: nobody else may have what is open here any more."""
        if not self._is_left:
            self._is_left = True
            leave(self._outbox, self._clock, self._charge.trouble, wait)

    # What others may ask of it: see importing.Crew.

    def finish(self, results: Sequence[Result], *, is_judged: bool = False) -> None:
        """Record these in this round. `is_judged`: the lane knows of them already."""
        seen: dict[int, Outcome] = {}
        self._unrecorded.extend(self._judged(result, seen, is_judged=is_judged) for result in results)

    def judge(self, outcome: Outcome) -> Outcome:
        """What the lane makes of the outcome of a call."""
        self.lane, judged = self.lane.judge(outcome, self._clock())
        self._is_wary = False
        return judged

    # The stages.

    def _admit(self, now: datetime) -> bool:
        """Take in one chunk of new events; whether there may be more."""
        events = self._outbox.fresh()
        if not events:
            return False
        admissions = [admission(event, self._plan.reading) for event in events]
        live = [pace.is_together for pace in self._paces if not pace.is_backfill]
        self._goes_together = events[-1].is_backfill or any(live)
        joined = self._outbox.admit(admissions, now)
        announce.refused(admissions)
        self._mode.admitted(events)
        self._admitted += 1 if joined or self._goes_together else STRANGERS
        return len(events) == CHUNK

    def _begin(self, now: datetime) -> bool:
        """Claim what may go, as much as there is room for, and hand it out; whether there may be more."""
        allowed = self.lane.room(now)
        if allowed is not None:
            return self._probe(now) if allowed and not self._crew.jobs else False
        more = False
        for pace in self._paces:
            begin = self._begin_convoy if pace.is_together else self._begin_alone
            more = begin(now, pace) or more
        return more

    def _begin_alone(self, now: datetime, pace: Pace) -> bool:
        if (room := self._room_alone()) <= 0 or not self._is_due(now, pace):
            return False
        for claim in self._claim(now, pace, room):
            self._alone += 1
            self._crew.queue(partial(self._carry_alone, claim), self._carried_alone)
        return self._room_alone() > 0

    def _room_alone(self) -> int:
        """How many more claims can be handed out: one for each worker, and more where no limit is near."""
        calls = self._courier.room()
        most = self._plan.workers
        if calls > most + MOST_AHEAD:
            most += min(MOST_AHEAD, int(self._crew.rate * AHEAD))
        return min(most - self._alone, calls)

    def _carry_alone(self, claim: Claim) -> Result:
        """From a thread of the pool: deliver, unless nothing is to go any more since this was claimed."""
        is_stopped = self._is_wary or self.lane.state != "running" or self.paused is not None
        if is_stopped or self._is_ending:
            return Result(claim, {}, claim.contact)
        result = self._delivery.carry(claim)
        if any(each.verdict is Verdict.BLOCKED and each.call for each in result.outcomes.values()):
            self._is_wary = True  # until the lane has judged it
        return result

    def _begin_convoy(self, now: datetime, pace: Pace) -> bool:
        if self._convoys == CONVOYS or self._courier.room() <= 0 or not self._is_due(now, pace):
            return False
        most = self._plan.batch_size * BATCHES
        claims: list[Claim] = []
        try:
            while len(claims) < most and (more := self._claim(now, pace, min(most - len(claims), CHUNK))):
                claims.extend(more)
        finally:  # whoever is claimed goes, though no more can be claimed just now
            if claims:
                self._convoys += 1
                told = partial(self._crew.hand_back, self.finish)
                self.submit(partial(self._convoy.carry, claims, told), self._carried_together)
        return bool(claims) and self._convoys < CONVOYS

    def _probe(self, now: datetime) -> bool:
        """One delivery, to see whether Brevo is well again."""
        for pace in self._paces:
            for claim in self._claim(now, pace, 1):
                self._alone += 1
                self._crew.queue(partial(self._delivery.carry, claim), self._carried_alone)
                return True
        return False

    def _claim(self, now: datetime, pace: Pace, limit: int) -> Sequence[Claim]:
        lease, before = self._courier.longest * LEASE, pace.before
        found = self._outbox.claim(now, limit=limit, lease=lease, is_backfill=pace.is_backfill, before=before)
        return self._delivery.expect(found)

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
        self._crew.take_in(monotonic())
        while self._unrecorded:
            self._record(self._unrecorded[:CHUNK], now)

    def _record(self, results: Sequence[Result], now: datetime) -> None:
        for customer_key in (each.claim.contact.customer_key for each in results if each.is_redacted):
            self._outbox.purge(customer_key)
        kept = {id(result) for result in self._outbox.record(results, now)}
        del self._unrecorded[: len(results)]  # whatever fails from here on, they are recorded
        for result in results:
            self._delivery.end(result)
        self._mode.told(results)
        for result in results:
            trace.tell(result, self._plan.rules)
            announce.recorded(result, now, is_lost=id(result) not in kept)

    def _judged(self, result: Result, seen: dict[int, Outcome], *, is_judged: bool) -> Result:
        """The result with its outcomes as lane and backoff see them at its record; `seen`: of one call."""
        outcomes = {}
        for event in result.claim.events:
            if (outcome := result.outcomes.get(event.id)) is None:
                continue
            if id(outcome) not in seen:
                seen[id(outcome)] = outcome if is_judged else self.judge(outcome)
            left_out = result.left_out.get(event.id, ())
            judged = seen[id(outcome)]
            told = replace(judged, warnings=(*judged.warnings, *left_out)) if left_out else judged
            outcomes[event.id] = scheduled(event, told, self._plan.backoff, self._now, self._chance())
        return replace(result, outcomes=outcomes)

    # How long to rest.

    def _is_due(self, now: datetime, pace: Pace) -> bool:
        return (due := self._next_due(pace)) is not None and due <= now

    def _next_due(self, pace: Pace) -> datetime | None:
        return self._outbox.next_due(is_backfill=pace.is_backfill, before=pace.before, now=self._now)

    def _rest(self, now: datetime) -> float:
        """Until something is due; whatever comes earlier rings the bell."""
        is_full = self._alone >= self._plan.workers or self._convoys == CONVOYS
        if self.lane.state == "running" and is_full and not self._courier.wait():
            return TICK  # a delivery that ends makes room
        dues = [due for pace in self._paces if (due := self._next_due(pace)) is not None]
        stopped = max(self._courier.wait(), self.lane.stopped_for(now))
        waits = [max((min(dues) - now).total_seconds(), stopped)] if dues else []
        if (at := self._mode.next_at()) is not None:
            waits.append((at - now).total_seconds())
        return min(TICK, max(0.0, min(waits, default=TICK)))

    def _is_stopped(self) -> bool:
        """Whether the lane stands still for longer than somebody who waits would like."""
        return self.lane.outlasts(LONG, self._clock()) or self.paused is not None

    def _has_work(self, *, later: bool) -> bool:
        dues = [due for pace in self._paces if (due := self._next_due(pace)) is not None]
        horizon = self._delivery.back_by(self._clock() + LONG)
        return bool(self._outbox.fresh(1)) or any(later or due <= horizon for due in dues)

    def _sleep(self, seconds: float, seen: int) -> None:
        """Rest until there is news; what ends is taken in together with more of it, while no worker waits."""
        self._wake.rest(seconds, seen)
        are_ahead = self._alone > self._plan.workers
        is_pressing = self._is_wary or self._crew.is_ripe
        if seconds and are_ahead and self._crew.has_returned and not is_pressing:
            self.bell.clear()
            self.bell.wait(GATHER)
