"""Customers whose histories are shuffled and doubled on their way, and what Brevo must have in the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from outboxd.clock import to_text

START = datetime(2026, 1, 1, tzinfo=UTC)


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


def backfilled(customers: Sequence[Customer], count: int, seed: int) -> list[dict[str, Any]]:
    """The rows of an export of some of the customers, each as it was at some time before any deletion."""
    random = Random(seed)
    chosen = random.sample(customers, count)
    for customer in chosen:
        if len(customer.snapshots) == len({event["at"] for event in customer.events}):
            customer.attributes["SMS"] = phone(customer.number)
    return [random.choice(customer.snapshots) for customer in chosen]


def histories(events: int, count: int, seed: int) -> list[Customer]:
    """So many customers with so many events between them, a tenth of them written twice."""
    random = Random(seed)
    shares = [1] * count
    for _ in range(round(events / 1.1) - count):
        shares[random.randrange(count)] += 1
    customers = [history(number, share, random) for number, share in enumerate(shares)]
    while (missing := events - sum(len(each.events) for each in customers)) > 0:
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
