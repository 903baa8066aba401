"""The daemon: the life of the process that drains. Signals, the scheduler, and what systemd is told.

The relay drains in a thread of its own. The scheduler's jobs only ring its bell or speak to systemd, so
that none of them can be late because a delivery is slow. Signals are blocked and waited for by a thread, so
that no handler runs in the middle of anything.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, timedelta
from queue import Empty, SimpleQueue
from time import monotonic

from apscheduler.schedulers.background import BackgroundScheduler

from outboxd.clock import Steps, wall
from outboxd.errors import OutboxdError
from outboxd.logs import line, logger
from outboxd.relay import Relay
from outboxd.trouble import AGAIN, Trouble, origin

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

STOP_WITHIN = timedelta(seconds=25)
"""How long a stop waits for what is in flight; less than the unit's TimeoutStopSec."""

LIVELY = 60.0
"""Seconds since its last round after which the relay is not taken for alive."""

STATUS_EVERY = 30.0

RING = 300.0
"""Seconds between two rings of the relay's bell that nobody has asked for."""

LOOK = 30.0
"""Seconds between two looks at the wall clock."""

Received = SimpleQueue[int | None]
"""Signals as they come; None: a draining thread ends."""

Chore = tuple[timedelta, Callable[[], None]]
"""What is done beside the draining: how often, and what. It raises nothing."""


def serve(
    make: Callable[[], Relay],
    describe: Callable[[], str],
    chores: Callable[[], Iterable[Chore]],
    trouble: Trouble,
) -> int:
    """Drain until SIGTERM or SIGINT; the exit code.

    `make` builds a relay from the configuration as it is now, at the start and at every SIGHUP; if it
    raises on a SIGHUP the relay that runs is kept. Once a relay has come adrift `make` is asked, as long as
    that takes, for one on the file that lies there by then. `describe` is a short text for systemd's
    status, `chores` are those of the configuration that `make` read last, `trouble` is what is said of what
    keeps the relays.
    """
    received = _signals()
    turn = _Turn(make(), received)
    scheduler = BackgroundScheduler(
        timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
    )

    def schedule() -> None:
        """All jobs, from now on: they are scheduled by the wall clock, which can be set."""
        scheduler.remove_all_jobs()
        _schedule_signs(scheduler, lambda: turn.relay, lambda: trouble.reason or describe())
        _schedule_windows(scheduler, turn.relay)
        _schedule_chores(scheduler, chores())

    steps = Steps(wall)
    schedule()
    scheduler.start()
    turn.begin()
    notify("READY=1")
    logger.info(line("started", pid=os.getpid()))
    try:
        while True:
            number = _next(received, AGAIN if turn.relay.is_adrift else LOOK)
            if turn.has_ended and not turn.relay.is_adrift:
                logger.error(line("died", reason="the draining thread ended by itself"))
                return 1
            if number is not None and number != signal.SIGHUP:
                return _stop(turn, received)
            before, (_, set_by) = turn, steps.look()
            if turn.relay.is_adrift:
                turn = _taken_up(turn, make, trouble, received)
            elif number is not None:
                turn = _reload(turn, make, received)
            if turn is not before or set_by:
                schedule()
    finally:
        scheduler.shutdown(wait=False)


class _Turn:
    """A relay and the thread it drains in, whose end is told as a signal is."""

    def __init__(self, relay: Relay, told: Received) -> None:
        self.relay = relay
        self.stopping = threading.Event()
        self.has_ended = False
        self.thread = threading.Thread(target=self._drain, args=(told,), name="relay", daemon=True)

    def begin(self) -> None:
        self.thread.start()

    def end(self) -> None:
        """Ask it to finish what is in flight."""
        self.stopping.set()
        self.relay.bell.set()

    def _drain(self, told: Received) -> None:
        try:
            self.relay.run(self.stopping, STOP_WITHIN)
        finally:
            self.has_ended = True
            told.put(None)


