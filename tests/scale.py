"""How cost and memory grow with the backlog: `python -m tests.scale`. Figures are ratios within one run.

Fills one outbox with 10,000 and one with 1,000,000 pending events, and compares: `status`, the claim of 100
customers, admission of a chunk, and the memory of a daemon that drains for a while.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter, sleep

from outboxd import database, report
from outboxd.brevo.sandbox import Sandbox
from outboxd.clock import wall
from outboxd.event import Result
from outboxd.outbox import Outbox

SMALL, LARGE = 10_000, 1_000_000
LEASE = timedelta(milliseconds=1)
FAR = datetime(2100, 1, 1, tzinfo=UTC)

FILL = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
INSERT INTO outbox (event, payload)
SELECT 'customer_updated',
       json_object('id', i, 'email', 'customer' || i || '@example.com', 'firstName', 'Name' || i)
FROM n
"""

ADMIT_ALL = "UPDATE outbox SET customer_key = 'custom:' || id, is_head = 1"
KNOW_ALL = """
INSERT INTO contacts (customer_key, source, customer_id)
SELECT 'custom:' || id, 'custom', CAST(id AS TEXT) FROM outbox
"""


def fill(path: Path, count: int, *, admitted: bool) -> None:
    """An outbox with `count` pending events, each of another customer."""
    database.migrate(path)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(FILL, {"count": count})
        if admitted:
            connection.execute(KNOW_ALL)
            connection.execute(ADMIT_ALL)
    connection.close()


def timed(action: Callable[[], object], rounds: int = 21) -> float:
    """The median of its duration, in milliseconds."""
    durations = []
    for _ in range(rounds):
        started = perf_counter()
        action()
        durations.append(perf_counter() - started)
    return median(durations) * 1000


def status_cost(path: Path) -> float:
    with database.reading(path) as connection:
        return timed(lambda: report.status(connection, wall(), enabled=True))


def claim_cost(path: Path) -> float:
    """Claiming 100 heads and handing them back, each round the next hundred."""
    outbox = Outbox(path, default_source="custom")

    def claim() -> None:
        now = wall()
        claims = outbox.claim(now, limit=100, lease=LEASE)
        outbox.record([Result(claim, {}, claim.contact) for claim in claims], now)

    cost = timed(claim)
    outbox.close()
    return cost


def daemon_memory(directory: Path, count: int) -> tuple[float, int]:
    """Peak resident memory in MB of a daemon that drained for six seconds, and what it delivered."""
    path = directory / f"memory{count}.db"
    fill(path, count, admitted=False) if count else database.migrate(path)
    with Sandbox(keep_calls=10) as sandbox:
        config = directory / f"memory{count}.yaml"
        config.write_text(
            json.dumps(
                {"database": str(path), "brevo": {"base_url": sandbox.url, "requests_per_second": 10000}}
            )
        )
        daemon = subprocess.Popen(
            [sys.executable, "-m", "outboxd", "run", "--config", str(config)],
            env={**os.environ, "BREVO_API_KEY": "xkeysib-sandbox"},
            stderr=subprocess.DEVNULL,
        )
        try:
            end = monotonic() + 6
            while monotonic() < end:
                sleep(0.2)
            status = Path(f"/proc/{daemon.pid}/status").read_text()
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        with database.reading(path) as connection:
            delivered = report.status(connection, wall(), enabled=True)["delivered"]
    return int(peak.split()[1]) / 1024, int(delivered)


def main() -> int:
    """Print the table; exit 1 if a ratio is past its bound."""
    is_well = True
    with TemporaryDirectory(prefix="outboxd-scale-") as name:
        directory = Path(name)
        costs: dict[str, list[float]] = {}
        for count in (SMALL, LARGE):
            for admitted in (False, True):
                path = directory / f"{count}-{admitted}.db"
                fill(path, count, admitted=admitted)
                kind = "admitted" if admitted else "new"
                costs.setdefault(f"status, {kind} events, ms", []).append(status_cost(path))
                if admitted:
                    costs.setdefault("claim 100 and hand back, ms", []).append(claim_cost(path))
                path.unlink()
        sys.stdout.write(f"{'':<34}{SMALL:>12,}{LARGE:>12,}{'ratio':>8}  bound\n")
        for what, (small, large) in costs.items():
            is_well &= large <= 2 * small
            sys.stdout.write(f"{what:<34}{small:>12.3f}{large:>12.3f}{large / small:>8.2f}  2.0\n")
        small, few = daemon_memory(directory, SMALL)
        large, many = daemon_memory(directory, LARGE)
        is_well &= large <= 1.1 * small
        sys.stdout.write(f"{'daemon, peak MB':<34}{small:>12.1f}{large:>12.1f}{large / small:>8.2f}  1.1\n")
        sys.stdout.write(f"{'delivered in six seconds':<34}{few:>12,}{many:>12,}\n")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
