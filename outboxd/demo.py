"""The demo: the life of a few events, from three ways in to a stand-in for Brevo, with made-up people.

Each step says what it expects, and the demo succeeds only if all of it came out so.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from outboxd import app, clock, config, database, intake, report
from outboxd.brevo.sandbox import Fault, Sandbox
from outboxd.intake.lines import take

KEY = "xkeysib-sandbox"
LIST_ID = 5
BY_SQL = """INSERT INTO outbox (event, payload) VALUES ('customer_created', ?)"""

Say = Callable[[str], None]


def run(say: Say) -> bool:
    """Show it all; whether everything came out as it should."""
    trouble = Fault(status=503, method="POST", identifier="ravi@example.com", times=1)
    with (
        TemporaryDirectory(prefix="outboxd-demo-") as directory,
        Sandbox(api_key=KEY, faults=[trouble]) as sandbox,
    ):
        settings = _settings(Path(directory) / "outbox.db", sandbox.url)
        database.migrate(settings.database)
        say("1. A shop writes events, by each of the three ways in:\n")
        for told in _write(settings.database):
            say(f"   {told}")
        say("\n2. The relay carries them to Brevo (here: a sandbox on this host)…")
        _drain(settings)
        say("\n3. The contacts, as Brevo has them now:\n")
        for contact in sandbox.contacts:
            say(f"   {_line(contact)}")
        with database.reading(settings.database) as connection:
            status = report.status(connection, clock.wall(), enabled=True)
            retried = _retried(connection)
            dead = report.events(connection, status="dead")
        say("\n4. What the operator sees:\n")
        say(f"   pending {status['pending']}, delivered {status['delivered']}, dead {status['dead']}")
        for event_id, detail in retried:
            say(f"   event {event_id} was tried again: {detail}")
        for event in dead:
            say(f"   event {event['id']} is a dead letter: {event['last_error']}")
        faults = list(_faults(sandbox, status, retried, dead))
        for fault in faults:
            say(f"\nNot as it should be: {fault}")
        if not faults:
            say(f"\nAll of it came out as it should, with {len(sandbox.calls)} calls.")
        return not faults


def _settings(path: Path, url: str) -> config.Config:
    return config.from_mapping(
        {
            "database": str(path),
            "skills": {"customer-sync": {"options": {"list_id": LIST_ID}}},
            "brevo": {"base_url": url},
            "retry": {"first_seconds": 1},
        },
        "the demo",
    )


def _write(path: Path) -> Iterator[str]:
    mara = {"id": 1, "email": "mara@example.com", "firstName": "Mara", "phone": "+4915112345678"}
    with closing(sqlite3.connect(path)) as shop, shop:
        shop.execute(BY_SQL, (json.dumps(mara),))
    yield "SQL       INSERT INTO outbox (event, payload) VALUES ('customer_created', '{…}')   Mara registers"
    for event, data, told in (
        ("customer_created", {"id": 2, "email": "tom@example.com", "firstName": "Tom"}, "Tom registers"),
        (
            "customer_updated",
            {"id": 2, "email": "tom@example.com", "changes": {"lastName": {"old": None, "new": "Berg"}}},
            "Tom adds his name: folded into one call",
        ),
        ("customer_created", {"id": 3, "email": "ravi@example.com", "first_name": "Ravi"}, "Ravi registers"),
        (
            "customer_created",
            {"id": 4, "email": "lena@example.com", "acceptsMarketing": False},
            "Lena opts out",
        ),
        ("customer_created", {"id": 5, "email": "gone@example.com"}, "Kim registers…"),
        ("customer_deleted", {"id": 5}, "…and leaves: no address is needed"),
        ("customer_updated", {"id": 99, "firstName": "Nobody"}, "an update of somebody unknown"),
    ):
        intake.enqueue(event, data, db=path)
        yield f"Python    outboxd.enqueue({event!r}, {{…}})   {told}"
    lines = json.dumps({"event": "customer_updated", "data": {"id": 1, "lastName": "Lind"}})
    rows, _ = take(lines, {})
    intake.write(path, rows)
    yield "script    outboxd-intake < events.jsonl   Mara adds her name"


def _drain(settings: config.Config) -> None:
    with app.relaying(settings, KEY) as relay:
        relay.drain(until_nothing_waits=True)


def _line(contact: dict[str, Any]) -> str:
    attributes = ", ".join(f"{name}={value}" for name, value in contact["attributes"].items() if value)
    flag = "blocklisted" if contact["emailBlacklisted"] else "subscribed"
    return f"{contact['email']:<20}{flag:<13}lists {contact['listIds']}  {attributes}"


def _retried(connection: sqlite3.Connection) -> list[tuple[int, str]]:
    return connection.execute("SELECT event_id, detail FROM attempts WHERE verdict = 'retry'").fetchall()


def _faults(
    sandbox: Sandbox, status: dict[str, Any], retried: list[tuple[int, str]], dead: list[dict[str, Any]]
) -> Iterator[str]:
    """What is not as the story wants it."""
    wanted = {
        "mara@example.com": (False, [LIST_ID], {"FIRSTNAME": "Mara", "LASTNAME": "Lind"}),
        "tom@example.com": (False, [LIST_ID], {"FIRSTNAME": "Tom", "LASTNAME": "Berg"}),
        "ravi@example.com": (False, [LIST_ID], {"FIRSTNAME": "Ravi"}),
        "lena@example.com": (True, [LIST_ID], {}),
    }
    found = {contact["email"]: contact for contact in sandbox.contacts}
    if set(found) != set(wanted):
        yield f"the contacts are {', '.join(sorted(found))}"
        return
    for email, (is_out, lists, attributes) in wanted.items():
        contact = found[email]
        if contact["emailBlacklisted"] is not is_out or contact["listIds"] != lists:
            yield f"{email} has the wrong flag or lists"
        if not attributes.items() <= contact["attributes"].items():
            yield f"{email} lacks attributes"
    if status["pending"] or status["dead"] != 1 or len(dead) != 1 or "99" not in dead[0]["last_error"]:
        yield "the queue is not empty, or the dead letter is another one"
    if len(retried) != 1:
        yield "the failure was not retried once"
