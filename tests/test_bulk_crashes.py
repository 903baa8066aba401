"""Bulk deliveries that SIGKILL cuts off at every point that matters: each ends as if nothing had happened.

The daemon is a real process, and the moment is certain: it waits there for an answer that does not come, for
Brevo's clock, or for a trigger that never gets done. All scenes are played at once, for each takes seconds.
"""

import json
import signal
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import outboxd
from outboxd import app, config
from outboxd.brevo.sandbox import Call, Fault, Sandbox
from tests.conftest import until
from tests.outboxes import new_outbox
from tests.processes import KEY, STARTING, Daemon, let_leases_lapse, status, write_config
from tests.shop import Clock

CHUNK = 200
"""Rows that are barred, and settled, in a whole number of transactions."""

CUSTOMERS = range(1000, 1000 + CHUNK + 45)
"""What is left of a chunk is few enough to go alone."""

KNOWN = range(1000, 1060)

CLASHING = CUSTOMERS[-1]
"""Who has the phone of the first one, so that an import leaves the row out; in the second chunk of rows."""

NEWS = range(1000, 1005)
"""Whom the shop changes while nobody delivers."""

LIST = 5

# It looks at every pair of pairs of events: hours.
ENDLESS = """
CREATE TRIGGER endless BEFORE INSERT ON import_rows WHEN (SELECT count(*) FROM import_rows) = 200
BEGIN SELECT count(*) FROM outbox AS a, outbox AS b, outbox AS c, outbox AS d; END
"""

IMPORT, BATCH, PROCESS = "/contacts/import", "/contacts/batch", "/processes/1"


@dataclass(frozen=True)
class Crash:
    """A moment at which the daemon is killed: what makes it wait there, and how far it has got then.

    `barred` are the rows of the import under way; `known` says that Brevo has the customers before, so that
    they go in a batch.
    """

    fault: Fault | None = None
    path: str | None = None
    words: str | None = None
    barred: int = 0
    trigger: str | None = None
    import_takes: timedelta = timedelta(0)
    known: bool = False


CRASHES: Mapping[str, Crash | None] = {
    "not at all": None,
    "before Brevo takes a batch": Crash(Fault(behaviour="hang", path=BATCH), BATCH, known=True),
    "after Brevo took a batch": Crash(Fault(behaviour="held_answer", path=BATCH), BATCH, known=True),
    "while rows are being barred": Crash(trigger=ENDLESS, barred=CHUNK),
    "before Brevo takes an import": Crash(
        Fault(behaviour="hang", path=IMPORT), IMPORT, barred=len(CUSTOMERS)
    ),
    "after Brevo took an import": Crash(
        Fault(behaviour="held_answer", path=IMPORT), IMPORT, barred=len(CUSTOMERS)
    ),
    "while an import is under way": Crash(
        words="process=1", barred=len(CUSTOMERS), import_takes=timedelta(hours=1)
    ),
    "when an import has ended": Crash(
        Fault(behaviour="held_answer", path=PROCESS), PROCESS, barred=len(CUSTOMERS)
    ),
    "when some of the rows are settled": Crash(
        Fault(behaviour="hang", path="/contacts", method="POST"), "/contacts", barred=45
    ),
}


@dataclass(frozen=True)
class Ending:
    """What is left in the end."""

    contacts: Mapping[str, Any]
    calls: Sequence[Call]
    status: Mapping[str, Any]
    imports: Sequence[Any]
    rows: int
    exit_code: int
    words: str


def customer(number: int, first_name: str, version: int) -> dict[str, Any]:
    """A customer as the shop has it."""
    return {
        "id": number,
        "email": f"ann{number}@example.com",
        "firstName": first_name,
        "lastName": "Archer",
        "phone": f"+{phone(number if number != CLASHING else CUSTOMERS[0])}",
        "updatedAt": f"2026-01-0{version}T00:00:00Z",
    }


def expected(numbers: Sequence[int]) -> dict[str, Any]:
    """The contacts that there must be, whatever happened on the way."""
    found = {}
    for number in numbers:
        attributes = {"FIRSTNAME": "Ann", "LASTNAME": "Newest" if number in NEWS else "Archer"}
        if number != CLASHING:
            attributes["SMS"] = phone(number)
        found[f"ann{number}@example.com"] = (attributes, [LIST], False)
    return found


def phone(number: int) -> str:
    """As Brevo keeps it."""
    return f"4915112{number:06}"


def fill(outbox: Path, numbers: Sequence[int], first_name: str, version: int) -> None:
    """Backfilled events, all of them at once."""
    rows = [(json.dumps(customer(number, first_name, version)),) for number in numbers]
    with closing(sqlite3.connect(outbox)) as connection, connection:
        connection.executemany(
            "INSERT INTO outbox (event, payload, is_backfill) VALUES ('customer_updated', ?, 1)", rows
        )


