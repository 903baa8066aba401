"""The plan of each hot statement: by its index, whatever the backlog looks like, never through a table."""

import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing

import pytest

from outboxd import draft, report
from outboxd.outbox import (
    addresses,
    contacts,
    customers,
    endings,
    imports,
    leases,
    notifications,
    pruning,
    statements,
)
from tests.outboxes import new_outbox

PLANS = {
    "FRESH": (statements.FRESH, {"outbox_fresh"}),
    "NEXT_DUE": (statements.NEXT_DUE, {"outbox_due"}),
    "DUE_HEADS": (statements.DUE_HEADS, {"outbox_due", "outbox_pending"}),
    "PENDING_OF": (statements.PENDING_OF, {"outbox_pending"}),
    "LEASE": (statements.LEASE, {"rowid"}),
    "HELD": (statements.HELD, {"rowid"}),
    "STILL_FRESH": (statements.STILL_FRESH, {"rowid"}),
    "ADMIT": (statements.ADMIT, {"rowid"}),
    "ELECT": (statements.ELECT, {"rowid", "outbox_pending", "outbox_one_head"}),
    "AHEAD": (statements.AHEAD, {"outbox_due"}),
    "SET_BACK": (statements.SET_BACK, {"key"}),
    "LEASED_TO": (statements.LEASED_TO, {"outbox_one_head"}),
    "SHIFT": (statements.SHIFT, {"rowid"}),
    "WAITING": (statements.WAITING, {"outbox_due"}),
    "HURRY": (statements.HURRY, {"outbox_one_head"}),
    "BAR": (imports.BAR, {"outbox_one_head"}),
    "HOLD": (imports.HOLD, {"outbox_one_head"}),
    "ROWS_OF": (imports.ROWS_OF, {"import_rows_of"}),
    "EVENTS_OF": (imports.EVENTS_OF, {"outbox_pending"}),
    "RELEASE": (imports.RELEASE, {"key"}),
    "UNDER_WAY": (imports.UNDER_WAY, {"imports_under_way"}),
    "CLAIMED": (leases.UNDER_WAY, {"outbox_tried", "key"}),
    "TAKE_OVER": (leases.TAKE_OVER, {"outbox_tried", "key"}),
    "REVIVE_UNADDRESSED": (customers.REVIVE_UNADDRESSED, {"outbox_dead_of", "key"}),
    "HEADS_OF": (statements.HEADS_OF, {"outbox_one_head"}),
    "FINISH": (endings.FINISH, {"rowid"}),
    "PUT_BACK": (endings.PUT_BACK, {"rowid"}),
    "CUSTOMERS_BY_ID": (customers.CUSTOMERS_BY_ID, {"contacts_customer_once"}),
    "CUSTOMERS_BY_ADDRESS": (addresses.CUSTOMERS_BY_ADDRESS, {"key", "outbox_one_head"}),
    "GUESTS_BY_ADDRESS": (addresses.GUESTS_BY_ADDRESS, {"key", "outbox_one_head"}),
    "ATTEMPT": (endings.ATTEMPT, set()),
    "SAVE_CONTACTS": (contacts.SAVE_CONTACTS, {"key"}),
    "OTHERS": (contacts.OTHERS, {"contacts_synced_email", "key"}),
    "SHARERS": (draft.SHARERS, {"contacts_synced_email"}),
    "OVERTAKE": (contacts.OVERTAKE, {"key", "contacts_synced_email"}),
    "MAKE": (customers.MAKE, set()),
    "OWN": (addresses.OWN, set()),
    "LEAVE": (addresses.LEAVE, set()),
    "INHERIT": (addresses.INHERIT, {"key"}),
    "DISOWN": (addresses.DISOWN, {"key"}),
    "CONTACTS": (contacts.CONTACTS, {"key"}),
    "OLD": (pruning.OLD, {"outbox_delivered"}),
    "OLD_TRIED": (pruning.OLD_TRIED, {"outbox_delivered"}),
    "OLD_DROPPED": (pruning.OLD_DROPPED, {"outbox_dropped"}),
    "OLD_NOTIFICATIONS": (pruning.OLD_NOTIFICATIONS, {"notifications_delivered"}),
    "OLD_IMPORTS": (pruning.OLD_IMPORTS, {"imports_ended"}),
    "OLD_COUNTERS": (pruning.OLD_COUNTERS, {"key"}),
    "FORGET_EVENT": (pruning.FORGET_EVENT, {"rowid"}),
    "FORGET_ATTEMPTS": (pruning.FORGET_ATTEMPTS, {"key"}),
    "FORGET_NOTIFICATION": (pruning.FORGET_NOTIFICATION, {"rowid"}),
    "FORGET_IMPORT": (pruning.FORGET_IMPORT, {"rowid"}),
    "FORGET_COUNTER": (pruning.FORGET_COUNTER, {"key"}),
    "PRUNABLE": (report.PRUNABLE, {"outbox_delivered"}),
    "PRUNABLE_BESIDE": (
        report.PRUNABLE_BESIDE,
        {"outbox_dropped", "notifications_delivered", "imports_ended"},
    ),
    "OFF": (statements.OFF, {"outbox_fresh", "outbox_pending", "outbox_dead", "outbox_dropped"}),
    "OLDEST": (report.OLDEST, {"outbox_fresh", "outbox_due", "outbox_tried"}),
    "IN_FLIGHT": (report.IN_FLIGHT, {"outbox_tried"}),
    "RETRYING": (report.RETRYING, {"outbox_tried"}),
    "DEPTH": (report.DEPTH, set()),
    "NOTICE_DUE": (notifications.DUE, {"notifications_due"}),
    "NOTICE_NEXT_DUE": (notifications.NEXT_DUE, {"notifications_due"}),
    "NOTICE_OPENED": (notifications.OPENED, {"notifications_one_open"}),
    "UNDELIVERED": (report.UNDELIVERED, {"notifications_due", "notifications_dead"}),
    "WINDOW": (report.WINDOW, {"key"}),
    "HISTORY": (report.HISTORY, {"key"}),
    "TOTALS": (report.TOTALS, set()),
    "WRITTEN": (report.WRITTEN, set()),
    "NEWEST": (report.NEWEST[None], {"rowid"}),
    "NEWEST dead": (report.NEWEST["dead"], {"outbox_dead"}),
    "NEWEST dropped": (report.NEWEST["dropped"], {"outbox_dead"}),
    "DEAD": (report.DEAD, {"outbox_dead"}),
}

