"""The crew: threads that carry jobs, and what they bring back to the one thread that owns the database."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Event, Lock
from typing import Any, TypeVar

from outboxd.event import Outcome, Verdict
from outboxd.logs import line, logger
from outboxd.trouble import origin

SETTLE = 0.001
"""Seconds in which some hand ends a job, unless all that have one wait for Brevo."""

PATIENCE = 0.25
"""Seconds after which a job begins though the crew stands: it may stand for a lock that somebody else has."""

PERIOD = 0.25
"""Seconds over which the rate is measured."""

_Part = TypeVar("_Part")


class Crew:
    """So many `hands` for jobs that wait for one, and so many `others` for jobs that wait for nobody.

    `ring` tells the owner that there is something to be taken in.
    `jobs` are under way, `rate` is how many ended in a second, lately.
    """

    def __init__(self, hands: int, others: int, ring: Callable[[], None]) -> None:
        self.jobs = 0
        self.rate = 0.0
        self._ended = 0
        self._counted_at = float("-inf")
        self._ring = ring
        self._hands = ThreadPoolExecutor(hands, thread_name_prefix="delivery")
        self._others = ThreadPoolExecutor(others, thread_name_prefix="delivery")
        self._lock = Lock()
        self._go = Event()
        self._go.set()
        self._busy = 0
        self._freed = Event()
        self._returned: SimpleQueue[tuple[Callable[[Any], None], Any, bool]] = SimpleQueue()

    @property
    def has_returned(self) -> bool:
        """Whether there is something to be taken in …"""
        return not self._returned.empty()

    @property
    def is_ripe(self) -> bool:
        """… and whether it is as much as what is still under way."""
        return self._returned.qsize() * 2 >= self.jobs

    def queue(self, job: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """As `submit`, once one of the hands is free."""
        self.jobs += 1
        self._hands.submit(self._carry, partial(self._busily, job), then, True)

    def submit(self, job: Callable[[], Any], then: Callable[[Any], None], *, is_beside: bool = False) -> None:
        """Run `job` in a thread, and `then` with what it returned when that is taken in.

        A job that breaks off has returned a failed outcome. Nobody waits for one that is beside the rest.
        """
        self.jobs += not is_beside
        self._others.submit(self._carry, job, then, not is_beside)

    def hand_back(self, then: Callable[[Any], None], told: Any) -> None:
        """From within a job that goes on: `then` is to be done with this already."""
        self._bring(then, told, is_end=False)

    def in_turn(self, parts: Iterable[_Part]) -> Iterator[_Part]:
        """The parts of a job that computes for long: none of them begins while the crew stands."""
        for part in parts:
            self._go.wait(PATIENCE)
            yield part

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Let nobody begin a job while this lasts, for PATIENCE at most; who only computes ends theirs first.

        For transactions: each of their statements would wait until every busy thread has had its turn with
        the interpreter, and so would whoever else wants to write to the file.
        """
        self._go.clear()
        try:
            while self._busy and self._freed.wait(SETTLE):
                self._freed.clear()
            yield
        finally:
            self._go.set()

    def take_in(self, now: float) -> None:
        """Do what is to be done with whatever came back; `now` is in seconds of a clock that is never set."""
        while not self._returned.empty():
            then, told, is_end = self._returned.get()
            self.jobs -= is_end
            self._ended += is_end
            then(told)
        if (seconds := now - self._counted_at) >= PERIOD:
            self.rate = self._ended / seconds
            self._ended, self._counted_at = 0, now

    def close(self, *, waits: bool = False) -> None:
        """Let the threads go, at the end of what they are at; what none of them has begun is dropped."""
        for is_waiting in (False, waits):
            for pool in (self._hands, self._others):
                pool.shutdown(wait=is_waiting, cancel_futures=True)
        if waits:
            self.jobs = 0

    def _busily(self, job: Callable[[], Any]) -> Any:
        with self._lock:
            self._busy += 1
        try:
            return job()
        finally:
            with self._lock:
                self._busy -= 1
            self._freed.set()

    def _carry(self, job: Callable[[], Any], then: Callable[[Any], None], is_end: bool) -> None:
        self._go.wait(PATIENCE)
        try:
            told = job()
        except Exception as error:
            logger.error(line("bug", error=type(error).__name__, at=origin(error)))
            told = Outcome(Verdict.RETRY, detail=f"internal error: {type(error).__name__}")
        self._bring(then, told, is_end=is_end)

    def _bring(self, then: Callable[[Any], None], told: Any, *, is_end: bool) -> None:
        with self._lock:  # or two that return at once would both take the other for the first
            self._returned.put((then, told, is_end))
            is_first = self._returned.qsize() == 1
        if is_first or self.is_ripe:
            self._ring()
