"""Brevo without the network: what happens to a call between being read and being answered.

Recognised, checked for its key, counted against the limits, hit by a fault or carried out on the account:
each step has a room of its own, only their order is here. Safe for threads, by one lock around it all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import unquote

from outboxd.brevo.sandbox import routes, subjects
from outboxd.brevo.sandbox.account import Account
from outboxd.brevo.sandbox.calls import Call, Calls, UnderWay
from outboxd.brevo.sandbox.faults import CARRIED_OUT, Fault, Faults
from outboxd.brevo.sandbox.limits import Limits
from outboxd.brevo.sandbox.messages import Answer, Request
from outboxd.brevo.sandbox.processes import Processes

_NO_KEY = Answer.error(401, "unauthorized", "authentication not found in headers")
_WRONG_KEY = Answer.error(401, "unauthorized", "Key not found")


class Fate(NamedTuple):
    """What becomes of a call: an answer, or a behaviour in place of one."""

    call: UnderWay
    answer: Answer | None
    behaviour: str | None = None


class StandIn:
    """The account, its limits, the faults in force and the record of calls, together."""

    def __init__(
        self,
        account: Account,
        limits: Limits,
        *,
        clock: Callable[[], datetime],
        api_key: str,
        faults: Iterable[Fault] = (),
        seed: int = 0,
        keep_calls: int | None = None,
        import_delay: timedelta,
    ) -> None:
        self.faults = Faults(faults, seed=seed)
        self._calls = Calls(keep=keep_calls)
        self._account = account
        self._processes = Processes(delay=import_delay)
        self._limits = limits
        self._clock = clock
        self._api_key = api_key
        self._lock = Lock()

    @property
    def contacts(self) -> list[dict[str, Any]]:
        """All contacts as GET shows them, in the order of their creation; copies."""
        with self._lock:
            self._up_to_date()
            return [contact.shown() for contact in self._account.contacts]

    def contact(self, email: str) -> dict[str, Any] | None:
        """One contact as GET shows it."""
        with self._lock:
            self._up_to_date()
            contact = self._account.find(email, "email_id")
            return contact.shown() if contact else None

    def unsubscribe(self, email: str) -> None:
        """A person unsubscribes inside Brevo; raises LookupError when nobody has that address."""
        with self._lock:
            now = self._up_to_date()
            contact = self._account.find(email, "email_id")
            if contact is None:
                raise LookupError("no contact has that address")
            self._account.unsubscribe(contact, now)

    @property
    def calls(self) -> Sequence[Call]:
        """The calls that are kept, in the order in which they ended."""
        return self._calls.since()

    def calls_since(self, number: int) -> Sequence[Call]:
        """The calls that are kept, after the one with that number."""
        return self._calls.since(number)

    @property
    def stats(self) -> dict[str, Any]:
        """`{"calls", "under_way", "contacts", "by_status": {"201": n, "none": n}, "largest_overlap"}`."""
        with self._lock:
            self._up_to_date()
            return {**self._calls.stats(), "contacts": len(self._account.contacts)}

    def meet(self, request: Request) -> Fate:
        """Decide what becomes of a request below /v3, and do to the account what it asks for."""
        with self._lock:
            now = self._up_to_date()
            about = subjects.of(self._account, request)
            call = self._calls.begin(request, about)
            too_many, headers = self._limits.take(request.path, now)
            refusal = self._without_key(request) or too_many
            if refusal:
                return Fate(call, _with(refusal, headers))
            fault = self._fault(request, about) if self.faults else None
            if fault and fault.behaviour not in CARRIED_OUT:
                answer = fault.answer()
                return Fate(call, answer and _with(answer, headers), fault.behaviour)
            answer = routes.carry_out(routes.Operation(self._account, self._processes, request, now))
            return Fate(call, None, fault.behaviour) if fault else Fate(call, _with(answer, headers))

    def end(self, call: UnderWay, status: int | None) -> None:
        """Record that a call is about to be answered with that status, or not properly."""
        self._calls.end(call, status)

    def _up_to_date(self) -> datetime:
        """Carry out what is due by now, which is returned: the first step of every look at the account."""
        now = self._clock()
        self._processes.advance(now)
        return now

    def _without_key(self, request: Request) -> Answer | None:
        given = request.headers.get("api-key")
        if given is None:
            return _NO_KEY
        return None if given == self._api_key else _WRONG_KEY

    def _fault(self, request: Request, about: subjects.Subjects) -> Fault | None:
        path = unquote(request.path).removeprefix("/v3")
        return self.faults.pick(request.method, path, about.names)


def _with(answer: Answer, headers: Mapping[str, str]) -> Answer:
    """The answer with the limits' headers; its own, which a fault may have scripted, prevail."""
    return answer._replace(headers={**headers, **answer.headers}) if headers else answer