def tell_news(outbox: Path) -> None:
    """Newer, live events about some of them."""
    for number in NEWS:
        data = {"id": number, "lastName": "Newest", "updatedAt": "2026-01-09T00:00:00Z"}
        outboxd.enqueue("customer_updated", data, db=outbox)


def play(crash: Crash | None, directory: Path) -> Ending:
    """One scene: a backfill that a crash cuts off, news while nobody delivers, and a daemon that goes on."""
    clock, numbers = Clock(), KNOWN if crash and crash.known else CUSTOMERS
    import_takes = crash.import_takes if crash else timedelta(0)
    with Sandbox(clock=clock, import_delay=import_takes) as sandbox:
        settings = write_config(
            directory / "config.yaml",
            sandbox.url,
            options={"list_id": LIST},
            batch={"import_size": len(CUSTOMERS)},
        )
        outbox = directory / "outbox.db"
        if crash and crash.known:
            fill(outbox, numbers, "Old", version=1)
            with closing(sqlite3.connect(outbox)) as connection, connection:
                connection.execute("UPDATE outbox SET is_backfill = 0")  # each goes alone, and at once
            with app.relaying(config.read(settings), KEY) as relay:
                relay.drain()
        before = len(sandbox.calls)
        fill(outbox, numbers, "Ann", version=2)
        if crash:
            cut_off(crash, settings, sandbox)
            clock.ahead += import_takes
            let_leases_lapse(outbox)
        tell_news(outbox)
        with Daemon(settings) as daemon:
            daemon.ready()
            until(lambda: daemon.status()["pending"] == 0, 30)
            daemon.send(signal.SIGTERM)
            exit_code = daemon.ended()
        with closing(sqlite3.connect(outbox)) as connection:
            imports = connection.execute("SELECT status FROM imports WHERE ended_at IS NULL").fetchall()
        return Ending(
            contacts={
                each["email"]: (each["attributes"], each["listIds"], each["emailBlacklisted"])
                for each in sandbox.contacts
            },
            calls=sandbox.calls[before:],
            status=status(outbox),
            imports=imports,
            rows=barred(outbox),
            exit_code=exit_code,
            words=daemon.words,
        )


def cut_off(crash: Crash, settings: Path, sandbox: Sandbox) -> None:
    """Run a daemon up to that moment, and kill it there."""
    outbox = settings.with_name("outbox.db")
    if crash.fault:
        sandbox.faults.add(crash.fault)
    if crash.trigger:
        run_sql(outbox, crash.trigger)
    with Daemon(settings) as daemon:
        if crash.path:
            until(lambda: any(call.path == crash.path for call in sandbox.calls), STARTING)
        elif crash.words:
            daemon.says(crash.words, STARTING)
        else:
            until(lambda: barred(outbox) == crash.barred, STARTING)
        daemon.kill()
    assert barred(outbox) == crash.barred
    sandbox.faults.clear()
    if crash.trigger:
        run_sql(outbox, "DROP TRIGGER endless")


def run_sql(outbox: Path, sql: str) -> None:
    with closing(sqlite3.connect(outbox, timeout=30)) as connection, connection:
        connection.execute(sql)


def barred(outbox: Path) -> int:
    """How many customers an import bars."""
    with closing(sqlite3.connect(outbox, timeout=30)) as connection:
        return int(connection.execute("SELECT count(*) FROM import_rows").fetchone()[0])


def repeated(calls: Sequence[Call]) -> list[str]:
    """The calls that say of somebody again exactly what another one has said before."""
    said: set[str] = set()
    found = []
    for call in calls:
        body = call.body or {}
        each = body.get("contacts") or body.get("jsonBody") or ([[call.path, body]] if body else [])
        told = {json.dumps(one, sort_keys=True) for one in each}
        if told & said:
            found.append(call.path)
        said |= told
    return found


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[Ending]]]:
    """The endings of all scenes, as they come."""
    with ThreadPoolExecutor(len(CRASHES)) as pool:
        begun = {}
        for name, crash in CRASHES.items():
            directory = tmp_path_factory.mktemp("scene")
            new_outbox(directory / "outbox.db")
            begun[name] = pool.submit(play, crash, directory)
        yield begun


@pytest.mark.parametrize("killed", CRASHES)
def test_a_kill_loses_nothing_repeats_one_call_at_most_and_lets_the_newest_win(
    endings: Mapping[str, Future[Ending]], killed: str
) -> None:
    crash, ending = CRASHES[killed], endings[killed].result()
    numbers = KNOWN if crash and crash.known else CUSTOMERS
    assert ending.contacts == expected(numbers)
    assert (ending.status["pending"], ending.status["dead"]) == (0, 0)
    assert (ending.imports, ending.rows) == ([], 0)
    assert len(repeated(ending.calls)) <= (1 if crash else 0)
    assert ending.exit_code == 0
    assert "bug" not in ending.words
