"""The whole way of an event under fire: producers, a daemon that is killed again and again, and a bad Brevo.

    python -m tests.torture --events 10000 --customers 2000 --backfilled 1000 --mode hybrid --kills 5 --seed 1

Producers write shuffled and doubled histories of their customers, while `outboxd backfill` writes what the
shop had of some of them at a time; at the end every contact must be as the newest version of each fact says,
and every event must be accounted for.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import outboxd
from outboxd import database
from outboxd.brevo.sandbox import Fault, Sandbox
from outboxd.clock import from_text, to_text
from tests.conftest import until
from tests.processes import Daemon, let_leases_lapse, status, write_config

START = datetime(2026, 1, 1, tzinfo=UTC)

TROUBLES = (
    Fault(status=503),
    Fault(behaviour="reset"),
    Fault(behaviour="lost_answer"),
    Fault(behaviour="half"),
    Fault(behaviour="html"),
    Fault(behaviour="drip"),
    Fault(status=429, headers={"x-sib-ratelimit-reset": "1"}),
)

LIST = 5

BULK = ("/contacts/batch", "/contacts/import")

BATCH = {"window": "@yearly", "max_wait": 1, "batch_size": 25, "import_size": 400}
"""Windows that open whenever somebody waits, and calls of a size that many are needed."""

HYBRID = {"threshold_seconds": 1}
RATES = {"requests_per_second": 100, "requests_per_hour": 360_000}
"""More than a hundred that wait go in bulk."""


@dataclass(frozen=True)
class Plan:
    """How large, and how rough."""

    events: int = 10_000
    customers: int = 2_000
    backfilled: int = 1_000
    mode: str = "realtime"
    producers: int = 4
    faults: float = 0.05
    kills: int = 5
    seed: int = 1
    hastens: bool = False  # do not wait for the leases of a killed daemon to lapse


@dataclass
class Customer:
    """One customer's history as the shop knows it, and what Brevo must have in the end."""

    number: int
    email: str
    events: list[dict[str, Any]] = field(default_factory=list)
    snapshots: list[dict[str, Any]] = field(default_factory=list)  # what an export says after each event
    attributes: dict[str, str] = field(default_factory=dict)
    is_out: bool = False
    is_gone: bool = False


def history(number: int, length: int, random: Random) -> Customer:
    """A customer created, changed a few times, perhaps moved, perhaps deleted, perhaps back again."""
    customer = Customer(number, f"ann{number}@example.com")
    ending = random.choices(["stays", "leaves", "comes back"], [80, 12, 8])[0]
    length = max(length, {"stays": 1, "leaves": 2, "comes back": 3}[ending])
    for version in range(length):
        left = length - 1 - version
        kind = "updated" if version else "created"
        if (ending, left) in (("leaves", 0), ("comes back", 1)):
            kind = "deleted"
        elif (ending, left) == ("comes back", 0):
            kind = "created"
        data: dict[str, Any] = {"id": number}
        if kind == "updated" and random.random() < 0.1:
            customer.email = f"ann{number}.{version}@example.com"
        if kind == "created":
            customer.attributes, customer.is_gone = {}, False
        if kind == "deleted":
            customer.is_gone = True
        else:
            data["email"] = customer.email
            for name, attribute in (("firstName", "FIRSTNAME"), ("lastName", "LASTNAME")):
                if kind == "created" or random.random() < 0.6:
                    data[name] = customer.attributes[attribute] = f"{name[0].upper()}{number}v{version}"
            if random.random() < 0.25:
                data["acceptsMarketing"] = random.random() < 0.5
                customer.is_out = not data["acceptsMarketing"]
        at = START + timedelta(days=number % 100, minutes=version)
        customer.events.append({"event": f"customer_{kind}", "data": data, "at": to_text(at)})
        if not any(event["event"] == "customer_deleted" for event in customer.events):
            customer.snapshots.append(_snapshot(customer, at + timedelta(seconds=30)))
    return customer


def _snapshot(customer: Customer, at: datetime) -> dict[str, Any]:
    """What an export made at that time says of the customer, the phone being news of its own."""
    stated = [event["data"] for event in customer.events if "acceptsMarketing" in event["data"]]
    return {
        "id": customer.number,
        "email": customer.email,
        "firstName": customer.attributes["FIRSTNAME"],
        "lastName": customer.attributes["LASTNAME"],
        "phone": f"+{phone(customer.number)}",
        **({"acceptsMarketing": not customer.is_out} if stated else {}),
        "updatedAt": to_text(at),
    }


