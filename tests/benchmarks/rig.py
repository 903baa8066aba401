"""What a benchmark works with: a directory of its own, outboxes of any size, and the sizes of this run."""

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from outboxd import database

FILL = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
INSERT INTO outbox (event, payload)
SELECT 'customer_updated',
       json_object('id', i, 'email', 'customer' || i || '@example.com', 'firstName', 'Name' || i)
FROM n
"""

ADMIT_ALL = "UPDATE outbox SET customer_key = 'custom:' || ({number}), is_head = 1"
KNOW_ALL = """
INSERT INTO contacts (customer_key, source, customer_id)
SELECT 'custom:' || ({number}), 'custom', CAST({number} AS TEXT) FROM outbox
"""

NUMBERS = {"in order": "7000000000000 + id", "in no order": "7000000000000 + id * 7919 % 1000003"}
"""The numbers of admitted customers, as long as Shopify's: who comes next has the next number, or any."""


@dataclass(frozen=True)
class Rig:
    """One run of the benchmarks, large or quick."""

    directory: Path
    is_quick: bool = False
    _numbers: "count[int]" = field(default_factory=count)

    def pick(self, full: int, quick: int) -> int:
        """A size: that of a full run, or of a quick one."""
        return quick if self.is_quick else full

    def room(self, name: str) -> Path:
        """A new, empty directory."""
        made = self.directory / f"{name}-{next(self._numbers)}"
        made.mkdir()
        return made

    def outbox(self, pending: int = 0, *, admitted: str | None = None) -> Path:
        """A new outbox with `pending` events, each of another customer; its directory is its own.

        They are admitted already if it is said how their customers are numbered: a key of NUMBERS.
        """
        path = self.room("outbox") / "outbox.db"
        if not pending:
            database.migrate(path)
            return path
        filled = self.directory / f"filled-{pending}-{admitted}.db"
        if not filled.exists():
            fill(filled, pending, admitted)
        shutil.copyfile(filled, path)
        return path


def fill(path: Path, pending: int, admitted: str | None) -> None:
    """Make an outbox with so many pending events. It is one file then, fit to be copied."""
    database.migrate(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(FILL, {"count": pending})
        if admitted is not None:
            connection.execute(KNOW_ALL.format(number=NUMBERS[admitted]))
            connection.execute(ADMIT_ALL.format(number=NUMBERS[admitted]))


def bare(path: Path) -> sqlite3.Connection:
    """A connection of the bare library to a file in WAL mode, as durable as ours."""
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def customer(number: int, version: int = 0) -> dict[str, object]:
    """A customer as the shop has them; distinct for distinct numbers, changed with `version`."""
    name = f"Name{number}" + "s" * version
    return {"id": number, "email": f"customer{number}@example.com", "firstName": name}


def write(path: Path, numbers: range, version: int = 0) -> None:
    """News of these customers, by plain SQL, in one transaction."""
    rows = [(json.dumps(customer(number, version)),) for number in numbers]
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        with connection:
            connection.executemany("INSERT INTO outbox (event, payload) VALUES ('customer_updated', ?)", rows)
