"""Many producer processes at once, each with a commit an event and no rest: is any of them starved?"""

import fcntl
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from time import monotonic

import outboxd
from tests.benchmarks.enqueue import INSERT
from tests.benchmarks.figures import Figure, percentile
from tests.benchmarks.peers import PAYLOAD, PEERS, Peer
from tests.benchmarks.rig import Rig, bare, customer

Open = Callable[[Path], Callable[[], object]]
"""Opens what is at a path and returns how to write one event to it."""

SLOWEST_PRODUCER, P99 = 0.7, {4: 5.0, 16: 30.0}


@dataclass(frozen=True)
class ByPeer:
    """A peer's put; picklable by its place, for a process of its own."""

    number: int

    def __call__(self, directory: Path) -> Callable[[], object]:
        queue = PEERS[self.number].open(directory)
        return lambda: queue.put(PAYLOAD)


def by_outboxd(path: Path) -> Callable[[], object]:
    return lambda: outboxd.enqueue("customer_updated", customer(5), db=path)


def by_turns(path: Path) -> Callable[[], object]:
    """The bare library on a connection kept open, in turns that the kernel gives: it is as fair."""
    connection = bare(path)
    descriptor = os.open(path.with_suffix(".turn"), os.O_RDWR | os.O_CREAT)

    def write() -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        connection.execute(INSERT, (PAYLOAD,))
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    return write


def by_hand(path: Path) -> Callable[[], object]:
    connection = bare(path)
    return lambda: connection.execute(INSERT, (PAYLOAD,))


def figures(rig: Rig) -> Iterator[Figure]:
    """outboxd.enqueue in 4 and in 16 processes; the bare library and the peers in 4.

    Somebody else has the outbox open all the time, as the daemon has: without it each producer would be the
    last one to close the file, again and again, and SQLite would fold the log into it every time.
    """
    for producers, slowest in P99.items():
        outbox = rig.outbox()
        with closing(bare(outbox)) as daemon:
            daemon.execute("SELECT 1 FROM outbox").fetchone()
            share, milliseconds = at_once(rig, by_outboxd, outbox, producers)
        fair, by_floor = at_once(rig, by_turns, rig.outbox(), producers)
        named = f"{producers} producers"
        yield Figure(
            name=f"{named}: the slowest",
            value=share,
            floor="the fastest of them",
            least=SLOWEST_PRODUCER,
            note=f"{len(milliseconds):,} events; flock and raw INSERT: {fair:.2f}, {len(by_floor):,} events",
        )
        yield Figure(
            name=f"{named}: p99",
            value=percentile(milliseconds, 0.99),
            unit="ms",
            floor=f"flock and raw INSERT: {percentile(by_floor, 0.99):.1f} ms",
            most=slowest,
            note=f"p50 {percentile(milliseconds, 0.5):.1f} ms; worst {max(milliseconds):.0f} ms",
        )
    yield _others("raw INSERT, a busy time-out of 30 s", *at_once(rig, by_hand, rig.outbox(), 4))
    for number, peer in enumerate(PEERS):
        yield _peer(rig, number, peer)


def _peer(rig: Rig, number: int, peer: Peer) -> Figure:
    if not peer.is_installed:
        return Figure(name=f"{peer.name}, 4 producers", value=None, note="not installed")
    directory = rig.room(peer.name)
    peer.open(directory).close()
    try:
        return _others(peer.name, *at_once(rig, ByPeer(number), directory, 4))
    except RuntimeError as error:
        return Figure(name=f"{peer.name}, 4 producers", value=None, note=str(error))


def _others(name: str, share: float, milliseconds: list[float]) -> Figure:
    p99, worst = percentile(milliseconds, 0.99), max(milliseconds)
    return Figure(
        name=f"{name}, 4 producers: the slowest",
        value=share,
        floor="the fastest of them",
        note=f"{len(milliseconds):,} events; p99 {p99:.1f} ms; worst {worst:,.0f} ms",
    )


def at_once(rig: Rig, opened: Open, at: Path, producers: int) -> tuple[float, list[float]]:
    """What the slowest of so many processes wrote as a share of what the fastest wrote, and the milliseconds
    of each event. Raises RuntimeError if one of them broke off.
    """
    spawning = multiprocessing.get_context("spawn")
    start, told = spawning.Barrier(producers), spawning.SimpleQueue()
    seconds = rig.pick(5, 1)
    processes = [
        spawning.Process(target=_produce, args=(opened, at, seconds, start, told)) for _ in range(producers)
    ]
    for process in processes:
        process.start()
    taken: list[list[float] | str] = [told.get() for _ in processes]
    for process in processes:
        process.join()
    if broken := [each for each in taken if isinstance(each, str)]:
        raise RuntimeError(f"{len(broken)} of {producers} broke off: {broken[0]}")
    counts = [len(each) for each in taken]
    return min(counts) / max(counts), [1000 * float(each) for one in taken for each in one]


def _produce(
    opened: Open, at: Path, seconds: float, start: Barrier, told: "multiprocessing.SimpleQueue[object]"
) -> None:
    """Write until the time is over; tell the seconds of each event, or why there are none."""
    took: list[float] = []
    try:
        write = opened(at)
        start.wait(60)
        end = monotonic() + seconds
        while (now := monotonic()) < end:
            write()
            took.append(monotonic() - now)
        told.put(took)
    except Exception as error:  # whatever a peer raises
        start.abort()
        told.put(f"{type(error).__name__}: {error}")
