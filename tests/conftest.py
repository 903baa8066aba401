"""What every test may ask for. The store is a real SQLite file, Brevo is the sandbox."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

from outboxd import database


def until(condition: Callable[[], object], within: float = 10.0) -> None:
    """Wait for an observable to become true; fail after `within` seconds."""
    give_up = monotonic() + within
    while not condition():
        if monotonic() > give_up:
            pytest.fail(f"not true within {within} seconds")
        sleep(0.005)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A migrated, empty outbox."""
    path = tmp_path / "outbox.db"
    database.migrate(path)
    return path
