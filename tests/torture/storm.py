"""The storm: producers, one daemon or more, a bad Brevo, and blows that fall on all of them at random.

Brevo is a sandbox in this process, so that its record of calls survives every blow. What kill -9 would do to
it is done to its connections: all are cut off, what it had carried out loses its answer, nobody listens any
more. But it forgets nothing, as the real one would not.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

from outboxd import database
from outboxd.brevo.sandbox import Fault, Sandbox
from tests.conftest import until
from tests.outboxes import new_outbox
from tests.processes import KEY, Daemon, let_leases_lapse, status, write_config
from tests.receiver import Receiver, receiving
from tests.torture import judge, people
from tests.torture.judge import LIST
from tests.torture.people import Customer
from tests.torture.writers import ROOT, Backfill, Producer, Writer

TROUBLES = (
    Fault(status=503),
    Fault(status=500),
    Fault(status=425),
    Fault(behaviour="reset"),
    Fault(behaviour="lost_answer"),
    Fault(behaviour="half"),
    Fault(behaviour="html"),
    Fault(behaviour="redirect"),
    Fault(behaviour="garbage"),
    Fault(behaviour="huge"),
    Fault(behaviour="drip"),
    Fault(behaviour="drip_headers"),
    Fault(status=429, headers={"x-sib-ratelimit-reset": "1"}),
)

BULK = ("/contacts/batch", "/contacts/import")

BATCH = {"window": "@yearly", "max_wait": 1, "batch_size": 25, "import_size": 400}
"""Windows that open whenever somebody waits, and calls of a size that many are needed."""

HYBRID = {"threshold_seconds": 1}
RATES = {"requests_per_second": 100, "requests_per_hour": 360_000}
"""More than a hundred that wait go in bulk."""

SECRET = "whsec_c3Rvcm0tc3Rvcm0tc3Rvcm0tc3Rvcm0tc3Rvcm0="

POISON = (
    '{"id": 1, "email": "ann1@example.com", "firstName": "F1v1"',
    '["ann2@example.com"]',
    '{"firstName": "F3v3", "phone": "+4915112000003"}',
    '{"id": {"email": "ann4@example.com"}, "lastName": "L4v4"}',
)
"""What a shop may write that nobody can deliver, and that must not be told."""

SOUND = {
    "lost": 0,
    "dead": len(POISON),
    "recorded more than once": 0,
    "miscounted": 0,
    "answers nobody gave": 0,
    "kills that missed": 0,
    "producer failures": 0,
    "bugs": 0,
    "tracebacks": 0,
    "unclean ends": 0,
    "largest overlap": 1,
    "told out of order": [],
    "wrong contacts": [],
    "personal": [],
}
"""What the figures must be."""

COMMANDS = (
    "status",
    "status --json",
    "metrics",
    "dead",
    "events",
    "notifications --json",
    "show 1",
    "check --offline",
)
"""What operators ask, all that tells of events among it."""

ASK = """
import sys
from outboxd import cli
for command in sys.argv[2:]:
    cli.main([*command.split(), "--config", sys.argv[1]])
