"""What was asked of the sandbox: a record of each call below /v3, for tests and curious eyes."""

from collections import Counter, deque
from dataclasses import asdict, dataclass
from itertools import islice
from threading import Lock
from time import monotonic
from typing import Any, NamedTuple

from outboxd.brevo.sandbox.messages import Request
from outboxd.brevo.sandbox.subjects import Subjects


@dataclass(frozen=True, slots=True)
class Call:
    """One call. Times are `time.monotonic()` seconds.

    A call ends just before its answer, or what stands in for it, begins to be sent: a client that has its
    answer finds the call recorded, and what it does next does not overlap with it.
    """

    number: int  # from 1, in the order in which calls ended
    method: str
    path: str  # below /v3 as it was sent, with the query
    identifier: str | None  # the address, as of arrival, of the one contact that the call is about
    status: int | None  # None when no proper answer was given
    started_at: float
    ended_at: float
    body: dict[str, Any] | None  # the JSON object that was sent
    request_id: str

    def shown(self) -> dict[str, Any]:
        """The call as JSON."""
        return asdict(self)


class UnderWay(NamedTuple):
    """A call that has arrived and has not ended."""

    request: Request
    subjects: Subjects
    started_at: float
    request_id: str


class Calls:
    """The record of calls, the last `keep` of them (None: all), and counts of all. Safe for threads."""

    def __init__(self, *, keep: int | None = None) -> None:
        self._lock = Lock()
        self._kept: deque[Call] = deque(maxlen=keep)
        self._by_status: Counter[str] = Counter()
        self._under_way: Counter[str | int] = Counter()
        self._arrived = 0
        self._ended = 0
        self._largest_overlap = 0

    def begin(self, request: Request, subjects: Subjects) -> UnderWay:
        """A call has arrived."""
        with self._lock:
            self._arrived += 1
            for key in subjects.keys:
                self._under_way[key] += 1
                self._largest_overlap = max(self._largest_overlap, self._under_way[key])
            return UnderWay(request, subjects, monotonic(), f"sandbox-{self._arrived:08d}")

    def end(self, call: UnderWay, status: int | None) -> None:
        """It is about to be answered with that status, or not to be answered properly."""
        request = call.request
        path = request.path.removeprefix("/v3")
        with self._lock:
            for key in call.subjects.keys:
                self._under_way[key] -= 1
                if not self._under_way[key]:
                    del self._under_way[key]
            self._ended += 1
            self._by_status["none" if status is None else str(status)] += 1
            ended = Call(
                self._ended,
                request.method,
                f"{path}?{request.query}" if request.query else path,
                call.subjects.email,
                status,
                call.started_at,
                monotonic(),
                request.document if isinstance(request.document, dict) else None,
                call.request_id,
            )
            self._kept.append(ended)

    def since(self, number: int = 0) -> list[Call]:
        """The calls kept whose number is greater."""
        with self._lock:
            forgotten = self._ended - len(self._kept)
            return list(islice(self._kept, max(0, number - forgotten), None))

    def stats(self) -> dict[str, Any]:
        """`{"calls", "under_way", "by_status": {"201": n, "none": n}, "largest_overlap"}`.

        Calls are all that ever ended; the largest overlap is the greatest number of calls that were under
        way at one time for one contact.
        """
        with self._lock:
            return {
                "calls": self._ended,
                "under_way": self._arrived - self._ended,
                "by_status": dict(sorted(self._by_status.items())),
                "largest_overlap": self._largest_overlap,
            }
