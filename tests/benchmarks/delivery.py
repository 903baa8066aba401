"""From the commit of a burst to its last event recorded as delivered: what a worker written by hand does."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import monotonic, process_time
from typing import Any

import requests

from outboxd.brevo.client import Brevo
from outboxd.brevo.limiter import Limiter
from tests.benchmarks.daemons import TOGETHER, configured, delivered, draining, processor_seconds
from tests.benchmarks.figures import Figure, ratio
from tests.benchmarks.rig import Rig, bare, customer, write
from tests.benchmarks.stand_in import brevo
from tests.processes import Daemon

LATENCY, WORKERS, HANDS = 0.05, 16, 8
"""Seconds until an answer; the workers where it takes that long, and where it takes none (the default)."""

TABLE = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, payload TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending'
)
"""
OLDEST = "SELECT id, payload FROM jobs WHERE status = 'pending' ORDER BY id LIMIT 1"
PENDING = "CREATE INDEX jobs_pending ON jobs (id) WHERE status = 'pending'"


def figures(rig: Rig) -> Iterator[Figure]:
    """Delivery at 0 ms against the naive loop, and at 50 ms against what sixteen threads can do at all."""
    yield from unhindered(rig)
    yield from waiting(rig)


def naive_loop(path: Path, url: str, events: int) -> float:
    """The worker that everybody writes first; the events a second, of so many waiting ones.

    One thread, one table with an index for its one question, WAL, synchronous FULL. For each event: SELECT
    the oldest pending row, build the contact by name, POST it in a session kept open, UPDATE the row to
    delivered, COMMIT. No retries, no attempts recorded, no order, no folding; a crash repeats one call.
    """
    with closing(bare(path)) as connection, requests.Session() as session:
        connection.execute(TABLE)
        connection.execute(PENDING)
        rows = [(json.dumps(customer(number)),) for number in range(events)]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO jobs (payload) VALUES (?)", rows)
        connection.execute("COMMIT")
        session.headers["api-key"] = "xkeysib-sandbox"
        started = monotonic()
        while (row := connection.execute(OLDEST).fetchone()) is not None:
            told = json.loads(row[1])
            attributes = {"FIRSTNAME": told["firstName"]}
            body = {"email": told["email"], "attributes": attributes, "updateEnabled": True}
            session.post(f"{url}/contacts", json=body, timeout=10).raise_for_status()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE jobs SET status = 'delivered' WHERE id = ?", (row[0],))
            connection.execute("COMMIT")
        return events / (monotonic() - started)


def burst(daemon: Daemon, events: int, number: int, version: int = 0) -> float:
    """The events a second of burst `number`, from its commit to its last event recorded as delivered.

    Each burst has customers of its own, or with a `version` those of another one, changed.
    """
    before = daemon.status()["delivered"]
    write(daemon.database, range(number * events, (number + 1) * events), version)
    started = monotonic()
    return events / (delivered(daemon, before + events) - started)


