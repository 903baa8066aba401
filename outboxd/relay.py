"""The relay: the drain of the outbox. Admit, claim, fold, deliver, record, announce.

One thread (whoever calls `step`) owns the database and records in groups; a pool of others carries the
claims to Brevo. HTTP never happens inside a transaction. `step` is one round and says how long to rest.
"""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from queue import SimpleQueue
from time import monotonic

from outboxd import logs, sources
from outboxd.clock import milliseconds, to_text
from outboxd.delivery import ASIDE, Courier, Delivery, Plan, place, reason
from outboxd.errors import EventError, OutboxdError
from outboxd.event import FINISHED_WELL, Claim, Event, Kind, Outcome, Result, Verdict
from outboxd.lane import Lane
from outboxd.logs import line, logger
from outboxd.outbox import CHUNK, Admission, Outbox, address_key
from outboxd.payload import parse

POLL = 0.04
"""Seconds between two looks for other processes' commits."""

TICK = 5.0
"""Seconds a round may be put off at most, whatever the clocks say."""

LEASE = 1.25
"""How much longer a lease is than the longest delivery: what is left lets a refused change be taken apart."""

LONG = timedelta(seconds=15)
"""The longest rest that a drain sits out."""

HEARTBEAT = timedelta(seconds=10)


class Relay:
    """The drain of one outbox through one courier."""

    def __init__(
        self,
        outbox: Outbox,
        courier: Courier,
        plan: Plan,
        *,
        clock: Callable[[], datetime],
        chance: Callable[[], float],
    ) -> None:
        self.bell = threading.Event()
        self.lane = Lane()
        self._outbox = outbox
        self._courier = courier
        self._plan = plan
        self._delivery = Delivery(courier, plan, clock=clock)
        self._clock = clock
        self._chance = chance
        self._pool = ThreadPoolExecutor(plan.workers, thread_name_prefix="delivery")
        self._done: SimpleQueue[Result] = SimpleQueue()
        self._in_flight = 0
        self.is_drained = False
        self._unrecorded: list[Result] = []
        self.stepped_at = monotonic()
        self._beaten_at: datetime | None = None
        self._told_lane: Lane | None = None

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
        while (self._in_flight or self._unrecorded) and monotonic() < give_up:
            self.bell.clear()
            try:
                self._record(self._clock())
            except Exception as error:
                _tell_stuck(error)
                self.bell.wait(1.0)
            if self._in_flight:
                self.bell.wait(max(0.0, min(TICK, give_up - monotonic())))
        self.close()

    def drain(self, *, until_nothing_waits: bool = False) -> None:
        """Deliver until nothing is due (or even waits for another attempt), or the lane is blocked."""
        while True:
            self.bell.clear()
            pause = self.step()
            is_idle = not self._in_flight and not self._unrecorded
            self.is_drained = not self._has_work(later=until_nothing_waits)
            if is_idle and (self.is_drained or self._is_stopped()):
                return
            self.bell.wait(pause)

    def step(self) -> float:
        """One round: record what came back, admit what is new, begin what is due; seconds to rest."""
        self.stepped_at = monotonic()
        now = self._clock()
        self._record(now)
        self._beat(now)
        if not self._plan.enabled:
            return TICK
        more = self._admit(now)
        begun = self._begin(now)
        if more or (begun and self._room(now)):
            return 0.0
        return self._rest(now)

    @property
    def is_busy(self) -> bool:
        """Whether deliveries are under way."""
        return self._in_flight > 0

    def close(self) -> None:
        """Let the delivery threads and the database go."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._outbox.close()

    # The six stages.

    def _admit(self, now: datetime) -> bool:
        """Take in one chunk of new events; whether there may be more."""
        events = self._outbox.fresh()
        if not events:
            return False
        admissions = [_admission(event, self._plan.reading) for event in events]
        self._outbox.admit(admissions, now)
        for admission in admissions:
            if admission.outcome is not None:
                told = admission.outcome
                logger.warning(
                    line(
                        str(told.verdict),
                        event=admission.event.id,
                        reason=told.detail or "; ".join(told.warnings),
                    )
                )
        return len(events) == CHUNK

    def _begin(self, now: datetime) -> bool:
        """Claim what is due, as much as workers, limits and lane have room for, and hand it out."""
        room = self._room(now)
        due = self._outbox.next_due() if room else None
        if due is None or due > now:
            return False
        claims = self._outbox.claim(now, limit=room, lease=self._courier.longest * LEASE)
        for claim in claims:
            self._in_flight += 1
            self._pool.submit(self._carry, claim)
        return bool(claims)

    def _carry(self, claim: Claim) -> None:
        self._done.put(self._delivery.carry(claim))
        self.bell.set()

    def _record(self, now: datetime) -> None:
        while not self._done.empty() and len(self._unrecorded) < CHUNK:
            self._unrecorded.append(self._judged(self._done.get(), now))
            self._in_flight -= 1
        if not self._unrecorded:
            return
        for result in self._unrecorded:
            if result.is_redacted:
                self._outbox.purge(result.claim.contact.customer_key)
        kept = self._outbox.record(self._unrecorded, now)
        results, self._unrecorded = self._unrecorded, []
        for result in results:
            self._delivery.end(result.claim)
            self._announce(result, now, is_lost=result not in kept)

    def _judged(self, result: Result, now: datetime) -> Result:
        """The result with its outcomes as the lane and the backoff see them."""
        seen: dict[int, Outcome] = {}
        outcomes = {}
        for event in result.claim.events:
            outcome = result.outcomes.get(event.id)
            if outcome is None:
                continue
            if id(outcome) not in seen:
                self.lane, seen[id(outcome)] = self.lane.judge(outcome, now)
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

    def _announce(self, result: Result, now: datetime, *, is_lost: bool) -> None:
        """One line an outcome; events folded into one call share it."""
        told: dict[Outcome, list[int]] = {}
        for event_id, outcome in result.outcomes.items():
            told.setdefault(replace(outcome, retry_at=None), []).append(event_id)
        for outcome, ids in told.items():
            is_fine = outcome.verdict in FINISHED_WELL and not outcome.warnings
            is_aside = outcome.verdict is Verdict.BLOCKED and outcome.call is None
            logger.log(
                logs.LEVELS["verbose" if is_aside else "info" if is_fine else "warning"],
                line(
                    str(outcome.verdict),
                    event=",".join(map(str, ids)),
                    customer=result.claim.contact.customer_key,
                    call=outcome.call,
                    status=outcome.http_status,
                    code=outcome.error_code,
                    calls=result.calls or None,
                    ms=milliseconds(now - result.claim.claimed_at),
                    attempt=max(e.attempts for e in result.claim.events if e.id in ids),
                    reason=outcome.detail,
                    warning="; ".join(outcome.warnings) or None,
                    request=outcome.request_id,
                    lost="lease" if is_lost else None,
                ),
            )

    # How much may begin, and how long to rest.

    def _room(self, now: datetime) -> int:
        room = self._plan.workers - self._in_flight
        allowed = self.lane.room(now)
        if allowed is not None:
            room = allowed if self._in_flight == 0 else 0
        return min(room, self._courier.room()) if room > 0 else 0

    def _rest(self, now: datetime) -> float:
        """Until something is due; whatever comes earlier rings the bell."""
        if self._in_flight and not self._room(now) and not self._courier.wait():
            return TICK  # a delivery that ends makes room
        due = self._outbox.next_due()
        if due is None:
            return TICK
        waits = [(due - now).total_seconds(), self._courier.wait()]
        if self.lane.until is not None and self.lane.state != "running":
            waits.append((self.lane.until - now).total_seconds())
        return min(TICK, max(0.0, *waits))

    def _is_stopped(self) -> bool:
        """Whether the lane stands still for longer than somebody who waits would like."""
        until = self.lane.until
        return self.lane.state == "blocked" or (
            self.lane.state == "waiting" and until is not None and until > self._clock() + LONG
        )

    def _has_work(self, *, later: bool) -> bool:
        due = self._outbox.next_due()
        return bool(self._outbox.fresh(1)) or (
            due is not None and (later or due <= self._clock() + 2 * ASIDE)
        )

    def _sleep(self, seconds: float, seen: int) -> None:
        """Sleep until the bell, another process's commit, or the end of `seconds`."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            if self.bell.wait(min(left, POLL)) or self._outbox.data_version() != seen:
                return

    def _beat(self, now: datetime) -> None:
        """Tell `status` that this process lives, and how its lane is."""
        is_late = self._beaten_at is None or not timedelta(0) <= now - self._beaten_at < HEARTBEAT
        if not is_late and self.lane == self._told_lane:
            return
        lane = {
            "state": self.lane.state if self._plan.enabled else "disabled",
            "reason": self.lane.reason,
            "until": to_text(self.lane.until) if self.lane.until else None,
        }
        if self._told_lane and self.lane.state != self._told_lane.state:
            logger.warning(line("lane", state=self.lane.state, reason=self.lane.reason, until=lane["until"]))
        self._outbox.save_state({"heartbeat": to_text(now), "lane": json.dumps(lane)}, now)
        self._beaten_at, self._told_lane = now, self.lane


def _tell_stuck(error: Exception) -> None:
    if isinstance(error, OutboxdError):
        logger.error(line("stuck", reason=str(error), hint=error.hint))
    else:
        logger.error(line("bug", error=type(error).__name__, at=place(error)))


def _admission(event: Event, options: sources.Options) -> Admission:
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
    return Admission(event, reading.customer_id, addresses)
