"""What holds of deliveries whatever comes between their steps: a crash, a lost answer, a pause, a rival.

Two drainers of one real outbox fold and deliver to one Brevo, which is the sandbox without its network, so
that each step can be taken by itself: write, claim, one change, record. In the end all is delivered once.
"""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from outboxd import intake
from outboxd.admit import admission
from outboxd.backoff import Backoff
from outboxd.brevo import answers
from outboxd.brevo.paths import route
from outboxd.brevo.sandbox.account import Account
from outboxd.brevo.sandbox.limits import Limits
from outboxd.brevo.sandbox.messages import Request
from outboxd.brevo.sandbox.stand_in import StandIn
from outboxd.brevo.visit import carry_out
from outboxd.clock import to_text
from outboxd.errand import Errand, Plan
from outboxd.event import Outcome, Result, Verdict
from outboxd.fold.policy import Policy
from outboxd.outbox import Outbox
from tests.fuzz import cases
from tests.outboxes import new_outbox
from tests.torture.judge import TOTALS

LEASE = timedelta(seconds=60)
LONGEST = timedelta(seconds=40)
"""How long a delivery takes at most: none begins that its lease might not outlast."""

LIST = 5
HEADERS = {"api-key": "any", "content-type": "application/json"}
RULES = {"email": "email", "firstName": "FIRSTNAME", "lastName": "LASTNAME"}
NAMES = {"firstName": "FIRSTNAME", "lastName": "LASTNAME"}

CUSTOMERS = st.integers(1, 3)
DRAINERS = st.integers(0, 1)
CHOICES = st.integers(0, 99)

ANSWERED = "Brevo answers"
LOST = "Brevo takes the call, and the answer is lost"
NEVER = "the call does not arrive"
DIES_BEFORE = "the drainer dies before the call"
DIES_AFTER = "the drainer dies between Brevo's answer and the record"
TROUBLES = st.sampled_from([ANSWERED] * 3 + [LOST, NEVER, DIES_BEFORE, DIES_AFTER])


class DeadError(Exception):
    """The process that made the call is no more."""


@dataclass
class Truth:
    """A customer as the shop knows them, which is what Brevo must have in the end."""

    email: str
    is_there: bool = False
    was_deleted: bool = False
    is_out: bool = False
    attributes: dict[str, str] = field(default_factory=dict)
    changed_at: dict[str, datetime] = field(default_factory=dict)


class Drainer:
    """A process that drains: what it has under way is gone when it dies, what it has written is not."""

    def __init__(self, path: Path) -> None:
        self.outbox = Outbox(path, default_source="custom")
        self.errands: list[Errand] = []
        self.results: list[Result] = []


