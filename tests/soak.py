"""Seven days of a busy shop in minutes: does anything grow that should not?

    python -m tests.soak --events 1000000 --customers 1000

A relay with retention drains what a shop writes, on a clock that runs through the days as events are written.
At each tenth: the size of the file and of its log, the memory of the relay's process, the longest time that
a writer waited. The first tenth fills what retention keeps; from then on all of it must be flat. At the end
a large sweep is made without other work, and it is told how long its steps held the lock, from when they had
it until their commits gave it back. What of that their own work does not explain, which is told beside it, is
the machine's doing: its disk, and other programs.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from statistics import quantiles
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import perf_counter, sleep, thread_time

from outboxd import app, clock, config, database, intake, report
from outboxd.config import Config
from outboxd.outbox.pruning import Pruning
from outboxd.prune import sweep
from outboxd.retention import Retention

DAYS = timedelta(days=7)
KEPT = "12h"
"""A little less than a tenth of the seven days."""

GROWTH = 1.15
"""How much larger than after the first tenth anything may be at the end: what it holds varies a little."""

BATCH = 500


class Days:
    """A clock that goes through the days as it is told to; within a batch it runs as fast as any."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)

    def __call__(self) -> datetime:
        return clock.wall() + self._ahead

    def advance(self, by: timedelta) -> None:
        self._ahead += by


