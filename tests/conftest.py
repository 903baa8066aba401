"""What every test may ask for. The store is a real SQLite file, Brevo is the sandbox."""

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import hypothesis
import pytest

from outboxd import pool
from tests.outboxes import new_outbox
from tests.shop import PATIENCE, MakeShop, Shop, shops

MEMORY = Path("/dev/shm")

ROOM = 512 * 1024**2
"""Bytes: ten times what all tests at once have been seen to hold."""

# No example is timed: hosts are busy.
hypothesis.settings.register_profile("outboxd", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("outboxd")


def pytest_configure() -> None:
    """Here, for benchmarks import this, too, and measure the disk."""
    # On a disk tests wait most of the time until what they commit is there, and the busier it is the
    # longer. Files in memory are files all the same, locked and synced as ever. With $TMPDIR they lie where
    # that says.
    if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        tempfile.tempdir = str(MEMORY)
    # Hundreds of processes need not compile the same modules, whatever this host has them do.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def pytest_collection_finish() -> None:
    """What is loaded by now stays: nobody need look for garbage in it at every collection."""
    gc.collect()
    gc.freeze()


def until(condition: Callable[[], object], within: float = PATIENCE) -> None:
    """Wait for an observable to become true; fail after `within` seconds."""
    give_up = monotonic() + within
    while not condition():
        if monotonic() > give_up:
            pytest.fail(f"not true within {within} seconds")
        sleep(0.005)


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    """A test's outboxes are gone when it ends: what is kept open of them would be in the way of the next."""
    yield
    pool.close()


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A migrated, empty outbox."""
    return new_outbox(tmp_path / "outbox.db")


@pytest.fixture
def make_shop(tmp_path: Path) -> Iterator[MakeShop]:
    """Makes a shop whose relay or sandbox has settings of its own."""
    with shops(tmp_path) as make:
        yield make


@pytest.fixture
def shop(make_shop: MakeShop) -> Shop:
    """A shop with its outbox, a relay that is driven by hand, and the sandbox."""
    return make_shop()
