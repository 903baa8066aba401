"""The daemon under measurement, and what the kernel knows of its process."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from outboxd import database, report
from tests.benchmarks.stand_in import Brevo
from tests.processes import Daemon, write_config

PATIENCE = 120.0
"""Seconds without an event delivered after which a benchmark is given up."""

TOGETHER: Mapping[str, Any] = {
    "options": {"sync_mode": "hybrid"},
    "hybrid": {"threshold_seconds": 1},
    "brevo": {"requests_per_second": 1000, "requests_per_hour": 36_000},
}
"""Settings by which whoever waits goes together: ten calls a second is what an hour's limit comes to, so more
than ten that wait are too many to go alone. A hundred go in a call, so the limits do not hold anybody up.
"""


def configured(outbox: Path, at: Brevo, **settings: Any) -> Path:
    """A configuration beside the outbox: no rate limit, every event on its own unless `settings` differ."""
    return write_config(outbox.with_name("config.yaml"), at.url, **settings)


@contextmanager
def draining(outbox: Path, at: Brevo, **settings: Any) -> Iterator[Daemon]:
    """`outboxd run` on `outbox`, started and idle or at work."""
    with Daemon(configured(outbox, at, **settings)) as daemon:
        yield daemon.ready()


def delivered(daemon: Daemon, events: int) -> float:
    """Wait until so many events are delivered; when that was, by `monotonic`."""
    most, give_up = -1, monotonic() + PATIENCE
    with closing(database.connect(daemon.database, read_only=True)) as connection:
        while most < events:
            now = int(connection.execute(report.DEPTH).fetchone()[1])
            if now > most:
                most, give_up = now, monotonic() + PATIENCE
            if daemon.process.poll() is not None or monotonic() > give_up:
                raise RuntimeError(f"the daemon stands at {most} of {events} events: {daemon.words[-500:]}")
            if most < events:
                sleep(0.005)
    return monotonic()


def peak_megabytes(process_id: int) -> float:
    """The largest resident size of a process so far."""
    return int(_fields(Path(f"/proc/{process_id}/status"))["VmHWM"].split()[0]) / 1024


def written_bytes(process_id: int) -> int:
    """What a process has handed to write(2) and its kin so far, to files of any kind but sockets."""
    return int(_fields(Path(f"/proc/{process_id}/io"))["wchar"])


def processor_seconds(process_id: int) -> float:
    """The processor's time of all threads of a process that live, to the nanosecond."""
    tasks = Path(f"/proc/{process_id}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def _fields(file: Path) -> Mapping[str, str]:
    return dict(line.split(":", 1) for line in file.read_text().splitlines())
