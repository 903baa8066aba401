"""What bulk delivery costs, measured: `python -m tests.bulk [--customers N] [--seed S]`.

The sandbox, a process of its own, answers after 50 ms and keeps Brevo's limits; the daemon and the commands
are real. A shop's customers are backfilled from a CSV file, each is changed later and goes in one window,
and a backlog of many events on few customers is worked off in realtime. Every contact is compared with what
it must be. Exits with 1 if a target is missed; they are meant for 50,000 customers and more, for an import
takes some seconds, and some calls, however small it is.
"""

import argparse
import csv
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any

import requests

from outboxd import database
from outboxd.outbox import CHUNK, REST
from tests.processes import KEY, Daemon, status, write_config

LIST = 5

LATENCY = 0.05
"""Seconds before each answer of the sandbox."""

PATIENCE = 60.0
"""Seconds without a single event delivered after which a phase is given up."""

BURST_EVENTS, BURST_CUSTOMERS = 20_000, 500

FIRST_NAMES = ("Ann", "Bea", "Cleo", "Dora", "Eve", "José", "Zoë", "Łucja")
LAST_NAMES = ("Archer", "O'Neill", "Müller", "Smith", "van Dyck", "Ångström")


@dataclass(frozen=True)
class Figure:
    """One line of the table. `most` and `least` are its targets."""

    name: str
    value: float
    most: float | None = None
    least: float | None = None

    @property
    def is_met(self) -> bool:
        return (self.most is None or self.value <= self.most) and (
            self.least is None or self.value >= self.least
        )

    def __str__(self) -> str:
        bounds = [f"at most {self.most:,g}"] if self.most is not None else []
        bounds += [f"at least {self.least:,g}"] if self.least is not None else []
        text = f"{self.value:,.2f}".rstrip("0").rstrip(".")
        told = f"{self.name:<42}{text:>12}  {'; '.join(bounds)}"
        return told.rstrip() if self.is_met else f"{told}  MISSED"


class Brevo:
    """The sandbox in its process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        words = dict(line.split(": ", 1) for line in islice(process.stdout, 3))
        self.url = words["brevo.base_url"].strip()

    @property
    def calls(self) -> int:
        return int(self._look("stats")["calls"])

    @property
    def contacts(self) -> dict[str, dict[str, Any]]:
        """All contacts by address."""
        return {contact["email"]: contact for contact in self._look("contacts")}

    def _look(self, door: str) -> Any:
        root = self.url.removesuffix("/v3")
        return requests.get(f"{root}/sandbox/{door}", timeout=120).json()


@contextmanager
def sandbox() -> Iterator[Brevo]:
    """Brevo with its limits: 10 calls a second, 36,000 an hour, 100 an hour of other kinds."""
    command = [sys.executable, "-m", "outboxd", "sandbox", "--port", "0", "--latency", str(LATENCY)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield Brevo(process)
    finally:
        process.terminate()
        process.wait(15)


def customers(count: int, random: Random, version: str) -> list[dict[str, Any]]:
    """Customers as the shop has them at that time."""
    return [
        {
            "id": number,
            "email": f"customer{number}@example.com",
            "firstName": random.choice(FIRST_NAMES),
            "lastName": f"{random.choice(LAST_NAMES)} {number}",
            "phone": f"+{phone(number)}",
            "updatedAt": version,
        }
        for number in range(count)
    ]


def phone(number: int) -> str:
    """As Brevo keeps it."""
    return f"49151{10_000_000 + number}"


def wrong(contacts: dict[str, dict[str, Any]], expected: Sequence[dict[str, Any]]) -> int:
    """How many contacts are missing, different, or nobody's."""
    found_wrong = len(contacts.keys() - {customer["email"] for customer in expected})
    for customer in expected:
        contact = contacts.get(customer["email"], {})
        attributes = {
            "FIRSTNAME": customer["firstName"],
            "LASTNAME": customer["lastName"],
            "SMS": customer["phone"].removeprefix("+"),
        }
        is_right = contact.get("attributes") == attributes and contact.get("listIds") == [LIST]
        found_wrong += not (is_right and contact["emailBlacklisted"] is False)
    return found_wrong


def write(outbox: Path, events: Sequence[dict[str, Any]]) -> None:
    """Live events by plain SQL, a chunk a transaction, as a considerate shop writes them."""
    with closing(sqlite3.connect(outbox, timeout=30)) as connection:
        for start in range(0, len(events), CHUNK):
            rows = [(json.dumps(event),) for event in events[start : start + CHUNK]]
            with connection:
                connection.executemany(
                    "INSERT INTO outbox (event, payload) VALUES ('customer_updated', ?)", rows
                )
            sleep(REST)


def run(config: Path, *command: str) -> float:
    """One of outboxd's commands; its peak memory in MB."""
    environ = {**os.environ, "BREVO_API_KEY": KEY}
    arguments = [sys.executable, "-m", "outboxd", *command]
    process = subprocess.Popen(arguments, env=environ, stdout=subprocess.DEVNULL, cwd=config.parent)
    most = 0.0  # asked for again and again: what wait4 tells of a child has its parent's memory in it
    while process.poll() is None:
        most = max(most, peak(process.pid))
        sleep(0.02)
    assert process.returncode == 0, f"{command[0]} ended with {process.returncode}"
    return most


