"""What holds for the outbox at any time, whatever two drainers, programs and operators do, in any order."""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from outboxd import intake, report
from outboxd.event import Claim, Event, Outcome, Result, Verdict
from outboxd.keys import address_key
from outboxd.outbox import Admission, Outbox
from tests.fuzz import cases
from tests.outboxes import new_outbox

LEASE = timedelta(seconds=60)
Name = tuple[str | None, str | None]
NAMES: list[Name] = [("1", None), ("1", "a@example.com"), (None, "a@example.com"), ("2", "a@example.com")]
NAMES += [("2", None), (None, "b@example.com"), ("3", "b@example.com"), (None, None)]
REDACTION: Name = (None, "A@example.com")
"""Of all who have the address."""
VERDICTS = (
    *(Verdict.DELIVERED, Verdict.UNCHANGED, Verdict.SUPERSEDED),
    *(Verdict.RETRY, Verdict.REFUSED, Verdict.BLOCKED, None),
)
GOING_ON = {Verdict.RETRY, Verdict.BLOCKED, None}
DRAINERS = st.integers(0, 1)


class Drainers(RuleBasedStateMachine):
    """Two drainers of one file, and a model of it: each event's status, and who holds which customer."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.path = new_outbox(Path(self.directory.name) / "outbox.db")
        self.drainers = [Outbox(self.path, default_source="custom") for _ in range(2)]
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.status: dict[int, str] = {}
        self.named: dict[int, Name] = {}
        self.read: list[list[Event]] = []
        self.claims: list[Claim] = []
        self.holder: dict[str, Claim] = {}
        self.waits_until: dict[str, datetime] = {}

    def teardown(self) -> None:
        """Nothing is lost: what is pending in the end can still be delivered, all of it."""
        self.now += timedelta(days=2)
        for _ in range(len(self.status) + 2):
            self.admit(0)
            for claim in self.drainers[0].claim(self.now, limit=100, lease=LEASE):
                self._take(claim)
                self.record(len(self.claims) - 1, [Verdict.DELIVERED], 0, 1)
        self.the_table_agrees_with_the_model()
        lost = [event_id for event_id, status in self.status.items() if status == "pending"]
        for drainer in self.drainers:
            drainer.close()
        self.directory.cleanup()
        assert not lost

    # What programs, drainers and operators do

    @initialize(names=st.lists(st.sampled_from([*NAMES, REDACTION]), min_size=1, max_size=8))
    def begin(self, names: list[Name]) -> None:
        self.write(names)

    @rule(names=st.lists(st.sampled_from([*NAMES, REDACTION]), min_size=1, max_size=4))
    def write(self, names: list[Name]) -> None:
        rows = [("customer_updated", "{}", None, None, None)] * len(names)
        for event_id, name in zip(intake.write(self.path, rows, lambda: self.now), names, strict=True):
            self.status[event_id], self.named[event_id] = "pending", name

    @rule(drainer=DRAINERS, limit=st.integers(1, 5))
    def look(self, drainer: int, limit: int) -> None:
        """Read what is fresh, to admit it who knows when."""
        self.read.append(self.drainers[drainer].fresh(limit))

    @rule(drainer=DRAINERS)
    def admit_late(self, drainer: int) -> None:
        if self.read:
            self._admit(drainer, self.read.pop(0))

    @rule(drainer=DRAINERS)
    def admit(self, drainer: int) -> None:
        self._admit(drainer, self.drainers[drainer].fresh())

    def _admit(self, drainer: int, events: Iterable[Event]) -> None:
        admissions = []
        for event in events:
            customer_id, email = self.named[event.id]
            if customer_id is None and email is None:
                admissions.append(Admission(event, outcome=Outcome(Verdict.REFUSED, detail="nobody")))
                self.status[event.id] = "dead"
            else:
                address_keys = (address_key(email),) if email else ()
                is_redaction = self.named[event.id] == REDACTION
                admissions.append(Admission(event, customer_id, address_keys, is_redaction=is_redaction))
        self.drainers[drainer].admit(admissions, self.now)
        self._count_copies()

    def _count_copies(self) -> None:
        """What is about several customers was copied: of those who have one address each has one event."""
        with closing(sqlite3.connect(self.path)) as connection:
            rows = connection.execute("SELECT id, customer_key FROM outbox WHERE id > ?", (len(self.status),))
            copies = dict(rows.fetchall())
        assert None not in copies.values()
        self.status |= dict.fromkeys(copies, "pending")
        self.named |= dict.fromkeys(copies, REDACTION)

    @rule(drainer=DRAINERS, limit=st.integers(1, 4))
    def claim(self, drainer: int, limit: int) -> None:
        claims = self.drainers[drainer].claim(self.now, limit=limit, lease=LEASE)
        assert len(claims) <= limit
        for claim in claims:
            self._take(claim)
        if len(claims) < limit:  # then there was no more to be had
            assert not {key for key in self._pending_customers() if self._is_free(key)}

    def _take(self, claim: Claim) -> None:
        key = claim.contact.customer_key
        assert self._is_free(key), f"{key} is leased twice, or before its time"
        assert {self.status[event.id] for event in claim.events} == {"pending"}
        assert len({event.id for event in claim.events}) == len(claim.events)
        self.claims.append(claim)
        self.holder[key] = claim
        self.waits_until[key] = claim.until

    def _is_free(self, key: str) -> bool:
        return self.now >= self.waits_until.get(key, self.now)

    @rule(
        choice=st.integers(0, 99),
        verdicts=st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=5),
        drainer=DRAINERS,
        wait=st.integers(1, 200),
    )
    def record(self, choice: int, verdicts: list[Verdict | None], drainer: int, wait: int) -> None:
        """End some claim, held or lost, by whichever drainer; what has no verdict had no turn."""
        if not self.claims:
            return
        claim = self.claims.pop(choice % len(self.claims))
        retry_at = self.now + timedelta(seconds=wait)
        said = {event.id: verdicts[n % len(verdicts)] for n, event in enumerate(claim.events)}
        outcomes = {
            event_id: Outcome(verdict, retry_at=retry_at if verdict is Verdict.RETRY else None)
            for event_id, verdict in said.items()
            if verdict is not None
        }
        result = Result(claim, outcomes, claim.contact)
        kept = self.drainers[drainer].record([result], self.now)
        assert kept == ([result] if self._let_go(claim) else [])
        if kept:
            if Verdict.RETRY in said.values():
                self.waits_until[claim.contact.customer_key] = retry_at
            for event_id, verdict in said.items():
                if verdict not in GOING_ON:
                    self.status[event_id] = "dead" if verdict is Verdict.REFUSED else "delivered"

    @rule(choice=st.integers(0, 99), drainer=DRAINERS)
    def release(self, choice: int, drainer: int) -> None:
        if self.claims:
            claim = self.claims.pop(choice % len(self.claims))
            self._let_go(claim)
            self.drainers[drainer].record([Result(claim, {}, claim.contact)], self.now)

    def _let_go(self, claim: Claim) -> bool:
        """Whether `claim` was the one that held its customer; it holds nobody any more."""
        key = claim.contact.customer_key
        if self.holder.get(key) is not claim:
            return False
        del self.holder[key]
        self.waits_until[key] = self.now
        return True

    @rule(choices=st.sets(st.integers(1, 30), max_size=5))
    def revive(self, choices: set[int]) -> None:
        dead = {event_id for event_id in choices if self.status.get(event_id) == "dead"}
        assert set(self.drainers[0].revive(choices, self.now)) == dead
        for event_id in dead:
            self.status[event_id] = "pending"

    @rule(seconds=st.sampled_from([0.001, 1, 30, 60, 300]))
    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # What is true at any time

    def _pending_customers(self) -> set[str]:
        with closing(sqlite3.connect(self.path)) as connection:
            rows = connection.execute("SELECT DISTINCT customer_key FROM outbox WHERE status = 'pending'")
            return {key for (key,) in rows if key is not None}

    @invariant()
    def every_customer_with_pending_events_has_exactly_one_head(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            heads = connection.execute("SELECT customer_key FROM outbox WHERE is_head = 1").fetchall()
        assert sorted(heads) == [(key,) for key in sorted(self._pending_customers())]

    @invariant()
    def the_table_agrees_with_the_model(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            assert dict(connection.execute("SELECT id, status FROM outbox").fetchall()) == self.status
            told = report.status(connection, self.now, enabled=True)
        counted = {name: list(self.status.values()).count(name) for name in ("pending", "delivered", "dead")}
        assert {name: told[name] for name in counted} == counted
        assert json.dumps(told)


Drainers.TestCase.settings = settings(
    max_examples=cases(40),
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestDrainers = Drainers.TestCase
