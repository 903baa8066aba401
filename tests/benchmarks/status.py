"""How fast the depth is told, beside a count; how fast the command is, beside an interpreter that starts."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median

from outboxd import database, report
from outboxd.clock import wall
from tests.benchmarks.figures import RATIO, Figure, in_turns, ratio
from tests.benchmarks.rig import Rig, bare

COUNT = "SELECT count(*) FROM outbox WHERE status = 'pending'"
COMMAND = Path(sys.executable).with_name("outboxd")

INSTALLED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""The environment of a command whose modules are compiled, as pip leaves them: a checkout keeps them then."""


def figures(rig: Rig) -> Iterator[Figure]:
    """A million pending events, some fresh and some admitted; ten thousand to compare with."""
    many, few = rig.pick(1_000_000, 2000), rig.pick(10_000, 200)
    rounds = rig.pick(21, 3)
    for kind, admitted in {"fresh": None, "admitted": "in order"}.items():
        large, small = rig.outbox(many, admitted=admitted), rig.outbox(few, admitted=admitted)
        yield from inside(large, small, f"{many:,} {kind} events", few, rounds)
        if admitted is None:
            yield from command(large, rounds)


def inside(large: Path, small: Path, what: str, few: int, rounds: int) -> Iterator[Figure]:
    """What the report asks of an open connection."""
    with (
        closing(bare(large)) as connection,
        closing(database.connect(large, read_only=True)) as of_large,
        closing(database.connect(small, read_only=True)) as of_small,
    ):
        depths, statuses, smalls = in_turns(
            [
                lambda: of_large.execute(report.DEPTH).fetchone(),
                lambda: report.status(of_large, wall(), enabled=True),
                lambda: report.status(of_small, wall(), enabled=True),
            ],
            rounds,
        )
        # By itself: it goes through the whole file, and leaves no cache of the processor as it was.
        (counts,) = in_turns([lambda: connection.execute(COUNT).fetchone()], min(5, rounds))
    counted = f"count(*): {median(counts) * 1000:.1f} ms"
    depth = median(depths) * 1000
    yield Figure(name=f"depth of {what}", value=depth, unit="ms", floor=counted, most=1)
    yield Figure(
        name=f"all of status, {what}", value=median(statuses) * 1000, unit="ms", floor=counted, most=1
    )
    yield Figure(
        name="the same",
        value=ratio(statuses, smalls),
        unit=RATIO,
        floor=f"{few:,} events",
        most=2,
    )


def command(path: Path, rounds: int) -> Iterator[Figure]:
    """`outboxd status` as an operator's shell runs it."""
    config = path.with_name("config.yaml")
    config.write_text("database: outbox.db\n")
    ours = [str(COMMAND), "status", "--config", str(config)]
    theirs = [sys.executable, "-c", "import sqlite3"]
    libraries = [sys.executable, "-c", "import sqlite3, click, yaml"]
    took, floor, loaded = in_turns([partial(_run, each) for each in (ours, theirs, libraries)], rounds)
    spent, bare_spent = (1000 * median(_processor_seconds(each) for _ in range(5)) for each in (ours, theirs))
    yield Figure(
        name="outboxd status, the command",
        value=ratio(took, floor),
        floor="python3 -c 'import sqlite3'",
        most=4,
        note=f"{median(took) * 1000:.0f} ms against {median(floor) * 1000:.0f} ms; "
        f"of the processor {spent:.0f} ms against {bare_spent:.0f} ms",
    )
    yield Figure(
        name="of that, the libraries alone",
        value=ratio(loaded, floor),
        floor="python3 -c 'import sqlite3'",
        note="python3 -c 'import sqlite3, click, yaml'",
    )


def _processor_seconds(command: list[str]) -> float:
    before = os.times()
    _run(command)
    after = os.times()
    children = after.children_user + after.children_system
    return children - before.children_user - before.children_system


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=INSTALLED)
