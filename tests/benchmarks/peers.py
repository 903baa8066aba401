"""Queues in SQLite by others, brought to the same durability: WAL and synchronous FULL.

Each is used as its own documents say: put one, and take one and be done with it. What the bare library
could do in its place is an INSERT of the same row into the same table, with the same indexes. Honker, which
has to be compiled by Rust and its registry of crates, is not among them.
"""

import importlib.util
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.benchmarks.rig import bare

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"


@dataclass(frozen=True)
class Queue:
    """An open queue of a peer in the file at `path`. `take` claims the oldest entry and ends it."""

    path: Path
    put: Callable[[str], object]
    take: Callable[[], object]
    close: Callable[[], object]
    tables: Sequence[str]
    ties: str = "id"
    """The column of the later tables that names the row of the first one."""
    name: str = ""
    """The column of the first table that must be another text in each row."""

    def raw(self) -> tuple[sqlite3.Connection, Callable[[], None]]:
        """A connection of the bare library, and the INSERT and COMMIT of what `put` has written last."""
        connection = bare(self.path)
        inserts = [self._insert(connection, table) for table in self.tables]

        def insert() -> None:
            connection.execute("BEGIN IMMEDIATE")
            tie = None
            for statement, values in inserts:
                tie = connection.execute(statement, {**values, self.ties: tie}).lastrowid
            connection.execute("COMMIT")

        return connection, insert

    def fill(self, count: int) -> None:
        """Have so many entries wait, like one that `put` writes."""
        self.put(PAYLOAD)
        with closing(bare(self.path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for table in self.tables:
                statement, values = self._insert(connection, table)
                head, _, tail = statement.partition(" VALUES ")
                tail = tail.strip("()").replace(f":{self.ties}", f":{self.ties} + i")
                tail = (
                    tail.replace(f":{self.name}", f":{self.name} || printf('%08d', i)") if self.name else tail
                )
                connection.execute(f"{head} {NUMBERS} SELECT {tail} FROM n", {**values, "count": count - 1})
            connection.execute("COMMIT")

    def _insert(self, connection: sqlite3.Connection, table: str) -> tuple[str, dict[str, Any]]:
        """How the newest row of `table` would be inserted once more."""
        primary = {row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[5]}
        found = connection.execute(f"SELECT * FROM {table} ORDER BY rowid DESC LIMIT 1")
        row = dict(zip((column[0] for column in found.description), found.fetchone(), strict=True))
        values = {name: value for name, value in row.items() if name not in primary}
        names = ", ".join(values)
        return f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in values)})", values


@dataclass(frozen=True)
class Peer:
    """One library. `module` is what it is imported as."""

    name: str
    module: str
    start: Callable[[Path], Queue]
    note: str = ""

    @property
    def is_installed(self) -> bool:
        try:
            return importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # its parent is not there
            return False

    def open(self, directory: Path) -> Queue:
        """A new queue in `directory`."""
        return self.start(directory)


PAYLOAD = '{"id": 5, "email": "customer5@example.com", "firstName": "Name5"}'


def _huey(directory: Path) -> Queue:
    from huey import SqliteHuey

    path = directory / "huey.db"
    huey = SqliteHuey("queue", filename=str(path), fsync=True, results=False)

    @huey.task()  # type: ignore[untyped-decorator]
    def deliver(payload: str) -> None:
        """What a worker would do."""

    def take() -> object:
        return huey.execute(huey.dequeue())

    return Queue(path, deliver, take, huey.storage.close, ["task"])


def _litequeue(directory: Path) -> Queue:
    from litequeue import LiteQueue

    path = directory / "litequeue.db"
    queue = LiteQueue(str(path))
    queue.conn.execute("PRAGMA synchronous = FULL")  # it says NORMAL itself

    def take() -> object:
        return queue.done(queue.pop().message_id)

    return Queue(path, queue.put, take, queue.conn.close, ["Queue"], name="message_id")


def _persist_queue(directory: Path) -> Queue:
    from persistqueue import SQLiteAckQueue

    queue = SQLiteAckQueue(str(directory), multithreading=True)
    connections: list[Any] = [queue._putter, queue._getter]
    for connection in connections:
        connection.execute("PRAGMA synchronous = FULL")  # the default of most builds of SQLite, not of all
    return Queue(
        directory / "data.db", queue.put, lambda: queue.ack(queue.get()), queue.close, ["ack_queue_default"]
    )


def _firm(directory: Path) -> Queue:
    import firm.queue
    from firm.queue import schema
    from firm.queue.worker import run_ready
    from sqlalchemy import event

    path = directory / "firm.db"
    runtime = firm.queue.configure(database_url=f"sqlite:///{path}", preserve_finished_jobs=True)

    @event.listens_for(runtime.engine, "connect")
    def durable(connection: Any, record: object) -> None:
        connection.execute("PRAGMA synchronous = FULL")  # it says NORMAL itself

    schema.metadata.create_all(runtime.engine)

    def put(payload: str) -> object:
        return firm.queue.enqueue.enqueue(_firms_job(), (payload,), {}, runtime=runtime)

    tables = ["firm_queue_jobs", "firm_queue_ready_executions"]
    return Queue(path, put, lambda: run_ready(runtime, limit=1), runtime.engine.dispose, tables, "job_id")


@cache
def _firms_job() -> Any:
    """Registered once in a process, whatever the number of queues."""
    import firm.queue

    return firm.queue.job()(_nothing)


def _nothing(payload: str) -> None:
    """What a worker would do."""


PEERS = (
    Peer("huey", "huey", _huey, "it removes what is taken, and forgets it if the worker dies"),
    Peer("litequeue", "litequeue", _litequeue),
    Peer("persist-queue", "persistqueue", _persist_queue),
    Peer("firm-queue", "firm.queue", _firm),
)
