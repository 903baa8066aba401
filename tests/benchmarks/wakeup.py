"""From the commit of any writer to the daemon at work, and what it costs to wait for one."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from time import monotonic, sleep

import requests

from tests.benchmarks.daemons import configured, delivered, draining, processor_seconds
from tests.benchmarks.figures import Figure, percentile
from tests.benchmarks.rig import Rig
from tests.benchmarks.stand_in import Brevo, brevo
from tests.processes import Daemon

GAPS = (0.02, 0.2)
"""Seconds between two events: long enough for the daemon to be at rest again, and never in step with it."""

WITHIN = (1, 7)
"""Milliseconds, of half of the events and of all but one in a hundred."""

INSERT = "INSERT INTO outbox (event, payload) VALUES ('customer_updated', json_object('id', ?, 'email', ?))"


POLLING = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1])
while True:
    connection.execute("PRAGMA data_version").fetchall()
    time.sleep(0.001)
"""
"""What it costs to see a commit without a hint, in half of the p50 that is allowed."""


def figures(rig: Rig) -> Iterator[Figure]:
    """Single events by plain SQL, the daemon at rest before each of them; then the daemon at rest alone."""
    with brevo() as stand_in:
        yield from woken(rig, stand_in)
        yield from at_rest(rig, stand_in)


def woken(rig: Rig, stand_in: Brevo) -> Iterator[Figure]:
    """The waits of many single events: until the relay begins a round, and until the call is at Brevo."""
    events, outbox = rig.pick(500, 20), rig.outbox()
    rounds = outbox.with_name("rounds")
    config = configured(outbox, stand_in)
    with Watched(config, rounds) as daemon:
        daemon.ready()
        sleep(0.5)
        stand_in.calls()
        commits = written(outbox, events)
        delivered(daemon, events)
        arrived = {whom: at for at, whom in stand_in.calls()}
        bare = percentile(sent(stand_in, max(20, events // 5)), 0.5) * 1000
    begun = [int(line) / 1e9 for line in rounds.read_text().split()]
    rounds_after = _to_next(list(commits.values()), begun)
    yield from spread("commit to the relay's next round", rounds_after, WITHIN)
    arrivals = (arrived[whom] - at for whom, at in commits.items())
    yield from spread("commit to the call at Brevo", arrivals, floor=f"a bare POST: {bare:.1f} ms")


def spread(
    name: str,
    seconds: Iterable[float],
    within: tuple[float | None, float | None] = (None, None),
    floor: str = "",
) -> Iterator[Figure]:
    """The median and the slowest of many."""
    taken = [1000 * each for each in seconds]
    worst = f"{len(taken)} events; worst {max(taken):.1f} ms"
    p50, p99 = percentile(taken, 0.5), percentile(taken, 0.99)
    yield Figure(name=f"{name}, p50", value=p50, unit="ms", most=within[0], floor=floor)
    yield Figure(name=f"{name}, p99", value=p99, unit="ms", most=within[1], floor=floor, note=worst)


class Watched(Daemon):
    """A daemon that writes down when each of its rounds begins."""

    def __init__(self, config: Path, rounds: Path) -> None:
        super().__init__(config, program=("-m", "tests.benchmarks.watched", str(rounds)))


def written(outbox: Path, events: int) -> dict[str, float]:
    """Write single events by plain SQL with rests between them; when each was committed, by its address."""
    random, commits = Random(1), {}
    with closing(sqlite3.connect(outbox, timeout=30, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        for number in range(events):
            whom = f"woken{number}@example.com"
            connection.execute(INSERT, (number, whom))
            commits[whom] = monotonic()
            sleep(random.uniform(*GAPS))
    return commits


def sent(stand_in: Brevo, calls: int) -> list[float]:
    """The seconds that calls of the bare library take to arrive, with the same rests between them."""
    random, begun = Random(1), {}
    with requests.Session() as session:
        for number in range(calls):
            whom = f"bare{number}@example.com"
            begun[whom] = monotonic()
            session.post(f"{stand_in.url}/contacts", json={"email": whom}, timeout=10)
            sleep(random.uniform(*GAPS))
    return [at - begun[whom] for at, whom in stand_in.calls()]


def _to_next(commits: list[float], begun: list[float]) -> Iterator[float]:
    """The seconds from each commit to the first round that began after it."""
    rounds = iter(begun)
    at = next(rounds)
    for commit in commits:
        while at < commit:
            at = next(rounds)
        yield at - commit


def at_rest(rig: Rig, stand_in: Brevo) -> Iterator[Figure]:
    """The processor's time that a daemon takes with nothing to do."""
    seconds = rig.pick(120, 2)  # four signs of life
    outbox = rig.outbox()
    polling = [sys.executable, "-c", POLLING, str(outbox)]
    with draining(outbox, stand_in) as daemon, subprocess.Popen(polling) as floor:
        sleep(2)
        processes = (daemon.process.pid, floor.pid)
        before, started = [processor_seconds(each) for each in processes], monotonic()
        sleep(seconds)
        after, took = [processor_seconds(each) for each in processes], monotonic() - started
        floor.kill()
    ours, theirs = (100 * (late - early) / took for early, late in zip(before, after, strict=True))
    yield Figure(
        name="processor at rest",
        value=ours,
        unit="%",
        floor=f"python3 that asks for PRAGMA data_version every ms: {theirs:.2f} %",
        most=0.1,
        note=f"of one core, over {seconds} s",
    )
