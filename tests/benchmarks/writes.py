"""The bytes that the daemon writes to the database and its log for an event it delivers."""

from collections.abc import Iterator
from contextlib import closing
from statistics import median

from outboxd import database
from tests.benchmarks.daemons import TOGETHER, delivered, draining, written_bytes
from tests.benchmarks.figures import Figure
from tests.benchmarks.rig import Rig, write
from tests.benchmarks.stand_in import brevo
from tests.processes import Daemon


def figures(rig: Rig) -> Iterator[Figure]:
    """A burst at 0 ms, one call an event; and what its rows come to, however they were written.

    Counted is what the process hands to write(2) and its kin (wchar of /proc/…/io, which sockets are no part
    of), less what it says to stderr: each page of the write-ahead log, with its header, and each page that a
    checkpoint copies from there to the file. A page that is written twice counts twice.
    """
    events, rounds = rig.pick(5000, 200), rig.pick(3, 1)
    with brevo() as stand_in:
        with draining(rig.outbox(), stand_in) as daemon:
            empty = size(daemon)
            alone = [written(daemon, events, number) for number in range(rounds)]
            grown = (size(daemon) - empty) / (rounds * events) / 1000
        with draining(rig.outbox(), stand_in, **TOGETHER) as daemon:
            written(daemon, events, 0)  # from here on Brevo has them
            together = [written(daemon, events, 0, version) for version in range(1, rounds + 1)]
    name = "bytes written to the file and its log, an event"
    yield Figure(name=name, value=median(alone), unit="kB", most=1.2, note="wchar less stderr")
    note = f"the file grows by {grown:.2f} kB: once in the log and once in the file"
    yield Figure(name="the least that these rows come to", value=2 * grown, unit="kB", note=note)
    note = "known customers, a hundred a call"
    yield Figure(name="the same, hybrid", value=median(together), unit="kB", note=note)


def written(daemon: Daemon, events: int, number: int, version: int = 0) -> float:
    """The kilobytes an event of burst `number`, whose customers are its own."""
    before = daemon.status()["delivered"]
    start = _to_files(daemon)
    write(daemon.database, range(number * events, (number + 1) * events), version)
    delivered(daemon, before + events)
    return (_to_files(daemon) - start) / events / 1000


def size(daemon: Daemon) -> int:
    """The bytes of its database, with what is in the log only."""
    with closing(database.connect(daemon.database, read_only=True)) as connection:
        [(pages,)], [(page,)] = (
            connection.execute(f"PRAGMA {name}").fetchall() for name in ("page_count", "page_size")
        )
    return int(pages) * int(page)


def _to_files(daemon: Daemon) -> int:
    return written_bytes(daemon.process.pid) - len(daemon.words.encode())