class Deliveries(RuleBasedStateMachine):
    """Shops, drainers, and Brevo; time passes when it is told to."""

    @initialize(deletes_softly=st.booleans(), updates=st.booleans())
    def begin(self, deletes_softly: bool, updates: bool) -> None:
        self.directory = TemporaryDirectory()
        self.path = new_outbox(Path(self.directory.name) / "outbox.db")
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.plan = Plan(
            RULES,
            Policy(list_ids=(LIST,), deletes_softly=deletes_softly),
            backoff=Backoff(max_attempts=1000),
            updates=updates,
        )
        self.brevo = StandIn(
            Account(now=self.now),
            Limits(requests_per_second=None, requests_per_hour=None, other_per_hour=None),
            clock=lambda: self.now,
            api_key="any",
            import_delay=timedelta(0),
        )
        self.drainers = [Drainer(self.path) for _ in range(2)]
        self.truths = {number: Truth(f"ann{number}@example.com") for number in range(1, 4)}
        self.written = 0

    # The shop

    @rule(
        number=CUSTOMERS,
        consent=st.sampled_from([None, None, True, False]),
        names=st.sets(st.sampled_from([*NAMES])),
    )
    def tell(self, number: int, consent: bool | None, names: set[str]) -> None:
        """The customer is created, or changed."""
        truth = self.truths[number]
        at = self._tick()
        kind = "updated" if truth.is_there else "created"
        if not truth.is_there:
            truth.attributes, names = {}, set(NAMES)
        data: dict[str, Any] = {"id": number, "email": truth.email}
        for name in names:
            data[name] = truth.attributes[NAMES[name]] = f"{name} {self.written}"
            truth.changed_at[name] = at
        if consent is not None:
            data["acceptsMarketing"], truth.is_out = consent, not consent
        truth.is_there = True
        self._write(kind, data, at)

    @rule(number=CUSTOMERS)
    def move(self, number: int) -> None:
        """The customer has a new address."""
        truth = self.truths[number]
        if truth.is_there:
            at = self._tick()
            truth.email = f"ann{number}.{self.written}@example.com"
            self._write("updated", {"id": number, "email": truth.email}, at)

    @rule(number=CUSTOMERS)
    def delete(self, number: int) -> None:
        truth = self.truths[number]
        if truth.is_there:
            truth.is_there, truth.was_deleted = False, True
            self._write("deleted", {"id": number}, self._tick())

    @rule(number=CUSTOMERS, name=st.sampled_from([*NAMES]))
    def tell_late(self, number: int, name: str) -> None:
        """Old news arrives, which newer news has made void."""
        truth = self.truths[number]
        if truth.is_there and not truth.was_deleted:
            before = truth.changed_at[name] - timedelta(microseconds=1000)
            self._write("updated", {"id": number, "email": truth.email, name: "old"}, before)

    # The drainers

    @rule(which=DRAINERS, limit=st.integers(1, 3))
    def claim(self, which: int, limit: int) -> None:
        drainer = self.drainers[which]
        drainer.outbox.admit(
            [admission(each, self.plan.reading) for each in drainer.outbox.fresh()], self.now
        )
        for claim in drainer.outbox.claim(self.now, limit=limit, lease=LEASE):
            others = drainer.outbox.others
            errand = Errand(claim, self.plan, None, others, clock=lambda: self.now, longest=LONGEST)
            errand.begin()
            drainer.errands.append(errand)

    @precondition(lambda self: any(each.errands for each in self.drainers))
    @rule(which=DRAINERS, choice=CHOICES, trouble=TROUBLES, at=st.integers(1, 2))
    def tell_brevo(self, which: int, choice: int, trouble: str, at: int) -> None:
        """One change is told, in one call or more; `trouble` comes at one of them."""
        drainer = self.drainers[which]
        if not drainer.errands:
            return
        errand = drainer.errands[choice % len(drainer.errands)]
        if errand.change is None or errand.is_late:
            drainer.errands.remove(errand)
            drainer.results.append(errand.result())
            return
        try:
            errand.tell(self._carried_out(errand, trouble, at))
        except DeadError:
            self._die(which)

    @precondition(lambda self: any(each.results for each in self.drainers))
    @rule(which=DRAINERS, choice=CHOICES)
    def record(self, which: int, choice: int) -> None:
        """Some result is recorded, in time or late."""
        drainer = self.drainers[which]
        if drainer.results:
            result = drainer.results.pop(choice % len(drainer.results))
            drainer.outbox.record([self._scheduled(result)], self.now)

    @rule(which=DRAINERS)
    def crash(self, which: int) -> None:
        """SIGKILL, and another process in its place."""
        self._die(which)

    @rule()
    def crash_all(self) -> None:
        """Both are killed; the next one is alone, and takes over once no call can be under way."""
        for which in range(2):
            self._die(which)
        self.drainers[0].outbox.leases.take_over(self.now + LONGEST)

    @rule(seconds=st.sampled_from([0.001, 1, 15, 30, 61, 300]))
    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # The end

    def teardown(self) -> None:
        """Without further trouble all of it ends, once, and Brevo has what the shop has."""
        if not hasattr(self, "drainers"):
            return
        for _ in range(200):
            self.now += timedelta(minutes=5)
            for which in range(2):
                self.claim(which, 3)
                drainer = self.drainers[which]
                while drainer.errands:
                    self.tell_brevo(which, 0, ANSWERED, 1)
                while drainer.results:
                    self.record(which, 0)
            if not self._count("pending"):
                break
        found = {contact["email"]: contact for contact in self.brevo.contacts}
        ended = {status: self._count(status) for status in ("pending", "dead", "delivered")}
        with closing(sqlite3.connect(self.path)) as connection:
            [recorded] = connection.execute(TOTALS).fetchone()
            known = connection.execute("SELECT customer_id, synced_email FROM contacts").fetchall()
        for drainer in self.drainers:
            drainer.outbox.close()
        self.directory.cleanup()
        assert ended == {"pending": 0, "dead": 0, "delivered": self.written}
        assert recorded == self.written
        for truth in self.truths.values():
            if truth.is_there:
                self._assert_right(truth, found.pop(truth.email, None))
        for contact in found.values():  # of the deleted, under whatever address they had last in Brevo
            assert self.plan.policy.deletes_softly
            assert contact["emailBlacklisted"]
            assert not contact["listIds"]
            assert not self.truths[int(contact["email"][3])].is_there
        assert len(known) == len({number for number, _ in known})

    def _assert_right(self, truth: Truth, contact: Mapping[str, Any] | None) -> None:
        assert contact is not None
        assert contact["attributes"] == truth.attributes
        assert contact["listIds"] == [LIST]
        if not (
            self.plan.policy.deletes_softly and truth.was_deleted
        ):  # whom a soft deletion blocklisted, only an opt-in brings back
            assert contact["emailBlacklisted"] is truth.is_out

    # What these are made of

    def _tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def _write(self, kind: str, data: Mapping[str, Any], at: datetime) -> None:
        row = (f"customer_{kind}", json.dumps(data), None, to_text(at), None)
        intake.write(self.path, [row], lambda: self.now)
        self.written += 1

    def _die(self, which: int) -> None:
        self.drainers[which].outbox.close()
        self.drainers[which] = Drainer(self.path)

    def _carried_out(self, errand: Errand, trouble: str, at: int) -> Outcome:
        made = 0

        def call(method: str, path: str, body: Mapping[str, Any] | None = None) -> answers.Answer:
            nonlocal made
            made += 1
            happens = trouble if made == at else ANSWERED
            name = f"{method} {route(path)}"
            if happens == DIES_BEFORE:
                raise DeadError
            if happens == NEVER:
                return answers.Answer(name, message="it did not arrive")
            content = b"" if body is None else json.dumps(body).encode()
            resource, _, query = path.partition("?")
            fate = self.brevo.meet(Request(method, f"/v3{resource}", query, HEADERS, content, body))
            assert fate.answer is not None
            self.brevo.end(fate.call, fate.answer.status)
            if happens == DIES_AFTER:
                raise DeadError
            if happens == LOST:
                return answers.Answer(name, message="no answer")
            return answers.read(name, fate.answer.status, fate.answer.headers, fate.answer.content)

        assert errand.change is not None
        return carry_out(errand.change, call, updates=self.plan.updates)

    def _scheduled(self, result: Result) -> Result:
        """What failed is tried again after a second, as a relay's backoff would have it."""
        retry_at = self.now + timedelta(seconds=1)
        outcomes = {
            number: replace(each, retry_at=retry_at) if each.verdict is Verdict.RETRY else each
            for number, each in result.outcomes.items()
        }
        return replace(result, outcomes=outcomes)

    def _count(self, status: str) -> int:
        with closing(sqlite3.connect(self.path)) as connection:
            [count] = connection.execute("SELECT count(*) FROM outbox WHERE status = ?", (status,)).fetchone()
        return int(count)


Deliveries.TestCase.settings = settings(
    max_examples=cases(40),
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestDeliveries = Deliveries.TestCase
