"""The one place where a Config becomes objects that work."""

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from random import SystemRandom

from outboxd import clock, config, database, locks, logs, metrics, place, report, takeover
from outboxd.admit import admit_fresh
from outboxd.brevo.bulk import Bulk
from outboxd.brevo.client import Brevo
from outboxd.brevo.limiter import Limiter
from outboxd.config import Config
from outboxd.delivery import Closed, Delivery
from outboxd.erase import Eraser
from outboxd.errand import Plan
from outboxd.errors import ConfigError
from outboxd.event import Attribute, Outcome
from outboxd.fold.policy import Policy
from outboxd.importing import Charge
from outboxd.lane import Lane
from outboxd.notices import Wanted
from outboxd.outbox import Outbox
from outboxd.pace import Batch, Hybrid, Mode
from outboxd.prune import Pruner
from outboxd.relay import LEASE, Relay
from outboxd.schedule import Schedule
from outboxd.sources import Options
from outboxd.textfile import Textfile
from outboxd.trouble import Trouble
from outboxd.webhook import Webhook
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


def catalogue(
    settings: Config, environ: Mapping[str, str]
) -> tuple[Mapping[str, Attribute] | None, str | None]:
    """The account's attributes by name; or None, and why they are not known."""
    wanted = [attribute for name, attribute in settings.field_mapping.items() if name != "email"]
    if not wanted:
        return {}, None
    try:
        key = config.api_key(settings.brevo, environ)
    except ConfigError as error:
        return None, str(error)
    found = brevo(settings, key).attributes(wanted)
    return (None, found.detail) if isinstance(found, Outcome) else (found, None)


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
    charge: Charge | None = None,
) -> Relay:
    """The drain of `outbox` through `courier`; without a `charge` it is alone."""
    made = Relay(
        outbox,
        courier,
        Bulk(courier),
        plan(settings),
        mode(settings, outbox, clock),
        Pruner(settings.database, settings.retention),
        clock=clock,
        chance=chance or SystemRandom().random,
        webhook=webhook(settings),
        charge=charge or Charge(),
    )
    made.lane = Lane.left(outbox.state("lane"), clock())
    return made


def webhook(settings: Config) -> Webhook | None:
    """Where the operator is told, if anywhere."""
    told = settings.notifications
    if told.webhook_url is None:
        return None
    return Webhook(told.webhook_url, config.webhook_secret(told, os.environ))


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
def relaying(
    settings: Config, key: str, charge: Charge | None = None, limiter: Limiter | None = None
) -> Iterator[Relay]:
    """A relay on the configured outbox, and its end."""
    with closing(relay(settings, brevo(settings, key, limiter), outbox(settings), charge=charge)) as made:
        yield made


@contextmanager
def erasing(settings: Config, key: str, clock: Callable[[], datetime] = clock.wall) -> Iterator[Eraser]:
    """Whoever erases persons from the configured outbox and account; beside a daemon, if one runs."""
    courier = brevo(settings, key)
    with drainer(settings, shared=True), closing(outbox(settings)) as opened:
        delivery = Delivery(courier, plan(settings), opened.others, clock=clock)
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
    told = settings.notifications
    types = frozenset(told.events if told.webhook_url else ())
    wanted = Wanted(types, each=told.each, interval=told.interval)
    return Outbox(settings.database, default_source=settings.source, wanted=wanted)


def admit(settings: Config, path: Path, *, now: datetime) -> None:
    """Find out whose the new events are in the outbox at `path`, of which nobody else knows."""
    with closing(Outbox(path, default_source=settings.source)) as opened:
        admit_fresh(opened, plan(settings).reading, lambda: now)