def finished(daemon: Daemon, events: int) -> None:
    """Wait until so many events are delivered or dead."""
    most, give_up = -1, monotonic() + PATIENCE
    while most < events:
        sleep(0.1)
        now = daemon.status()
        done = now["delivered"] + now["dead"]
        if done > most:
            most, give_up = done, monotonic() + PATIENCE
        assert daemon.process.poll() is None, daemon.words[-2000:]
        assert monotonic() < give_up, now


def peak(process_id: int) -> float:
    """A process's peak memory in MB; 0 as it ends."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return int(next((line.split()[1] for line in lines if line.startswith("VmHWM")), "0")) / 1024


def bulk(directory: Path, brevo: Brevo, count: int, random: Random) -> Iterator[Figure]:
    """A backfill of all customers, then a change of each of them in one window."""
    config = configured(directory, brevo, "batch")
    outbox = config.with_name("outbox.db")
    before = customers(count, random, "2026-01-01T00:00:00Z")
    after = customers(count, random, "2026-02-01T00:00:00Z")
    export = directory / "customers.csv"
    with export.open("w", newline="") as file:
        table = csv.DictWriter(file, before[0])
        table.writeheader()
        table.writerows(before)
    with Daemon(config) as daemon:
        daemon.ready()
        calls, started = brevo.calls, monotonic()
        memory = run(config, "backfill", "--config", str(config), "--quiet", str(export))
        yield Figure("backfill: seconds until it is written", monotonic() - started)
        finished(daemon, count)
        took = monotonic() - started
        yield Figure("backfill: seconds in all", took)
        yield Figure("backfill: customers a second", count / took, least=1000)
        yield Figure("backfill: calls a thousand customers", (brevo.calls - calls) / count * 1000, most=2)
        yield Figure("backfill: contacts that are wrong", wrong(brevo.contacts, before), most=0)
        yield Figure("backfill: peak MB of the command", memory)
        yield Figure("backfill: peak MB of the daemon", peak(daemon.process.pid))
        write(outbox, after)
        calls, started = brevo.calls, monotonic()
        run(config, "flush", "--config", str(config))
        finished(daemon, 2 * count)
        took = monotonic() - started
        yield Figure("window: seconds in all", took)
        yield Figure("window: customers a second", count / took)
        yield Figure("window: calls a thousand customers", (brevo.calls - calls) / count * 1000, most=12)
        yield Figure("window: contacts that are wrong", wrong(brevo.contacts, after), most=0)
        yield Figure("window: peak MB of the daemon", peak(daemon.process.pid))
    yield from lost(outbox, 2 * count)


def burst(directory: Path, brevo: Brevo, random: Random) -> Iterator[Figure]:
    """Many events on few customers, all of them waiting when the daemon starts in realtime."""
    config = configured(directory, brevo, "realtime")
    outbox = config.with_name("outbox.db")
    rounds = BURST_EVENTS // BURST_CUSTOMERS
    states = [
        customers(BURST_CUSTOMERS, random, f"2026-01-01T00:{minute:02}:00Z") for minute in range(rounds)
    ]
    events = [event for state in states for event in state]
    random.shuffle(events)
    write(outbox, events)
    calls = brevo.calls
    with Daemon(config) as daemon:
        started = monotonic()
        finished(daemon, BURST_EVENTS)
        took = monotonic() - started
        yield Figure("burst: events a second", BURST_EVENTS / took)
        yield Figure("burst: calls a customer", (brevo.calls - calls) / BURST_CUSTOMERS, most=1.1)
        yield Figure("burst: contacts that are wrong", wrong(brevo.contacts, states[-1]), most=0)
    yield from lost(outbox, BURST_EVENTS)


def configured(directory: Path, brevo: Brevo, mode: str) -> Path:
    """The defaults, but for windows that open on demand alone."""
    directory.mkdir()
    database.migrate(directory / "outbox.db")
    defaults = {"requests_per_second": 10, "requests_per_hour": 36_000, "timeout_seconds": 10}
    return write_config(
        directory / "config.yaml",
        brevo.url,
        options={"list_id": LIST, "sync_mode": mode},
        brevo=defaults,
        batch={"window": "@yearly"},
    )


def lost(outbox: Path, events: int) -> Iterator[Figure]:
    """What became of all events."""
    now = status(outbox)
    yield Figure("events that are lost", events - now["delivered"] - now["dead"], most=0)
    yield Figure("events that are dead", now["dead"], most=0)


def show(figures: Iterable[Figure]) -> bool:
    """Print them one by one as they come; whether all targets are met."""
    is_well = True
    for figure in figures:
        sys.stdout.write(f"{figure}\n")
        sys.stdout.flush()
        is_well &= figure.is_met
    return is_well


def main() -> int:
    """Print the table; exit 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random = Random(options.seed)
    is_well = True
    with TemporaryDirectory(prefix="outboxd-bulk-") as name:
        directory = Path(name)
        with sandbox() as brevo:
            is_well &= show(bulk(directory / "bulk", brevo, options.customers, random))
        with sandbox() as brevo:
            is_well &= show(burst(directory / "burst", brevo, random))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