OF_ONE_ROW = {"depth", "sqlite_sequence", "totals"}
"""What may be read from end to end: these have a row or a few."""


@pytest.fixture(scope="module", params=["new", "full", "full and analysed"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[sqlite3.Connection]:
    """An outbox without rows or statistics, and one with both: the plans must not hang on them."""
    path = new_outbox(tmp_path_factory.mktemp("plans") / "outbox.db")
    with closing(sqlite3.connect(path)) as connection:
        if request.param != "new":
            fill(connection)
        if request.param.endswith("analysed"):
            connection.execute("ANALYZE")
            connection.commit()
    with closing(sqlite3.connect(path)) as connection:  # statistics are read when a file is opened
        yield connection


def fill(connection: sqlite3.Connection) -> None:
    """2,000 customers: heads, followers, fresh, tried, dead and delivered ones."""
    connection.executemany(
        "INSERT INTO outbox (event, payload, idempotency_key) VALUES ('customer_updated', '{}', ?)",
        [(str(number) if number % 2 else None,) for number in range(10_000)],
    )
    connection.execute(
        "UPDATE outbox SET customer_key = 'custom:' || (id % 2000), is_head = id <= 2000 WHERE id <= 6000"
    )
    connection.execute(
        "UPDATE outbox SET attempts = 1, claimed_at = iif(id % 2, created_at, NULL) WHERE id < 400"
    )
    finished = "UPDATE outbox SET finished_at = created_at, status = {} WHERE id > {}"
    connection.execute(finished.format("iif(id % 2, 'dead', 'delivered')", 8000))
    connection.executemany(
        "INSERT INTO contacts (customer_key, source, customer_id, synced_email) VALUES (?, 'custom', ?, ?)",
        [(f"custom:{number}", str(number), f"c{number}@example.com") for number in range(2000)],
    )
    connection.execute(
        "INSERT INTO addresses (address_key, source, customer_key)"
        " SELECT synced_email, source, customer_key FROM contacts"
    )
    connection.execute(
        "INSERT INTO attempts (event_id, number, started_at, finished_at, verdict, error_code)"
        " SELECT id, 1, created_at, created_at, 'refused', 'no_address' FROM outbox WHERE status = 'dead'"
    )
    connection.executemany(
        "INSERT INTO imports (size, started_at, ended_at) VALUES (10, ?1, iif(?1 < 290, ?1, NULL))",
        [(number,) for number in range(300)],
    )
    connection.execute(
        "INSERT INTO import_rows"
        " SELECT customer_key, 290 + id % 10, created_at, id, id FROM outbox WHERE is_head = 1 AND id > 1000"
    )
    connection.execute("INSERT INTO stats (minute) SELECT created_at || id FROM outbox LIMIT 1000")
    connection.commit()


def plan(connection: sqlite3.Connection, sql: str) -> list[str]:
    values = defaultdict[str, object](lambda: "[]", limit=10, id=1, before=10)
    bound = {name: values[name] for name in re.findall(r"\W:(\w+)", sql)}
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", bound)]


def index_of(step: str) -> str | None:
    """The index that a step of a plan uses; `key` is a table's own, which it is sorted by."""
    if "USING INTEGER PRIMARY KEY" in step:
        return "rowid"
    if "USING PRIMARY KEY" in step:
        return "key"
    found = re.search(r"USING (?:COVERING )?INDEX (\w+)", step)
    return found[1] if found else None


HARMLESS = (
    "outbox USING INDEX outbox_due",
    "outbox USING INDEX outbox_fresh",
    "outbox USING INDEX outbox_dead",
    "imports USING INDEX imports_under_way",
)


def is_harmless(step: str) -> bool:
    """A scan of what we hand in, of a subquery, of a table of one row, of the imports under way, of dead
    letters, or of heads, or new events, in the order in which they are wanted (a LIMIT ends that).
    """
    subject = step.removeprefix("SCAN ").removeprefix("TABLE ").split()[0]
    return (
        "VIRTUAL TABLE" in step
        or subject.startswith(("(subquery", "SUBQUERY", "CONSTANT"))
        or subject in OF_ONE_ROW
        or step.endswith(HARMLESS)
        or "notifications USING" in step
    )


@pytest.mark.parametrize("name", PLANS)
def test_a_hot_statement_uses_its_index_and_scans_no_table(filled: sqlite3.Connection, name: str) -> None:
    sql, wanted = PLANS[name]
    steps = plan(filled, sql)
    assert steps
    assert {index for step in steps if (index := index_of(step))} == wanted
    assert [step for step in steps if step.startswith("SCAN") and not is_harmless(step)] == []
    assert [step for step in steps if "TEMP B-TREE" in step] == []


def test_a_scan_would_be_noticed(filled: sqlite3.Connection) -> None:
    """A partial index serves nobody who binds what its condition says literally."""
    (step,) = plan(filled, "SELECT min(next_attempt_at) FROM outbox WHERE is_head = :one")
    assert (index_of(step), is_harmless(step)) == (None, False)
    assert [is_harmless(step) for step in plan(filled, "SELECT * FROM outbox")] == [False]