"""

IMPORTED = """
SELECT count(*) FROM outbox
WHERE status = 'pending' AND customer_key IN (SELECT customer_key FROM import_rows)
"""

LEASED = """
SELECT id, claimed_at FROM outbox
WHERE is_head = 1 AND claimed_at IS NOT NULL AND customer_key NOT IN (SELECT customer_key FROM import_rows)
"""


@dataclass(frozen=True)
class Plan:
    """How large, and how rough."""

    events: int = 10_000
    customers: int = 2_000
    backfilled: int = 1_000
    mode: str = "realtime"
    producers: int = 4
    daemons: int = 1
    faults: float = 0.05
    kills: int = 5
    producer_kills: int = 5
    outages: int = 2
    stops: int = 1
    seed: int = 1
    hastens: bool = False  # do not wait for the leases of a killed daemon to lapse

    def blows(self) -> list[str]:
        """All that is going to happen to those who drain, in a random order."""
        counts = {
            "a daemon is killed": self.kills,
            "Brevo is gone": self.outages,
            "a daemon stands still": self.stops,
        }
        blows = list(Counter(counts).elements())
        Random(self.seed).shuffle(blows)
        return blows


class Storm:
    """What is under way, and what can befall it."""

    def __init__(
        self, plan: Plan, sandbox: Sandbox, config: Path, customers: list[Customer], stack: ExitStack
    ) -> None:
        self.outbox = config.with_name("outbox.db")
        self.in_flight: list[int] = []
        self.stood_still = 0
        self.told: dict[str, str] = {}
        self._plan = plan
        self._random = Random(plan.seed)
        self._sandbox = sandbox
        self._config = config
        self._stack = stack
        self.producers = list(_producers(plan, customers, self.outbox))
        export = config.with_name("export.jsonl")
        rows = people.backfilled(customers, plan.backfilled, plan.seed)
        export.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.backfill = Backfill(config, export)
        self._writers: list[Writer] = [*self.producers, self.backfill]
        for writer in self._writers:
            stack.callback(writer.end)
        self.daemons = [self._daemon() for _ in range(plan.daemons)]

    @property
    def blows(self) -> Mapping[str, Callable[[], None]]:
        return {
            "a daemon is killed": self.kill_daemon,
            "Brevo is gone": self.cut_brevo_off,
            "a daemon stands still": self.stop_daemon,
        }

    def until_finished(self, events: int, within: float) -> None:
        """Wait until so many events are over, or in an import.

        That of a daemon which was killed, one of several, is seen through by the next one that is alone.
        """
        self._until(lambda now: now["delivered"] + now["dead"] + self._imported() >= events, within)

    def until_all_is_over(self, within: float) -> None:
        """Wait until no event is pending: a producer that was killed may have written some of its twice."""
        self._until(lambda now: now["pending"] == 0, within)

    def _until(self, is_over: Callable[[Any], bool], within: float) -> None:
        """No daemon may end by itself meanwhile."""

        def is_over_or_alone() -> bool:
            has_ended = any(daemon.process.poll() is not None for daemon in self.daemons)
            return has_ended or is_over(status(self.outbox))

        until(is_over_or_alone, within)
        assert all(daemon.process.poll() is None for daemon in self.daemons), self.words

    def kill_daemon(self) -> None:
        """SIGKILL, if possible while Brevo is at a call of its; another one takes its place."""
        killed = self.daemons.pop(self._random.randrange(len(self.daemons)))
        self._until_under_way()
        killed.kill()
        if not self.daemons:
            until(lambda: self._sandbox.stats["under_way"] == 0)
            self.in_flight.append(status(self.outbox)["in_flight"])
            if self._plan.hastens:
                let_leases_lapse(self.outbox)
        self.daemons.append(self._daemon())

    def kill_producers(self) -> int:
        """SIGKILL of one after the other amid their writing, and of the backfill; how many producers it hit.

        All of them are started again, and may end once this is over. It goes on beside the other blows.
        """
        random, killed = Random(self._plan.seed), 0
        for number in range(1, self._plan.producer_kills + 1):
            share = self._plan.events * number // (self._plan.producer_kills + 1)
            self._until_acknowledged(share)
            killed += any(each.kill() for each in random.sample(self.producers, len(self.producers)))
            if number == 1:
                self.backfill.kill()
        for producer in self.producers:
            producer.let_end()
        return killed

    def cut_brevo_off(self) -> None:
        """Every connection is cut, and Brevo is out of reach until that is noticed."""
        self._until_under_way()
        before = self._failures()
        self._sandbox.stop()
        give_up = monotonic() + 5
        until(lambda: self._failures() > before or monotonic() > give_up, 10)
        self._sandbox.start()

    def stop_daemon(self) -> None:
        """One stands still until others have all that it had leased; then it goes on, none the wiser.

        One that stopped within a transaction would hold up everybody, as any writer would: that is another
        matter, so it is then stopped at another moment, and likewise if it has leased nothing.
        """
        stopped = self._random.choice(self.daemons).ready()
        give_up = monotonic() + 10
        while True:
            until(lambda: self._leased() or monotonic() > give_up, 15)
            stopped.send(signal.SIGSTOP)
            until(lambda: _has_stopped(stopped.process.pid))
            if left := self._can_write() and self._leased():
                break
            stopped.send(signal.SIGCONT)
            if monotonic() > give_up:
                return
        guest = None
        if len(self.daemons) == 1:
            assert self._is_refused()
            guest = Daemon(self._config, "--shared", OUTBOXD_WEBHOOK_SECRET=SECRET)
            self._stack.enter_context(guest).ready()
            self.daemons.append(guest)
        until(lambda: not left & self._leased(), 180)  # a busy host makes for a blocked lane
        self.stood_still += 1
        stopped.send(signal.SIGCONT)
        if guest is not None:
            self.leave_one()

    def leave_one(self) -> None:
        """Whoever drains alone sees the imports of all others through, of those who were killed, too."""
        for daemon in self.daemons:
            daemon.ready().send(signal.SIGTERM)
        codes = [daemon.ended(40) for daemon in self.daemons]
        assert not any(codes), (codes, [daemon.words[-600:] for daemon in self.daemons])
        self.daemons = [self._daemon()]

    def end(self) -> list[int]:
        """Let all of them stop in good order; the exit codes of the daemons."""
        for daemon in self.daemons:
            daemon.ready()
        self.look_at_processes()
        for daemon in self.daemons:
            daemon.send(signal.SIGTERM)
        return [daemon.ended(40) for daemon in self.daemons]

    def look_at_processes(self) -> None:
        """What anybody on this host sees of those that run now."""
        for process in (self.backfill.process, *(daemon.process for daemon in self.daemons)):
            self.told[f"process {process.pid}"] = judge.seen_by_ps(process.pid)

    @property
    def writers_words(self) -> str:
        """What the programs of the shop have complained of, and what the backfill has said."""
        files = [self.backfill.words, *(writer.complaints for writer in self._writers)]
        return "".join(file.read_text() for file in files)

    @property
    def words(self) -> str:
        """All that the daemons have said."""
        return "".join(file.read_text() for file in sorted(self._config.parent.glob("stderr-*")))

    def _daemon(self) -> Daemon:
        options = ("--shared",) if self._plan.daemons > 1 else ()
        daemon = Daemon(self._config, *options, OUTBOXD_WEBHOOK_SECRET=SECRET)
        return self._stack.enter_context(daemon)

    def _is_refused(self) -> bool:
        """Whether a second daemon that wants to be alone is kept out."""
        with Daemon(self._config, OUTBOXD_WEBHOOK_SECRET=SECRET) as second:
            return second.ended() == 75 and "is drained already" in second.words

    def _until_acknowledged(self, events: int) -> None:
        until(lambda: sum(len(each.acknowledged) for each in self.producers) >= events, 120)

    def _until_under_way(self) -> None:
        give_up = monotonic() + 2
        until(lambda: self._sandbox.stats["under_way"] or monotonic() > give_up)

    def _failures(self) -> int:
        return self.words.count("cannot be reached")

    def _can_write(self) -> bool:
        try:
            with closing(sqlite3.connect(self.outbox, timeout=1, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
            return True
        except sqlite3.OperationalError:
            return False

    def _imported(self) -> int:
        with database.reading(self.outbox) as connection:
            return int(connection.execute(IMPORTED).fetchone()[0])

    def _leased(self) -> set[tuple[int, str]]:
        """The heads that are leased, imports aside, and since when."""
        with database.reading(self.outbox) as connection:
            return set(connection.execute(LEASED).fetchall())


def _has_stopped(process_id: int) -> bool:
    """Whether it stands still: the signal is sent before it does."""
    return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def run(plan: Plan, directory: Path) -> dict[str, Any]:
    """Carry out `plan` in an empty directory; the figures."""
    new_outbox(directory / "outbox.db")
    customers = people.histories(plan.events, plan.customers, plan.seed)
    total = plan.events + plan.backfilled + len(POISON)
    started = monotonic()
    with ExitStack() as stack:
        receiver = stack.enter_context(receiving())
        sandbox = stack.enter_context(
            Sandbox(faults=_troubles(plan.faults), seed=plan.seed, latency=timedelta(milliseconds=4))
        )
        config = _config(plan, directory, sandbox, receiver)
        _write_poison(directory / "outbox.db")
        storm = Storm(plan, sandbox, config, customers, stack)
        killing = stack.enter_context(ThreadPoolExecutor(1)).submit(storm.kill_producers)
        blows = plan.blows()
        for number, blow in enumerate(blows, start=1):
            storm.until_finished(total * number // (len(blows) + 1), within=120)
            storm.look_at_processes()
            storm.blows[blow]()
        missed = plan.producer_kills - killing.result()
        codes = [each.ended(120) for each in (*storm.producers, storm.backfill)]
        written = monotonic() - started
        if plan.daemons > 1:
            storm.leave_one()
        storm.until_all_is_over(within=60 + total / 50)
        took = monotonic() - started
        exit_codes = storm.end()
        acknowledged = [each for producer in storm.producers for each in producer.acknowledged]
        told = _everything_told(storm, receiver)
        return {
            "mode": plan.mode,
            "events": plan.events,
            "backfilled": plan.backfilled,
            "customers": plan.customers,
            "daemons": plan.daemons,
            "blows": dict(Counter(blows)),
            **judge.account(storm.outbox, acknowledged, sandbox.calls),
            "kills that missed": missed,
            "producer failures": sum(code != 0 for code in codes),
            "events in flight at the kills": storm.in_flight,
            "stood still": storm.stood_still,
            "leases lost": storm.words.count("lost=lease"),
            "bugs": storm.words.count(" bug "),
            "unclean ends": sum(code != 0 for code in exit_codes),
            "calls": sandbox.stats["calls"],
            "calls by status": sandbox.stats["by_status"],
            "calls in bulk": dict(Counter(c.path for c in sandbox.calls if c.path in BULK)),
            "largest overlap": sandbox.stats["largest_overlap"],
            "told out of order": judge.out_of_order(storm.outbox, sandbox.calls),
            "wrong contacts": judge.wrong(sandbox, customers),
            "notifications": len(receiver.posts),
            "tracebacks": sum(text.count("Traceback") for text in told.values()),
            "personal": judge.personal(told),
            "seconds writing": round(written, 1),
            "seconds in all": round(took, 1),
            "latency ms": status(storm.outbox)["windows"]["hour"]["latency_ms"],
        }


def unsound(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that are not what they must be."""
    return {name: figures[name] for name, figure in SOUND.items() if figures[name] != figure}


