"""Real daemons for tests: `outboxd run` as a process of its own, with its configuration and its words."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from outboxd import clock, database, report
from tests.conftest import until
from tests.shop import PATIENCE
from tests.users import User

KEY = "xkeysib-sandbox"

NUMBERS = count()

STARTING = 60.0
"""Seconds that a test waits for what comes at a daemon's start: nothing that is claimed depends on it."""


def write_config(path: Path, url: str, **settings: Any) -> Path:
    """A configuration beside its database `outbox.db`; JSON is YAML."""
    brevo = {"base_url": url, "requests_per_second": 100_000, "requests_per_hour": 10_000_000}
    document = {
        "database": "outbox.db",
        "skills": {
            "customer-sync": {
                "enabled": settings.get("enabled", True),
                "options": settings.get("options", {}),
                "debug": settings.get("debug", False),
            }
        },
        "brevo": {**brevo, "timeout_seconds": 5, **settings.get("brevo", {})},
        "retry": settings.get("retry", {}),
        "batch": settings.get("batch", {}),
        "hybrid": settings.get("hybrid", {}),
        "metrics": settings.get("metrics", {}),
        "notifications": settings.get("notifications", {}),
    }
    path.write_text(json.dumps(document))
    return path


class Daemon:
    """`outboxd run`, killed when its block ends; what it says goes to a file in `said_to`."""

    def __init__(
        self,
        config: Path,
        *options: str,
        user: User | None = None,
        said_to: Path | None = None,
        program: Sequence[str] = ("-m", "outboxd"),
        **environment: str,
    ) -> None:
        self.config = config
        self.database = config.with_name("outbox.db")
        self._words = (said_to or config.parent) / f"stderr-{next(NUMBERS)}"
        environ = {**os.environ, "BREVO_API_KEY": KEY, **environment}
        command = [sys.executable, *program, "run", "--config", str(config), *options]
        with self._words.open("wb") as words:
            self.process = subprocess.Popen(
                user.command(*command, reads_all=True) if user else command,
                env={name: value for name, value in environ.items() if value},
                stderr=words,
                stdout=words,
            )

    @property
    def words(self) -> str:
        """What it has said so far."""
        return self._words.read_text()

    def says(self, text: str, within: float = PATIENCE) -> Self:
        """Wait until it has said `text`."""
        until(lambda: text in self.words or self.process.poll() is not None, within)
        assert text in self.words, self.words
        return self

    def ready(self) -> Self:
        """Wait until it has started, however long a busy host takes for that."""
        return self.says(" started ", within=STARTING)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, within: float = PATIENCE) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(within)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def status(self) -> dict[str, Any]:
        return status(self.database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()


def status(path: Path) -> dict[str, Any]:
    """What `outboxd status` says of the outbox at `path`."""
    with database.reading(path) as connection:
        return report.status(connection, clock.wall(), enabled=True)


def let_leases_lapse(path: Path) -> None:
    """As if the time had passed that the leases of a killed daemon have left; imports bar as before."""
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        connection.execute(
            "UPDATE outbox SET next_attempt_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') "
            "WHERE is_head = 1 AND claimed_at IS NOT NULL "
            "AND customer_key NOT IN (SELECT customer_key FROM import_rows)"
        )