def _signals() -> Received:
    """Every signal from now on, as it comes.

    They are waited for without end: a process that stands still (SIGSTOP, a debugger) for longer than
    `signal.sigtimedwait` was to wait is told of a signal that nobody sent.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    received: Received = SimpleQueue()

    def listen() -> None:
        while True:
            received.put(signal.sigwait(SIGNALS))

    threading.Thread(target=listen, name="signals", daemon=True).start()
    return received


def _next(received: Received, seconds: float) -> int | None:
    """The signal that comes within so many seconds, if there is no other news first."""
    try:
        return received.get(timeout=seconds)
    except Empty:
        return None


def _stop(turn: _Turn, received: Received) -> int:
    """Finish what is in flight; a second signal ends at once, and leases lapse by themselves."""
    notify("STOPPING=1")
    logger.info(line("stopping"))
    turn.end()
    give_up = monotonic() + STOP_WITHIN.total_seconds() + 1
    while turn.thread.is_alive() and monotonic() < give_up:
        if _next(received, 0.05) not in (None, signal.SIGHUP):
            logger.warning(line("stopped", reason="a second signal: what was in flight is tried again later"))
            os._exit(130)
    logger.info(line("stopped"))
    if turn.relay.is_busy:
        os._exit(0)  # a call that will not end would keep the process; its lease lapses
    return 0


def _reload(turn: _Turn, make: Callable[[], Relay], received: Received) -> _Turn:
    try:
        relay = make()
    except OutboxdError as error:
        logger.error(line("kept", reason=f"the new configuration is not valid: {error}"))
        return turn
    except Exception as error:
        logger.error(line("bug", error=type(error).__name__, at=origin(error)))
        return turn
    turn.end()
    turn.thread.join()
    turn.relay.close()
    replacement = _Turn(relay, received)
    replacement.begin()
    logger.info(line("reloaded"))
    return replacement


def _taken_up(turn: _Turn, make: Callable[[], Relay], trouble: Trouble, received: Received) -> _Turn:
    """A relay on what lies at the path of the database by now; as before, if that is nothing sound."""
    if not turn.has_ended:
        return turn
    try:
        replacement = _Turn(make(), received)
    except Exception as error:
        trouble.tell(error)
        return turn
    replacement.begin()
    return replacement


def _schedule_signs(
    scheduler: BackgroundScheduler, relay: Callable[[], Relay], describe: Callable[[], str]
) -> None:
    """Wake the relay now and then, and give systemd signs of life."""

    def ring() -> None:
        """A safety net under every other wake-up, should the relay misjudge how long to rest."""
        relay().bell.set()

    def watchdog() -> None:
        if relay().is_adrift or monotonic() - relay().lively_at < LIVELY:
            notify("WATCHDOG=1")

    def tell() -> None:
        try:
            notify(f"STATUS={describe()}")
        except OutboxdError as error:  # of which the relay tells the log
            notify(f"STATUS={error}")

    scheduler.add_job(ring, "interval", seconds=RING, id="ring")
    if os.environ.get("NOTIFY_SOCKET"):
        scheduler.add_job(tell, "interval", seconds=STATUS_EVERY, id="status", next_run_time=wall())
        if (every := watchdog_seconds(os.environ)) is not None:
            scheduler.add_job(watchdog, "interval", seconds=every / 3, id="watchdog", next_run_time=wall())


def _schedule_windows(scheduler: BackgroundScheduler, relay: Relay) -> None:
    """Ring the relay's bell whenever a batch window is to open."""
    for number, trigger in enumerate(relay.triggers):
        scheduler.add_job(relay.bell.set, trigger, id=f"window-{number}")


def _schedule_chores(scheduler: BackgroundScheduler, chores: Iterable[Chore]) -> None:
    for number, (every, chore) in enumerate(chores):
        seconds = every.total_seconds()
        scheduler.add_job(chore, "interval", seconds=seconds, id=f"chore-{number}", next_run_time=wall())


def watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """Within how many seconds systemd wants a sign of life; None if it does not ask."""
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdecimal() and int(text) else None


def notify(message: str) -> None:
    """Tell systemd (sd_notify); nothing where there is none."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect(address)
            sock.sendall(message.encode())
    except OSError as error:
        logger.warning(line("notify", reason=error.strerror))