def _troubles(rate: float) -> list[Fault]:
    return [
        Fault(
            status=each.status,
            headers=each.headers,
            behaviour=each.behaviour,
            # an import has a minute to be taken: one that drips would hold the storm up for as long
            path="/contacts/*@*" if "drip" in (each.behaviour or "") else "/contacts*",
            rate=rate / len(TROUBLES),
        )
        for each in TROUBLES
    ]


def _config(plan: Plan, directory: Path, sandbox: Sandbox, receiver: Receiver) -> Path:
    return write_config(
        directory / "config.yaml",
        sandbox.url,
        options={"delete_behavior": "hard", "list_id": LIST, "sync_mode": plan.mode},
        debug=True,
        brevo={"timeout_seconds": 0.5, **(RATES if plan.mode == "hybrid" else {})},
        retry={"first_seconds": 1, "cap_seconds": 2, "max_attempts": 50},
        batch=BATCH,
        hybrid=HYBRID,
        metrics={"textfile": str(directory / "outboxd.prom"), "interval_seconds": 1},
        notifications={
            "webhook_url": receiver.url,
            "secret_env": "OUTBOXD_WEBHOOK_SECRET",
            "interval_seconds": 1,
            "events": ["sync_completed", "sync_failed", "batch_completed", "lane_blocked", "lane_resumed"],
        },
    )


