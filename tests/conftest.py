"""What every test may ask for. The store is a real SQLite file, Brevo is the sandbox."""

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import hypothesis
import pytest

from outboxd import pool
from tests.outboxes import new_outbox
from tests.shop import PATIENCE, MakeShop, Shop, shops

# No example is timed: hosts are busy.
hypothesis.settings.register_profile("outboxd", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("outboxd")


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