def phone(number: int) -> str:
    """A phone as Brevo keeps it; every tenth is of a range that nobody knows to be in use."""
    return f"4915112{number:06}" if number % 10 else f"1555{number:07}"


def backfilled(plan: Plan, customers: Sequence[Customer]) -> list[dict[str, Any]]:
    """The rows of an export of some of the customers, each as it was at some time before any deletion."""
    random = Random(plan.seed)
    chosen = random.sample(customers, plan.backfilled)
    for customer in chosen:
        if len(customer.snapshots) == len({event["at"] for event in customer.events}):
            customer.attributes["SMS"] = phone(customer.number)
    return [random.choice(customer.snapshots) for customer in chosen]


def histories(plan: Plan) -> list[Customer]:
    """Customers with about `plan.events` events between them, a tenth of them written twice."""
    random = Random(plan.seed)
    shares = [1] * plan.customers
    for _ in range(round(plan.events / 1.1) - plan.customers):
        shares[random.randrange(plan.customers)] += 1
    customers = [history(number, share, random) for number, share in enumerate(shares)]
    while (missing := plan.events - sum(len(each.events) for each in customers)) > 0:
        for customer in random.sample(customers, min(missing, len(customers))):
            customer.events.append(random.choice(customer.events))
    return customers


def shuffled(customers: Sequence[Customer], random: Random) -> list[dict[str, Any]]:
    """All their events, out of order within a window, as a shop's queue would have them."""
    placed = [
        (index * 40 + random.uniform(0, 120), event)
        for customer in customers
        for index, event in enumerate(customer.events)
    ]
    return [event for _, event in sorted(placed, key=lambda pair: pair[0])]


def produce(events: Path, outbox: Path) -> None:
    """A producer: write each event of a file, and print its id once it is acknowledged."""
    for line in events.read_text().splitlines():
        event = json.loads(line)
        moment = from_text(event["at"])
        print(outboxd.enqueue(event["event"], event["data"], occurred_at=moment, db=outbox), flush=True)


def run(plan: Plan, directory: Path) -> dict[str, Any]:
    """Carry out `plan` in an empty directory; the figures."""
    outbox = directory / "outbox.db"
    database.migrate(outbox)
    customers = histories(plan)
    export = directory / "export.jsonl"
    export.write_text("".join(json.dumps(row) + "\n" for row in backfilled(plan, customers)))
    total = plan.events + plan.backfilled
    troubles = [
        Fault(
            status=each.status,
            headers=each.headers,
            behaviour=each.behaviour,
            path="/contacts*",
            rate=plan.faults / len(TROUBLES),
        )
        for each in TROUBLES
    ]
    started = monotonic()
    with Sandbox(faults=troubles, seed=plan.seed, latency=timedelta(milliseconds=4)) as sandbox:
        config = write_config(
            directory / "config.yaml",
            sandbox.url,
            options={"delete_behavior": "hard", "list_id": LIST, "sync_mode": plan.mode},
            brevo={"timeout_seconds": 0.5, **(RATES if plan.mode == "hybrid" else {})},
            retry={"first_seconds": 0.2, "cap_seconds": 2, "max_attempts": 50},
            batch=BATCH,
            hybrid=HYBRID,
        )
        producers = list(_producers(plan, customers, directory, outbox))
        backfill = _backfill(config, export)
        daemon, held = Daemon(config), []
        try:
            for kill in range(1, plan.kills + 1):
                _until_delivered(daemon, total * kill // (plan.kills + 1), within=120)
                give_up = monotonic() + 2
                until(lambda give_up=give_up: sandbox.stats["under_way"] or monotonic() > give_up)  # type: ignore[misc]
                daemon.kill()
                until(lambda: sandbox.stats["under_way"] == 0)
                held.append(status(outbox)["in_flight"])
                if plan.hastens:
                    let_leases_lapse(outbox)
                daemon = Daemon(config)
            acknowledged = [int(word) for each in producers for word in each.communicate()[0].split()]
            written = monotonic() - started
            backfill_code = backfill.wait(60)
            _until_delivered(daemon, total, within=60 + total / 50)
            took = monotonic() - started
            daemon.send(signal.SIGTERM)
            exit_code = daemon.ended(30)
        finally:
            daemon.process.kill()
            backfill.kill()
            for producer in producers:
                producer.kill()
        return {
            **_account(outbox, acknowledged),
            "events": plan.events,
            "backfilled": plan.backfilled,
            "customers": plan.customers,
            "mode": plan.mode,
            "producer failures": sum(each.returncode != 0 for each in producers) + (backfill_code != 0),
            "kills": plan.kills,
            "events in flight at the kills": held,
            "exit code": exit_code,
            "calls": sandbox.stats["calls"],
            "calls by status": sandbox.stats["by_status"],
            "calls in bulk": dict(Counter(c.path for c in sandbox.calls if c.path in BULK)),
            "largest overlap": sandbox.stats["largest_overlap"],
            "wrong contacts": wrong(sandbox, customers),
            "seconds writing": round(written, 1),
            "seconds in all": round(took, 1),
            "latency ms": status(outbox)["windows"]["hour"]["latency_ms"],
        }


def _producers(
    plan: Plan, customers: Sequence[Customer], directory: Path, outbox: Path
) -> Iterator[subprocess.Popen[str]]:
    for number in range(plan.producers):
        events = shuffled(customers[number :: plan.producers], Random(plan.seed + number))
        path = directory / f"producer-{number}.jsonl"
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        yield subprocess.Popen(
            [sys.executable, "-m", "tests.torture", "--produce", str(path), str(outbox)],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
        )


def _backfill(config: Path, export: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "outboxd", "backfill", "--config", str(config), str(export)],
        stdout=subprocess.DEVNULL,
    )