def _write_poison(outbox: Path) -> None:
    with closing(sqlite3.connect(outbox)) as connection, connection:
        connection.executemany(
            "INSERT INTO outbox (event, payload) VALUES ('customer_created', ?)", [(each,) for each in POISON]
        )


def _producers(plan: Plan, customers: list[Customer], outbox: Path) -> Iterator[Producer]:
    for number in range(plan.producers):
        events = people.shuffled(customers[number :: plan.producers], Random(plan.seed + number))
        path = outbox.with_name(f"producer-{number}.jsonl")
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        yield Producer(path, outbox)


def _everything_told(storm: Storm, receiver: Receiver) -> dict[str, str]:
    """All that operators, their systems and other users of this host have been told."""
    told = {"commands": _commands_say(storm)}
    for number, (headers, body) in enumerate(receiver.posts):
        told[f"notification {number}"] = "\n".join([*map(str, headers.items()), body.decode()])
    metrics = storm.outbox.with_name("outboxd.prom").read_text()
    return {
        **told,
        **storm.told,
        "log": storm.words,
        "writers": storm.writers_words,
        "metrics file": metrics,
        "database": judge.kept(storm.outbox),
    }


def _commands_say(storm: Storm) -> str:
    """What each of COMMANDS says of the outbox."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(storm.outbox.with_name("config.yaml")), *COMMANDS],
        env={**os.environ, "BREVO_API_KEY": KEY, "OUTBOXD_WEBHOOK_SECRET": SECRET},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    return done.stdout + done.stderr
