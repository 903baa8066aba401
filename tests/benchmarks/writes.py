"""The bytes that the daemon writes to the database and its log for an event it delivers."""

from collections.abc import Iterator
from statistics import median

from tests.benchmarks.daemons import delivered, draining, written_bytes
from tests.benchmarks.figures import Figure
from tests.benchmarks.rig import Rig, write
from tests.benchmarks.stand_in import brevo


def figures(rig: Rig) -> Iterator[Figure]:
    """A burst at 0 ms, one call an event.

    Counted is what the process hands to write(2) and its kin (wchar of /proc/…/io, which sockets are no part
    of), less what it says to stderr: each page of the write-ahead log, with its header, and each page that a
    checkpoint copies from there to the file. A page that is written twice counts twice.
    """
    events, rounds = rig.pick(5000, 200), rig.pick(3, 1)
    each, dirtied = [], []
    with brevo() as stand_in, draining(rig.outbox(), stand_in) as daemon:
        for number in range(rounds):
            before, said = written_bytes(daemon.process.pid), len(daemon.words.encode())
            write(daemon.database, range(number * events, (number + 1) * events))
            delivered(daemon, (number + 1) * events)
            after, says = written_bytes(daemon.process.pid), len(daemon.words.encode())
            each.append((after["wchar"] - before["wchar"] - (says - said)) / events / 1000)
            dirtied.append((after["write_bytes"] - before["write_bytes"]) / events / 1000)
    yield Figure(
        name="bytes written to the file and its log, an event",
        value=median(each),
        unit="kB",
        most=1.2,
        note=f"wchar less stderr; pages made dirty (write_bytes) {median(dirtied):.2f} kB",
    )
