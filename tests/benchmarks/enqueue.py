"""Writing events: one and one commit, or many in one transaction, beside the bare library and its peers."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median

import outboxd
from outboxd import database, intake, pool
from tests.benchmarks.figures import Figure, in_turns, ratio
from tests.benchmarks.peers import PAYLOAD, PEERS, Peer
from tests.benchmarks.rig import Rig, bare, customer

INSERT = "INSERT INTO outbox (event, payload) VALUES ('customer_updated', ?)"


def figures(rig: Rig) -> Iterator[Figure]:
    """One event a commit, and many."""
    yield from single(rig)
    yield from many(rig)


def single(rig: Rig) -> Iterator[Figure]:
    """The bare library says json.dumps, INSERT and COMMIT, on a connection kept open or on one of its own.

    Both write to a table with outboxd's columns, indexes and triggers, each to its own. Somebody else has
    the file open all the time, as the daemon has.
    """
    rounds = rig.pick(2001, 21)
    ours, floor, first, opening, following, open_raw = (rig.outbox() for _ in range(6))
    with (
        closing(database.connect(ours)) as connection,
        closing(bare(floor)) as raw,
        closing(bare(first)),
        closing(bare(opening)),
        closing(bare(following)),
        closing(bare(open_raw)) as other_raw,
    ):
        opened, inserted = in_turns(
            [
                lambda: outboxd.enqueue("customer_updated", customer(5), connection=connection),
                lambda: raw.execute(INSERT, (json.dumps(customer(5)),)),
            ],
            rounds,
        )
        wrote, anew = in_turns([lambda: _enqueue_first(first), lambda: _insert_anew(opening)], rounds)
        wrote_next, inserted_next = in_turns(
            [
                lambda: outboxd.enqueue("customer_updated", customer(5), db=following),
                lambda: other_raw.execute(INSERT, (json.dumps(customer(5)),)),
            ],
            rounds,
        )
    yield _single(
        "enqueue, open connection", opened, inserted, "raw INSERT and COMMIT, same table", least=0.85
    )
    yield _single("enqueue(db=…), a first event", wrote, anew, "raw: open, INSERT, COMMIT, close", least=0.85)
    yield _single(
        "enqueue(db=…), the next one", wrote_next, inserted_next, "raw INSERT and COMMIT, open connection"
    )
    for peer in PEERS:
        yield by_peer(rig, peer, rounds)


def by_peer(rig: Rig, peer: Peer, rounds: int) -> Figure:
    """A peer beside the bare library on the peer's own table."""
    if not peer.is_installed:
        return Figure(name=peer.name, value=None, note="not installed")
    queue, other = peer.open(rig.room(peer.name)), peer.open(rig.room(peer.name))
    other.put(PAYLOAD)
    connection, insert = other.raw()
    put, inserted = in_turns([lambda: queue.put(PAYLOAD), insert], rounds)
    for each in (connection, queue, other):
        each.close()
    return _single(peer.name, put, inserted, "raw INSERT and COMMIT, its own table")


def _single(
    name: str, took: list[float], floor: list[float], what: str, least: float | None = None
) -> Figure:
    """By the medians: a disk that is shared makes any single commit slow."""
    ours, theirs = median(took), median(floor)
    note = f"{ours * 1e6:,.0f} µs against {theirs * 1e6:,.0f} µs"
    return Figure(name=name, value=theirs / ours, floor=what, least=least, note=note)


def _enqueue_first(path: Path) -> None:
    outboxd.enqueue("customer_updated", customer(5), db=path)
    pool.close()


def _insert_anew(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(INSERT, (json.dumps(customer(5)),))


def many(rig: Rig) -> Iterator[Figure]:
    """Rows in one transaction; peers have no such call."""
    size, rounds = rig.pick(10_000, 200), rig.pick(11, 2)
    ours, floor = rig.outbox(), rig.outbox()
    checked = [intake.checked("customer_updated", customer(number)) for number in range(size)]
    rows = [(row[0], row[1]) for row in checked]
    with closing(bare(floor)) as raw, closing(bare(ours)):

        def insert() -> None:
            raw.execute("BEGIN IMMEDIATE")
            raw.executemany("INSERT INTO outbox (event, payload) VALUES (?, ?)", rows)
            raw.execute("COMMIT")

        took, inserted = in_turns([lambda: intake.write(ours, checked), insert], rounds)
    yield Figure(
        name=f"{size:,} events in one transaction",
        value=ratio(inserted, took),
        floor="raw executemany, same table",
        least=0.6,
        note=f"{size / median(took):,.0f} a second against {size / median(inserted):,.0f}",
    )