def unhindered(rig: Rig) -> Iterator[Figure]:
    """At 0 ms: one call an event, and a hundred events a call; and what bounds the first of them."""
    events, rounds = rig.pick(3000, 100), rig.pick(3, 1)
    ours, naive, together, calling, two = [], [], [], [], []
    spent: list[tuple[float, float]] = []
    with brevo() as stand_in:
        ceiling = stand_in.ceiling()
        shared = configured(rig.outbox(), stand_in)
        with (
            draining(rig.outbox(), stand_in) as alone,
            draining(rig.outbox(), stand_in, **TOGETHER) as other,
            Daemon(shared, "--shared") as first,
            Daemon(shared, "--shared") as second,
        ):
            first.ready()
            second.ready()
            for number in range(rounds):
                here, there = process_time(), processor_seconds(alone.process.pid)
                naive.append(naive_loop(rig.room("naive") / "jobs.db", stand_in.url, events))
                here = process_time() - here
                ours.append(burst(alone, events, number))
                spent.append((processor_seconds(alone.process.pid) - there, here))
                calling.append(calls_alone(stand_in.url, events))
                two.append(burst(first, events, number))
                burst(other, events, number)  # from here on Brevo has them
                stand_in.calls()
                together.append(burst(other, events, number, version=1))
                calls = len(stand_in.calls())
    yield Figure(
        name="event to Brevo, 0 ms",
        value=ratio(ours, naive),
        floor="naive loop: requests, a commit an event",
        least=3,
        note=f"{median(ours):,.0f} a second, the loop {median(naive):,.0f}; the stand-in: {ceiling:,.0f}",
    )
    milliseconds = [1000 * median(each) / events for each in zip(*spent, strict=True)]
    yield Figure(
        name="the same, processor's time",
        value=median(one / other for one, other in spent),
        floor="naive loop",
        note="{:.2f} ms an event, the loop {:.2f} ms".format(*milliseconds),
    )
    yield Figure(
        name="the same, the calls alone",
        value=ratio(calling, naive),
        floor="naive loop",
        note=f"outboxd's client in {HANDS} threads, nothing read, nothing recorded",
    )
    yield Figure(
        name="the same, two daemons that share an outbox",
        value=ratio(two, naive),
        floor="naive loop",
        note=f"{median(two):,.0f} a second",
    )
    yield Figure(
        name="the same, hybrid, known customers",
        value=ratio(together, naive),
        floor="naive loop",
        note=f"{median(together):,.0f} a second, {events:,} events in {calls:,} calls",
    )


def calls_alone(url: str, events: int) -> float:
    """The calls a second of outboxd's own client, from as many threads as a daemon has workers."""
    limiter = Limiter([(1_000_000, 1.0)])
    client = Brevo(base_url=url, api_key="xkeysib-sandbox", limiter=limiter, timeout=timedelta(seconds=10))

    def call(number: int) -> None:
        told = customer(number)
        attributes = {"FIRSTNAME": told["firstName"]}
        client.call("POST", "/contacts", {"email": told["email"], "attributes": attributes})

    return in_threads(HANDS, call, events)


def in_threads(count: int, call: Callable[[int], None], events: int) -> float:
    """How many of `call` so many threads do in a second."""
    with ThreadPoolExecutor(count) as pool:
        started = monotonic()
        list(pool.map(call, range(events)))
        return events / (monotonic() - started)


def waiting(rig: Rig) -> Iterator[Figure]:
    """At 50 ms with sixteen workers: from a burst's commit to its last record, and from its first call to its
    last, which leaves out what is done once, however large the burst is.
    """
    events, rounds = rig.pick(4800, 64), rig.pick(3, 1)
    possible = WORKERS / LATENCY
    with brevo(LATENCY) as stand_in:
        with draining(rig.outbox(), stand_in, brevo={"workers": WORKERS}) as daemon:
            ours, between, threads = [], [], []
            for number in range(rounds):
                threads.append(bare_threads(stand_in.url, events // 3))
                stand_in.calls()
                ours.append(burst(daemon, events, number))
                came = sorted(at for at, _ in stand_in.calls())
                between.append((len(came) - 1) / (came[-1] - came[0]))
    floor = f"what is possible: {possible:.0f} a second"
    yield Figure(
        name=f"event to Brevo, {LATENCY * 1000:.0f} ms, {WORKERS} workers",
        value=median(ours) / possible,
        floor=floor,
        least=0.93,
        note=f"{median(ours):,.0f} a second; bare requests in {WORKERS} threads {median(threads):,.0f}",
    )
    yield Figure(
        name="the same, from the first call to the last",
        value=median(between) / possible,
        floor=floor,
        least=0.93,
    )


def bare_threads(url: str, events: int) -> float:
    """The calls a second of sixteen threads, without any database."""
    local = threading.local()

    def post(number: int) -> None:
        session: Any = getattr(local, "session", None)
        if session is None:
            session = local.session = requests.Session()
        session.post(f"{url}/contacts", json={"email": f"bare{number}@example.com"}, timeout=10)

    return in_threads(WORKERS, post, events)
