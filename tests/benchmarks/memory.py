"""The memory of the daemon, with nothing pending and with a million events pending."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import sleep

from tests.benchmarks.daemons import draining, peak_megabytes
from tests.benchmarks.figures import Figure
from tests.benchmarks.rig import Rig
from tests.benchmarks.stand_in import Brevo, brevo

SECONDS = 6


def figures(rig: Rig) -> Iterator[Figure]:
    """The peak resident size (VmHWM) after six seconds, at rest or draining as fast as it can."""
    many, few = rig.pick(1_000_000, 2000), rig.pick(10_000, 200)
    empty, some, full = [], [], []
    with brevo() as stand_in:
        for _ in range(rig.pick(5, 1)):
            empty.append(peak(rig.outbox(), stand_in, rig))
            some.append(peak(rig.outbox(few), stand_in, rig))
            full.append(peak(rig.outbox(many), stand_in, rig))
    yield Figure(
        name=f"peak memory, {many:,} pending",
        value=median(full) / median(empty),
        floor="the same daemon, nothing pending",
        most=1.1,
        note=f"{median(full):.1f} MB against {median(empty):.1f} MB; {few:,} pending {median(some):.1f} MB",
    )
    yield Figure(name="the same", value=median(full), unit="MB", most=80)


def peak(outbox: Path, stand_in: Brevo, rig: Rig) -> float:
    """The peak of a daemon that has run for a while; its outbox is gone afterwards."""
    with draining(outbox, stand_in) as daemon:
        sleep(rig.pick(SECONDS, 1))
        found = peak_megabytes(daemon.process.pid)
    outbox.unlink()
    return found
