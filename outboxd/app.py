"""The one place where a Config becomes objects that work."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from random import SystemRandom

from outboxd import clock, config, database, locks, logs, report
from outboxd.brevo.bulk import Bulk
from outboxd.brevo.client import Brevo
from outboxd.brevo.limiter import Limiter
from outboxd.config import Config
from outboxd.delivery import Delivery
from outboxd.erase import Eraser
from outboxd.errand import Plan
from outboxd.errors import ConfigError
from outboxd.fold import Policy
from outboxd.outbox import Outbox
from outboxd.pace import Batch, Hybrid, Mode
from outboxd.prune import Pruner
from outboxd.relay import LEASE, Relay
from outboxd.schedule import Schedule
from outboxd.sources import Options
from outboxd.window import Rules


def brevo(settings: Config, key: str, limiter: Limiter | None = None) -> Brevo:
    """The client of the configured account."""
    return Brevo(
        base_url=settings.brevo.base_url,
        api_key=key,
        limiter=limiter or limits(settings),
        timeout=settings.brevo.timeout,
        update_enabled=settings.update_enabled,
    )


def limits(settings: Config) -> Limiter:
    """Brevo's rate limits as configured: calls a second, calls an hour."""
    return Limiter([(settings.brevo.requests_per_second, 1.0), (settings.brevo.requests_per_hour, 3600.0)])


def relay(
    settings: Config,
    courier: Brevo,
    outbox: Outbox,
    *,
    clock: Callable[[], datetime] = clock.wall,
    chance: Callable[[], float] | None = None,
) -> Relay:
    """The drain of `outbox` through `courier`."""
    return Relay(
        outbox,
        courier,
        Bulk(courier),
        plan(settings),
        mode(settings, outbox, clock),
        Pruner(settings.database, settings.retention),
        clock=clock,
        chance=chance or SystemRandom().random,
    )


def mode(settings: Config, outbox: Outbox, clock: Callable[[], datetime]) -> Mode:
    """Which events may go when, by the configured `sync_mode`."""
    if settings.sync_mode == "hybrid":
        rate = min(settings.brevo.requests_per_second, settings.brevo.requests_per_hour / 3600)
        return Hybrid(outbox, threshold=settings.hybrid.threshold, rate=rate)
    if settings.sync_mode == "batch":
        schedule = Schedule(settings.batch.window, settings.batch.timezone)
        return Batch(outbox, Rules(schedule, settings.batch.max_wait, settings.batch.max_events), clock)
    return Mode(outbox)


@contextmanager
def relaying(settings: Config, key: str, limiter: Limiter | None = None) -> Iterator[Relay]:
    """A relay on the configured outbox, and its end."""
    with closing(relay(settings, brevo(settings, key, limiter), outbox(settings))) as made:
        yield made


@contextmanager
def erasing(settings: Config, key: str, clock: Callable[[], datetime] = clock.wall) -> Iterator[Eraser]:
    """Whoever erases persons from the configured outbox and account; beside a daemon, if one runs."""
    courier = brevo(settings, key)
    delivery = Delivery(courier, plan(settings), clock=clock)
    with drainer(settings, shared=True), closing(outbox(settings)) as opened:
        yield Eraser(opened, delivery, plan(settings), clock=clock, lease=courier.longest * LEASE)


def plan(settings: Config) -> Plan:
    """What the configuration says of every delivery."""
    return Plan(
        rules=settings.field_mapping,
        policy=Policy(
            list_ids=(settings.list_id,) if settings.list_id is not None else (),
            deletes_softly=settings.delete_behavior == "soft",
        ),
        backoff=settings.retry,
        workers=settings.brevo.workers,
        batch_size=settings.batch.batch_size,
        import_size=settings.batch.import_size,
        updates=settings.update_enabled,
        enabled=settings.enabled,
        region=settings.default_country,
        reading=Options(roles=settings.customer_roles, consent_meta_key=settings.consent_meta_key),
    )


def outbox(settings: Config) -> Outbox:
    """The outbox of the configured database, which must be of this version's schema."""
    with database.reading(settings.database) as connection:
        database.check_revision(settings.database, database.revision(connection))
    return Outbox(settings.database, default_source=settings.source)


@contextmanager
def drainer(settings: Config, *, shared: bool) -> Iterator[None]:
    """Be the one who drains, unless `shared`; take over what a killed process left. Raises HeldError."""
    who = f"process {os.getpid()} on {socket.gethostname()} since {clock.to_text(clock.wall())}"
    with ExitStack() as stack:
        with closing(outbox(settings)) as opened:
            if stack.enter_context(locks.drainer(settings.database, who=who, shared=shared)):
                opened.recount()
                opened.take_over(clock.wall() + settings.brevo.timeout)
        yield


def run(path: Path, *, shared: bool) -> int:
    """`outboxd run`: drain until told to stop; the exit code."""
    from outboxd import daemon

    first = config.read(path)
    key = config.api_key(first.brevo, os.environ) if first.enabled else ""
    logs.set_up(first.log_level)
    before, after = database.migrate(first.database)
    if before != after:
        logs.logger.info(logs.line("migrated", schema_before=before, schema=after))
    with drainer(first, shared=shared):
        return daemon.serve(_maker(path, first, key), lambda: describe(first))


def _maker(path: Path, first: Config, key: str) -> Callable[[], Relay]:
    """Builds a relay from the file at `path` as it is when called; the rate limits outlive them all."""
    limiter = limits(first)

    def make() -> Relay:
        settings = config.read(path)
        if settings.database != first.database:
            raise ConfigError([f"{path}: the database cannot change while the daemon runs; restart it"])
        told = config.api_key(settings.brevo, os.environ) if settings.enabled else key
        limiter.resize([settings.brevo.requests_per_second, settings.brevo.requests_per_hour])
        logs.set_up(settings.log_level)
        return relay(settings, brevo(settings, told, limiter), outbox(settings))

    return make


def describe(settings: Config) -> str:
    """One line on how things are, for systemd."""
    with database.reading(settings.database) as connection:
        now = report.status(connection, clock.wall(), enabled=settings.enabled, sync_mode=settings.sync_mode)
    lane = now["lane"]["state"]
    return f"{now['pending']} pending, {now['retrying']} retrying, {now['dead']} dead; {lane}"