@contextmanager
def drainer(settings: Config, *, shared: bool, trouble: Trouble | None = None) -> Iterator[Charge]:
    """Be the one who drains, unless `shared`; take over what a killed process left. Raises HeldError."""
    trouble, closed = trouble or Trouble(), Closed()
    who = f"process {os.getpid()} on {socket.gethostname()} since {clock.to_text(clock.wall())}"
    with ExitStack() as stack:
        with closing(outbox(settings)) as opened:
            held = stack.enter_context(locks.drainer(settings.database, who=who, shared=shared))
            if held.is_alone:
                opened.recount()
                reading, timeout = plan(settings).reading, settings.brevo.timeout
                closed = takeover.take_over(opened, reading, clock.wall(), timeout)
        trouble.say = partial(_say, held)
        yield Charge(held.is_alone, stands=held.stands, trouble=trouble, closed=closed)


def _say(held: locks.Drainer, reason: str | None, hint: str | None) -> None:
    """Put down where `status` finds it, whatever the state of the database, what keeps this drainer."""
    word = {"since": clock.to_text(clock.wall()), "reason": reason, "hint": hint}
    held.say(json.dumps(word) if reason is not None else None)


def run(path: Path, *, shared: bool) -> int:
    """`outboxd run`: drain until told to stop; the exit code."""
    from outboxd import daemon

    first = config.read(path)
    key = config.api_key(first.brevo, os.environ) if first.enabled else ""
    logs.set_up(first.log_level)
    before, after = database.migrate(first.database)
    if before != after:
        logs.logger.info(logs.line("migrated", schema_before=before, schema=after))
    for fault in place.faults(first.database):
        logs.logger.warning(logs.line(fault.what, reason=fault.told, mend=fault.mend))
    trouble = Trouble()
    with ExitStack() as stack:
        made = _Maker(path, first, key, partial(drainer, shared=shared, trouble=trouble), stack)
        return daemon.serve(
            made, lambda: describe(made.settings), lambda: chores(made.settings, path), trouble
        )


class _Maker:
    """Builds a relay from the file at `path` as it is when called; the rate limits outlive them all.

    The place of the one who drains is taken by `entering`, at first and once a relay has come adrift; it is
    left when `stack` ends.
    """

    def __init__(
        self,
        path: Path,
        first: Config,
        key: str,
        entering: Callable[[Config], AbstractContextManager[Charge]],
        stack: ExitStack,
    ) -> None:
        self.settings = first
        self._path = path
        self._key = key
        self._entering = entering
        self._stack = stack
        self._charge = stack.enter_context(entering(first))
        self._limiter = limits(first)
        self._made: Relay | None = None

    def __call__(self) -> Relay:
        settings = config.read(self._path)
        if settings.database != self.settings.database:
            raise ConfigError([f"{self._path}: the database cannot change while the daemon runs; restart it"])
        told = config.api_key(settings.brevo, os.environ) if settings.enabled else self._key
        self._limiter.resize([settings.brevo.requests_per_second, settings.brevo.requests_per_hour])
        logs.set_up(settings.log_level)
        if self._made is not None and self._made.is_adrift:
            self._enter(settings)
        made = relay(settings, brevo(settings, told, self._limiter), outbox(settings), charge=self._charge)
        self.settings, self._made = settings, made
        return made

    def _enter(self, settings: Config) -> None:
        """Take the place of the one who drains anew, at the file that lies there now, if that is sound."""
        with closing(outbox(settings)):  # of this version, and only then read from end to end
            database.look_through(settings.database)
        self._stack.close()  # locks that nobody else sees any more
        self._charge = self._stack.enter_context(self._entering(settings))


def chores(settings: Config, path: Path) -> Iterator[tuple[timedelta, Callable[[], None]]]:
    """What the daemon does beside the draining, as the file at `path` has it: how often, and what."""
    if (file := settings.metrics.textfile) is not None:
        page = partial(metrics.page, settings.database, enabled=settings.enabled)
        needed = config.files(path, settings)
        yield settings.metrics.interval, Textfile(file, lambda: page(clock.wall()), needed=needed).write


def describe(settings: Config) -> str:
    """One line on how things are, for systemd."""
    with database.reading(settings.database) as connection:
        now = report.status(connection, clock.wall(), enabled=settings.enabled, sync_mode=settings.sync_mode)
    lane = now["lane"]["state"]
    return f"{now['pending']} pending, {now['retrying']} retrying, {now['dead']} dead; {lane}"