def _until_delivered(daemon: Daemon, events: int, within: float) -> None:
    """Wait for so many deliveries; none may be dead, and the daemon may not end by itself."""
    until(lambda: _is_over(daemon, events), within)
    assert daemon.process.poll() is None, daemon.words


def _is_over(daemon: Daemon, events: int) -> bool:
    now = daemon.status()
    return bool(now["delivered"] + now["dead"] >= events) or daemon.process.poll() is not None


def _account(outbox: Path, acknowledged: Sequence[int]) -> dict[str, Any]:
    """What became of the events that were acknowledged."""
    with database.reading(outbox) as connection:
        ends = dict(connection.execute("SELECT id, status FROM outbox").fetchall())
        reasons = connection.execute("SELECT last_error FROM outbox WHERE status = 'dead' LIMIT 5").fetchall()
    return {
        "acknowledged": len(set(acknowledged)),
        "written": len(ends),
        "lost": len(set(acknowledged) - ends.keys()) + sum(end == "pending" for end in ends.values()),
        "delivered": sum(end == "delivered" for end in ends.values()),
        "dead": sum(end == "dead" for end in ends.values()),
        "reasons": [row[0] for row in reasons],
    }


def wrong(sandbox: Sandbox, customers: Sequence[Customer]) -> list[str]:
    """Every contact that is not as it ought to be: one too many, one too few, or different."""
    found = {contact["email"]: contact for contact in sandbox.contacts}
    found_wrong = []
    for customer in customers:
        contact = found.pop(customer.email, None)
        if customer.is_gone or contact is None:
            if customer.is_gone != (contact is None):
                found_wrong.append(f"{customer.number}: {'still there' if contact else 'missing'}")
        elif contact["attributes"] != customer.attributes:
            found_wrong.append(f"{customer.number}: {contact['attributes']} instead of {customer.attributes}")
        elif contact["emailBlacklisted"] != customer.is_out:
            found_wrong.append(f"{customer.number}: blocklisted is {contact['emailBlacklisted']}")
        elif contact["listIds"] != [LIST]:
            found_wrong.append(f"{customer.number}: on the lists {contact['listIds']}")
    return found_wrong + [f"{email}: nobody has that address any more" for email in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("events", "customers", "backfilled", "producers", "kills", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Plan, name))
    parser.add_argument("--mode", choices=("realtime", "batch", "hybrid"), default=Plan.mode)
    parser.add_argument("--faults", type=float, default=Plan.faults)
    parser.add_argument("--hastens", action="store_true", help="do not wait for leases to lapse")
    parser.add_argument("--produce", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = vars(parser.parse_args())
    if files := options.pop("produce"):
        produce(*files)
        return
    with tempfile.TemporaryDirectory() as directory:
        for name, figure in run(Plan(**options), Path(directory)).items():
            print(f"{name:<32}{figure}")


if __name__ == "__main__":
    main()
