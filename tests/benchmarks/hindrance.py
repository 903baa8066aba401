"""How long a shop waits for its commit while the daemon drains as fast as it can."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from time import monotonic, sleep

import outboxd
from tests.benchmarks.daemons import draining
from tests.benchmarks.enqueue import INSERT
from tests.benchmarks.figures import Figure, percentile
from tests.benchmarks.peers import PAYLOAD
from tests.benchmarks.rig import Rig, bare, customer
from tests.benchmarks.stand_in import brevo

EVERY = 0.005
"""Seconds between two events of a shop that is busy, and not the bottleneck itself."""


Waits = tuple[list[float], list[float]]
"""The milliseconds of each event: by outboxd.enqueue, and by the bare library."""


def figures(rig: Rig) -> Iterator[Figure]:
    """Two hundred events a second, written by outboxd.enqueue and by a connection kept open in turns, at a
    daemon at rest and at one with a backlog that it does not get done with.
    """
    backlog, seconds = rig.pick(50_000, 1000), rig.pick(10, 1)
    calm: list[Waits] = []
    hindered: list[Waits] = []
    with brevo() as stand_in:
        for _ in range(rig.pick(3, 1)):
            for pending, taken in ((0, calm), (backlog, hindered)):
                outbox = rig.outbox(pending)
                with draining(outbox, stand_in) as daemon:
                    taken.append(written(outbox, seconds))
                    left = daemon.status()["pending"]
    yield from of("outboxd.enqueue", [run[0] for run in calm], [run[0] for run in hindered])
    yield from of("raw INSERT, open connection", [run[1] for run in calm], [run[1] for run in hindered])
    if not left:
        yield Figure(
            name="what was left of the backlog", value=0, unit="events", note="too few to begin with"
        )


def of(name: str, calm: list[list[float]], hindered: list[list[float]]) -> Iterator[Figure]:
    """One way of writing."""
    at_rest = median(percentile(run, 0.99) for run in calm)
    p50 = median(percentile(run, 0.5) for run in hindered)
    yield Figure(
        name=f"{name}, p99",
        value=median(percentile(run, 0.99) for run in hindered),
        unit="ms",
        floor=f"the daemon at rest: {at_rest:.1f} ms",
        most=5,
        note=f"{sum(map(len, hindered)):,} events; p50 {p50:.1f} ms",
    )
    yield Figure(name=f"{name}, worst", value=max(map(max, hindered)), unit="ms", most=100)


def written(outbox: Path, seconds: float) -> Waits:
    """Write events at a steady pace, in two ways by turns."""
    with closing(bare(outbox)) as connection:
        ways: list[Callable[[], object]] = [
            lambda: outboxd.enqueue("customer_updated", customer(5), db=outbox),
            lambda: connection.execute(INSERT, (PAYLOAD,)),
        ]
        taken: Waits = ([], [])
        end = monotonic() + seconds
        while monotonic() < end:
            for write, took in zip(ways, taken, strict=True):
                started = monotonic()
                write()
                took.append(1000 * (monotonic() - started))
                sleep(EVERY)
    return taken
