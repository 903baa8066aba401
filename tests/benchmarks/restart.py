"""After kill -9 in the middle of a backlog: how soon deliveries go on, and what is delivered twice."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from time import monotonic, sleep

from tests.benchmarks.daemons import PATIENCE, configured, delivered
from tests.benchmarks.figures import Figure, timed
from tests.benchmarks.rig import Rig, write
from tests.benchmarks.stand_in import Brevo, brevo
from tests.processes import Daemon

LATENCY = 0.01
"""Seconds that a call takes, so that one is under way whenever the daemon is killed."""

BREVO = {"requests_per_second": 10, "requests_per_hour": 36_000}
"""Brevo's own limits, under which no claim is made that a worker is not free for."""

FLOOR = [sys.executable, "-c", "import requests, apscheduler.schedulers.background"]


def figures(rig: Rig) -> Iterator[Figure]:
    """A daemon with one call at a time, and one with as many as by default; as fast as Brevo takes calls, and
    as fast as it can.
    """
    floor = median(timed(lambda: subprocess.run(FLOOR, check=True)) for _ in range(rig.pick(5, 1)))
    yield from at_pace(rig, "at Brevo's limits", BREVO, rig.pick(80, 40), floor)
    yield from at_pace(rig, "without limits", {}, rig.pick(400, 40), floor)


def at_pace(rig: Rig, pace: str, limits: Mapping[str, int], events: int, floor: float) -> Iterator[Figure]:
    """The figures of one pace."""
    rounds = rig.pick(5, 1)
    for workers in (1, 8):
        firsts, lasts, twice = [], [], []
        with brevo(LATENCY) as stand_in:
            for _ in range(rounds):
                first, last, repeated = killed(rig.outbox(), stand_in, {"workers": workers, **limits}, events)
                firsts.append(first)
                lasts.append(last)
                twice.append(repeated)
        calls = f"{pace}, {workers} call{'s' if workers > 1 else ''} at a time"
        yield Figure(
            name=f"kill -9 to the next delivery, {calls}",
            value=median(firsts),
            unit="s",
            floor=f"python3 with requests and APScheduler: {floor:.2f} s",
            most=1,
            note=f"worst {max(firsts):.2f} s; all {events} events after {max(lasts):.1f} s",
        )
        yield Figure(
            name=f"calls made twice, {calls}",
            value=max(twice),
            unit="calls",
            most=workers,
            note=f"{rounds} kills",
        )


def killed(
    outbox: Path, stand_in: Brevo, settings: Mapping[str, int], events: int
) -> tuple[float, float, int]:
    """Kill the daemon when half is done and start it again: seconds to the first call, seconds until all
    are delivered, and how many calls were made twice.
    """
    write(outbox, range(events))
    config = configured(outbox, stand_in, brevo=settings)
    calls: list[tuple[float, str]] = []
    with Daemon(config) as first:
        give_up = monotonic() + PATIENCE
        while len(calls) < events // 2 and monotonic() < give_up:
            calls += stand_in.calls()
            sleep(0.005)
        first.kill()
    killed_at = monotonic()
    with Daemon(config) as second:
        last = delivered(second, events)
    calls += stand_in.calls()
    after = [at for at, _ in calls if at > killed_at]
    twice = Counter(whom for _, whom in calls)
    return min(after) - killed_at, last - killed_at, sum(twice.values()) - len(twice)