def main() -> int:
    """Print the table; exit 1 if something grew, or a step took too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--swept", type=int, default=100_000, help="events of the sweep that is timed")
    chosen = parser.parse_args()
    with TemporaryDirectory(prefix="outboxd-soak-") as name, sandbox() as url:
        path = Path(name) / "outbox.db"
        is_flat = soak(path, url, chosen.events, chosen.customers)
        is_short = time_sweep(Path(name) / "sweep.db", chosen.swept)
    for what, is_met in (("file, log and memory", is_flat), ("steps of the sweep", is_short)):
        sys.stdout.write(f"{what}: {'as they should be' if is_met else 'MISSED'}\n")
    return 0 if is_flat and is_short else 1


def soak(path: Path, url: str, events: int, customers: int) -> bool:
    """Write and drain `events`; whether file, log and memory were flat."""
    database.migrate(path)
    settings = config.from_mapping(
        {
            "database": str(path),
            "skills": {"customer-sync": {"log_level": "error"}},
            "brevo": {"base_url": url, "requests_per_second": 100_000, "requests_per_hour": 360_000_000},
            "retention": {"delivered": KEPT, "attempts": KEPT, "counters": KEPT},
        },
        "soak",
    )
    days = Days()
    told: list[tuple[float, float, float]] = []
    row = f"{'events':>10}{'rows':>10}{'file MB':>10}{'log MB':>10}{'memory MB':>11}{'longest wait ms':>17}"
    sys.stdout.write(row + "\n")
    with draining(settings, days), probing(path, days) as waits:
        for tenth in range(1, 11):
            write(path, days, events // 10, customers, Random(tenth), DAYS / 10)
            figures = (megabytes(path), megabytes(path.with_name(path.name + "-wal")), memory())
            told.append(figures)
            with database.reading(path) as connection:
                (rows,) = connection.execute("SELECT count(*) FROM outbox").fetchone()
            file, log, used = figures
            longest = max(waits, default=0) * 1000
            waits.clear()
            sizes = f"{file:>10.1f}{log:>10.1f}{used:>11.1f}"
            sys.stdout.write(f"{tenth * events // 10:>10,}{rows:>10,}{sizes}{longest:>17.1f}\n")
            sys.stdout.flush()
        with database.reading(path) as connection:
            status = report.status(connection, days(), enabled=True)
    sys.stdout.write(
        f"{status['delivered']:,} delivered, {status['pending']} pending, {status['dead']} dead\n"
    )
    second, last = told[1], told[-1]
    slack = (1.0, 17.0, 2.0)  # MB that are no growth; the log is cut at sixteen
    return all(end <= start * GROWTH + free for start, end, free in zip(second, last, slack, strict=True))


def write(path: Path, days: Days, events: int, customers: int, random: Random, duration: timedelta) -> None:
    """Write so many events within `duration`, and wait for each batch to be delivered."""
    for start in range(0, events, BATCH):
        size = min(BATCH, events - start)
        days.advance(duration * size / events)
        chosen = random.sample(range(customers), min(customers, max(1, BATCH // 10)))
        rows = [
            intake.checked("customer_updated", customer(random.choice(chosen), random)) for _ in range(size)
        ]
        intake.write(path, rows, days)
        while pending(path):
            sleep(0.002)


def customer(number: int, random: Random) -> dict[str, object]:
    """A customer as a shop sends one: about a kilobyte, a little of it new."""
    return {
        "id": number + 1,
        "email": f"customer{number}@example.com",
        "firstName": f"Name{random.randrange(1000)}",
        "notes": "x" * random.randrange(200, 1600),
    }


def pending(path: Path) -> int:
    with database.reading(path) as connection:
        return int(connection.execute(report.DEPTH).fetchone()[0])


@contextmanager
def draining(settings: Config, days: Days) -> Iterator[None]:
    """A relay at work in this process."""
    stopping = Event()
    courier = app.brevo(settings, "xkeysib-sandbox")
    relay = app.relay(settings, courier, app.outbox(settings), clock=days)
    thread = Thread(target=relay.run, args=(stopping, timedelta(seconds=20)))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        relay.bell.set()
        thread.join()


@contextmanager
def probing(path: Path, days: Days) -> Iterator[list[float]]:
    """Another program that writes now and then: the seconds that each of its events took."""
    waits: list[float] = []
    ended = Event()

    def write() -> None:
        row = intake.checked("customer_updated", {"id": 1, "email": "customer0@example.com"})
        with closing(database.connect(path)) as connection:
            while not ended.wait(0.25):
                started = perf_counter()
                connection.execute(intake.INSERT, (*row, *[clock.to_text(days())] * 2))
                waits.append(perf_counter() - started)

    thread = Thread(target=write)
    thread.start()
    try:
        yield waits
    finally:
        ended.set()
        thread.join()


class Timed(Pruning):
    """A pruning that notes how long each transaction held the lock, and worked meanwhile, in milliseconds.

    Carrying the log into the file is part of a commit, by default, but comes after the lock: here it is done
    apart.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection.execute("PRAGMA wal_autocheckpoint = 0")
        self.held: list[float] = []
        self.worked: list[float] = []

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        held, worked = perf_counter(), thread_time()
        yield
        self._connection.execute("COMMIT")
        self.held.append((perf_counter() - held) * 1000)
        self.worked.append((thread_time() - worked) * 1000)
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def time_sweep(path: Path, events: int) -> bool:
    """Prune so many events at once; whether 99 of 100 steps held the lock under 20 ms."""
    database.migrate(path)
    with closing(database.connect(path)) as connection:
        connection.execute(
            """
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :events)
            INSERT INTO outbox (event, payload, idempotency_key)
            SELECT 'customer_updated', json_object('id', i, 'x', hex(randomblob(500))), 'key' || i FROM n
            """,
            {"events": events},
        )
        connection.execute("UPDATE outbox SET status = 'delivered', finished_at = created_at")
        connection.execute(
            "INSERT INTO attempts (event_id, number, started_at, finished_at, verdict)"
            " SELECT id, 1, created_at, created_at, 'delivered' FROM outbox"
        )
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = megabytes(path)
    with closing(Timed(path)) as pruning:
        steps = sum(1 for _ in sweep(pruning, Retention(), clock.wall() + timedelta(days=60)))
        pruning.cut_log(limit=0)
    held, worked = (quantiles(times, n=100) for times in (pruning.held, pruning.worked))
    sys.stdout.write(
        f"{events:,} events swept in {steps:,} steps; {before:.0f} MB before, {megabytes(path):.0f} after\n"
        f"lock held: median {held[49]:.1f} ms, p99 {held[98]:.1f} ms, longest {max(pruning.held):.1f} ms; "
        f"own work: p99 {worked[98]:.1f} ms, longest {max(pruning.worked):.1f} ms\n"
    )
    return worked[98] < 10  # the rest is the machine's doing


def megabytes(path: Path) -> float:
    return path.stat().st_size / 2**20 if path.exists() else 0.0


def memory() -> float:
    """What this process holds in memory now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


@contextmanager
def sandbox() -> Iterator[str]:
    """A sandbox in a process of its own, so that its memory does not count; its address."""
    command = [sys.executable, "-m", "outboxd", "sandbox", "--port", "0", "--unlimited"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"https?://\S+", process.stdout.readline())
        assert found is not None
        yield found[0]
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
