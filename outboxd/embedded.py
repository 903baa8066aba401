"""The relay inside the caller's own process: outboxd as a Python client."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from outboxd import app, config, intake
from outboxd import database as database_
from outboxd.errors import AdriftError, EventError
from outboxd.relay import Relay

GRACE = timedelta(seconds=25)


class CustomerSync:
    """Customer events of a shop, written to an outbox and delivered to Brevo.

        with CustomerSync(database="outbox.db", brevo_api_key=key, source="woocommerce") as sync:
            sync.trigger({"event": "customer_updated", "data": {"email": "jane@example.com"}})

    `options` are those of the configuration file (sync_mode, delete_behavior, list_id, update_enabled);
    `brevo`, `retry`, `batch` and `hybrid` take its other sections. Names may be camelCase. As a context
    manager it delivers in the background until the block ends; `run` does so in the foreground; `drain`
    delivers what is due and returns. Only one drainer may be at a database: HeldError names the other.
    Raises ConfigError.
    """

    def __init__(
        self,
        *,
        database: str | os.PathLike[str],
        brevo_api_key: str,
        source: str = "custom",
        field_mapping: Mapping[str, str | None] | None = None,
        options: Mapping[str, Any] | None = None,
        brevo: Mapping[str, Any] | None = None,
        retry: Mapping[str, Any] | None = None,
        batch: Mapping[str, Any] | None = None,
        hybrid: Mapping[str, Any] | None = None,
    ) -> None:
        skill = {"source": source, "field_mapping": _section(field_mapping), "options": _section(options)}
        settings = {
            "database": os.fspath(database),
            "skills": {"customer-sync": {name: value for name, value in skill.items() if value is not None}},
            "brevo": _section(brevo),
            "retry": _section(retry),
            "batch": _section(batch),
            "hybrid": _section(hybrid),
        }
        self._settings = config.from_mapping(settings, "CustomerSync")
        self._key = config.checked_key(brevo_api_key, "brevo_api_key")
        self._limiter = app.limits(self._settings)
        self._stopping = threading.Event()
        self._relay: Relay | None = None
        self._stack = ExitStack()
        database_.migrate(self._settings.database)

    def trigger(self, event: Mapping[str, Any], *, idempotency_key: str | None = None) -> int:
        """Write {event, data} (and timestamp, if you like) to the outbox; its id."""
        if not isinstance(event, Mapping) or "event" not in event or "data" not in event:
            raise EventError(
                "an event is {event, data}", hint='such as {"event": "customer_created", "data": {…}}'
            )
        return intake.enqueue(
            event["event"], event, db=self._settings.database, idempotency_key=idempotency_key
        )

    def run(self) -> None:
        """Deliver until `stop` is called from another thread, or Ctrl-C."""
        with self._draining() as relay:
            try:
                relay.run(self._stopping, GRACE)
            except KeyboardInterrupt:
                self.stop()
                relay.run(self._stopping, GRACE)
            self._check(relay)

    def drain(self) -> None:
        """Deliver what is due now, and return."""
        with self._draining() as relay:
            relay.drain()

    def stop(self) -> None:
        """Let what runs finish what is in flight, and return. A `run` that comes later returns at once."""
        self._stopping.set()
        if self._relay is not None:
            self._relay.bell.set()

    def __enter__(self) -> Self:
        relay = self._stack.enter_context(self._draining())
        self._stopping.clear()  # a stop before the block is none of the block
        thread = threading.Thread(target=relay.run, args=(self._stopping, GRACE), name="outboxd", daemon=True)
        thread.start()
        self._stack.callback(self._check, relay)
        self._stack.callback(thread.join)
        self._stack.callback(self.stop)
        return self

    def _check(self, relay: Relay) -> None:
        if relay.is_adrift:
            raise AdriftError(
                f"{self._settings.database} or its log was removed or replaced while it was in use",
                hint="what was in it is saved beside it, as the log of outboxd says",
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextmanager
    def _draining(self) -> Iterator[Relay]:
        with (
            app.drainer(self._settings, shared=False) as charge,
            app.relaying(self._settings, self._key, charge, self._limiter) as relay,
        ):
            self._relay = relay
            try:
                yield relay
            finally:
                self._stopping.clear()  # for the next time


def _section(given: object) -> object:
    """Any mapping as a section of settings; what is none is told with the other faults."""
    return {str(name): value for name, value in given.items()} if isinstance(given, Mapping) else given
