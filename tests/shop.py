"""A shop with its outbox, the real relay behind it, and the sandbox as Brevo: what a delivery needs."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any, Self

import requests

import outboxd
from outboxd import app, clock, config, database, report
from outboxd.brevo.bulk import Bulk, row
from outboxd.brevo.sandbox import Call, Sandbox
from outboxd.clock import wall
from outboxd.config import Config
from outboxd.keys import address_key
from outboxd.relay import Relay
from tests.outboxes import new_outbox

KEY = "xkeysib-sandbox"

PATIENCE = 20.0
"""Seconds that a test waits for what must come: a busy host takes ten to start a daemon. It is less than a
relay's own round, so that what is to wake one has to.
"""

MakeShop = Callable[..., "Shop"]


class Clock:
    """The real time, and whatever a test adds to it."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return clock.wall() + self.ahead


class Shop:
    """One database, one sandbox, and a relay that is made anew whenever `reopen` changes the settings."""

    def __init__(self, path: Path, sandbox: Sandbox, clock: Clock, **settings: Any) -> None:
        self.path = path
        self.sandbox = sandbox
        self.clock = clock
        self.chance = 0.0
        self.known_calls = 0
        self._stack = ExitStack()
        if not path.exists():
            new_outbox(path)
        self.reopen(**settings)

    def reopen(
        self,
        *,
        options: Mapping[str, Any] | None = None,
        brevo: Mapping[str, Any] | None = None,
        retry: Mapping[str, Any] | None = None,
        mapping: Mapping[str, str] | None = None,
        key: str = KEY,
        **sections: Any,
    ) -> Self:
        """Drain with other settings from now on; what is not named is as a test would have it.

        `sections` are further ones of the configuration, such as batch.
        """
        self._stack.close()
        fast = {"requests_per_second": 100_000, "requests_per_hour": 1_000_000, "timeout_seconds": 5}
        skill = {"options": dict(options or {}), **({"field_mapping": mapping} if mapping else {})}
        self.settings: Config = config.from_mapping(
            {
                "database": str(self.path),
                "skills": {"customer-sync": skill},
                "brevo": {"base_url": self.sandbox.url, **fast, **(brevo or {})},
                "retry": {"jitter": 0, **(retry or {})},
                **sections,
            },
            "test",
        )
        outbox = self._stack.enter_context(closing(app.outbox(self.settings)))
        courier = app.brevo(self.settings, key)
        courier.attributes(())  # known from here on: what a test breaks, or counts, is deliveries
        relay = app.relay(self.settings, courier, outbox, clock=self.clock, chance=lambda: self.chance)
        self.relay: Relay = self._stack.enter_context(closing(relay))
        return self

    def close(self) -> None:
        self._stack.close()

    def enqueue(self, event: str, /, **data: Any) -> int:
        """Write customer_`event` about `data`; its id."""
        return outboxd.enqueue(f"customer_{event}", data, db=self.path, now=self.clock)

    def insert(self, event: str, payload: str | Mapping[str, Any], source: str | None = None) -> int:
        """Write an event as a shop does that speaks SQL; its id."""
        text = payload if isinstance(payload, str) else json.dumps(payload)
        with closing(sqlite3.connect(self.path)) as connection, connection:
            row = (event, text, source)
            wrote = connection.execute("INSERT INTO outbox (event, payload, source) VALUES (?, ?, ?)", row)
            return int(wrote.lastrowid or 0)

    def fill(
        self, event: str, bodies: Iterable[Mapping[str, Any]], *, is_backfill: bool = False
    ) -> list[int]:
        """Write customer_`event` about each of `bodies`, all of them at once; their ids."""
        at = clock.to_text(self.clock())
        rows = [(f"customer_{event}", json.dumps(body), at, at, is_backfill) for body in bodies]
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.executemany(
                "INSERT INTO outbox (event, payload, created_at, next_attempt_at, is_backfill)"
                " VALUES (?, ?, ?, ?, ?)",
                rows,
            )
            [(last,)] = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")
        return list(range(last - len(rows) + 1, last + 1))

    def know(self, count: int) -> None:
        """So many customers, ann0@example.com and so on, that the shop has told of, and Brevo has."""
        addresses = [f"ann{number}@example.com" for number in range(count)]
        courier = Bulk(app.brevo(self.settings, KEY))
        courier.start_import([row(address, {}) for address in addresses], [1], is_opted_out=False)
        self.later(seconds=2)
        self.known_calls = len(self.sandbox.calls)
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.executemany(
                "INSERT INTO contacts (customer_key, source, customer_id, email, synced_email)"
                " VALUES ('custom:' || ?1, 'custom', ?1, ?2, ?2)",
                enumerate(addresses),
            )
            connection.executemany(
                "INSERT INTO addresses (source, address_key, customer_key)"
                " VALUES ('custom', ?2, 'custom:' || ?1)",
                enumerate(map(address_key, addresses)),
            )

    def drain(self) -> None:
        """Deliver until nothing is due or the lane is blocked."""
        self.relay.drain()

    def settle(self) -> None:
        """Run the relay until no event is pending; its rests pass at once."""
        self.run_until(lambda: self.status()["pending"] == 0)

    def run_until(self, condition: Callable[[], object], within: float = PATIENCE) -> None:
        """Run the relay round by round, the clock moved over its rests, until `condition` is true."""
        give_up = monotonic() + within
        while not condition():
            assert monotonic() < give_up, self.status()
            self.relay.bell.clear()
            rest = self.relay.step()
            if self.relay.is_busy:
                self.relay.bell.wait(0.02)
            elif rest:
                self.later(seconds=rest)

    def later(self, **time: float) -> None:
        """Let time pass, as for timedelta: `later(minutes=5)`."""
        self.clock.ahead += timedelta(**time)

    def sent(self, event: str, /, **data: Any) -> dict[str, Any]:
        """Write an event, drain, and the event afterwards."""
        event_id = self.enqueue(event, **data)
        self.drain()
        return self.event(event_id)

    def event(self, event_id: int) -> dict[str, Any]:
        """One event with its attempts, as `outboxd show` has it."""
        with database.reading(self.path) as connection:
            found = report.event(connection, event_id)
        assert found is not None
        return found

    def status(self) -> dict[str, Any]:
        """What `outboxd status` says."""
        with database.reading(self.path) as connection:
            now, mode = self.clock(), self.settings.sync_mode
            return report.status(connection, now, enabled=self.settings.enabled, sync_mode=mode)

    def contact(self, email: str) -> dict[str, Any]:
        """The contact in Brevo, which must be there."""
        found = self.sandbox.contact(email)
        assert found is not None, "Brevo has no such contact"
        return found

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """What a reader of the database sees."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql, values).fetchall()

    @property
    def calls(self) -> list[Call]:
        made = self.sandbox.calls[self.known_calls :]
        return [call for call in made if call.path != "/contacts/attributes"]

    def calls_of(self, method: str, path: str) -> list[Call]:
        """Those of `method` to `path`, a prefix."""
        return [call for call in self.calls if call.method == method and call.path.startswith(path)]

    @property
    def methods(self) -> list[str]:
        """The calls so far, by their method alone."""
        return [call.method for call in self.calls]


@contextmanager
def shops(directory: Path) -> Iterator[MakeShop]:
    """A maker of shops; `sandbox` options go to the sandbox, the others are those of `Shop.reopen`."""
    with ExitStack() as stack:

        def make(sandbox: Mapping[str, Any] | None = None, **settings: Any) -> Shop:
            clock = Clock()
            brevo = stack.enter_context(Sandbox(clock=clock, **(sandbox or {})))
            number = len(list(directory.glob("*.db")))
            made = Shop(directory / f"shop-{number}.db", brevo, clock, **settings)
            stack.callback(made.close)
            return made

        yield make


def elsewhere(shop: Shop, method: str, path: str, body: Mapping[str, Any] | None = None) -> None:
    """Another program of the shop's, or a person, does something in Brevo."""
    answer = requests.request(
        method, f"{shop.sandbox.url}{path}", json=body, headers={"api-key": KEY}, timeout=5
    )
    assert answer.ok, answer.text


def soon(seconds: float) -> str:
    """A time so far from now, as shops write it."""
    return clock.to_text(wall() + timedelta(seconds=seconds))
