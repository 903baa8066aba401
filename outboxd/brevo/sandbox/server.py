"""The sandbox as a running server on loopback: its life, its threads, its connections."""

import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from threading import Event, Lock, Thread
from time import monotonic
from types import TracebackType
from typing import Any, Self

from outboxd.brevo.sandbox import control
from outboxd.brevo.sandbox.account import Account
from outboxd.brevo.sandbox.calls import Call
from outboxd.brevo.sandbox.faults import LOST_ANSWER, Fault, Faults
from outboxd.brevo.sandbox.limits import Limits
from outboxd.brevo.sandbox.messages import Request
from outboxd.brevo.sandbox.misbehaviour import misbehave
from outboxd.brevo.sandbox.stand_in import StandIn
from outboxd.brevo.sandbox.values import Attribute, as_attribute
from outboxd.brevo.sandbox.wire import Connection, MalformedError
from outboxd.clock import wall
from outboxd.errors import ConfigError

_PATIENCE = 2.0  # seconds to wait for threads when stopping


class Sandbox:
    """A stateful stand-in for Brevo's contacts API, for the demo, the tests and the curious.

    Use it as a context manager, or `start` and `stop` it. Stopped and started again it has the same port and
    the same state, as if Brevo had been away for a while.

    `port` 0 takes a free one. Limits that are None are off, and so are their headers. `latency` passes
    between acting on a call and answering it. `attributes` are more than the standard ones: name to type, or
    to Attribute. `lists` are the ids that exist. Clashes are answered with `conflict_status`: 400, or 409 as
    Brevo's specification has it; `newer_clash_code` calls them `invalid_parameter` instead of
    `duplicate_parameter`. Imports take effect after `import_delay`. `keep_calls` bounds the record of calls
    (None: all are kept). `clock` tells the aware time for everything but that record.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str = "xkeysib-sandbox",
        requests_per_second: float | None = None,
        requests_per_hour: int | None = None,
        other_per_hour: int | None = None,
        latency: timedelta = timedelta(0),
        faults: Sequence[Fault] = (),
        seed: int = 0,
        clock: Callable[[], datetime] = wall,
        attributes: Mapping[str, str | Attribute] | None = None,
        lists: Iterable[int] = range(1, 21),
        owner: str = "owner@sandbox.example",
        import_delay: timedelta = timedelta(seconds=1),
        conflict_status: int = 400,
        newer_clash_code: bool = False,
        keep_calls: int | None = None,
    ) -> None:
        self._host, self._port = _loopback(host), port
        self._latency = latency.total_seconds()
        account = Account(
            now=clock(),
            attributes=[as_attribute(name, given) for name, given in (attributes or {}).items()],
            lists=lists,
            owner=owner,
            clash_status=conflict_status,
            clash_code="invalid_parameter" if newer_clash_code else "duplicate_parameter",
        )
        limits = Limits(
            requests_per_second=requests_per_second,
            requests_per_hour=requests_per_hour,
            other_per_hour=other_per_hour,
        )
        self._brevo = StandIn(
            account,
            limits,
            clock=clock,
            api_key=api_key,
            faults=faults,
            seed=seed,
            keep_calls=keep_calls,
            import_delay=import_delay,
        )
        self._listener: socket.socket | None = None
        self._stopping = Event()
        self._lock = Lock()
        self._clients: dict[socket.socket, Thread] = {}
        self._acceptor: Thread | None = None

    def start(self) -> Self:
        """Listen and answer, in threads of its own. Raises OSError when the port is taken."""
        if self._listener is not None:
            return self
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.create_server((self._host, self._port), family=family, backlog=512)
        self._port = listener.getsockname()[1]
        self._listener = listener
        self._stopping = Event()
        self._acceptor = Thread(
            target=self._accept, args=(listener, self._stopping), name="sandbox", daemon=True
        )
        self._acceptor.start()
        return self

    def stop(self) -> None:
        """Close the door and all connections, also those that hang or drip."""
        if self._listener is None or self._acceptor is None:
            return
        self._stopping.set()
        _shut(self._listener)
        self._acceptor.join(_PATIENCE)
        self._listener.close()
        self._listener = None
        with self._lock:
            clients = dict(self._clients)
        for client in clients:
            _shut(client)
        deadline = monotonic() + _PATIENCE
        for thread in clients.values():
            thread.join(max(0.0, deadline - monotonic()))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def root(self) -> str:
        """`http://127.0.0.1:PORT`, above the API and the doors under /sandbox/; known once it was started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT/v3`, in place of `https://api.brevo.com/v3`."""
        return f"{self.root}/v3"

    @property
    def faults(self) -> Faults:
        """The faults in force: `add(…)`, `clear()`."""
        return self._brevo.faults

    @property
    def contacts(self) -> list[dict[str, Any]]:
        """All contacts as GET shows them, in the order of their creation; copies."""
        return self._brevo.contacts

    def contact(self, email: str) -> dict[str, Any] | None:
        """One contact as GET shows it, or None."""
        return self._brevo.contact(email)

    def unsubscribe(self, email: str) -> None:
        """A person unsubscribes inside Brevo; raises LookupError when nobody has that address."""
        self._brevo.unsubscribe(email)

    @property
    def calls(self) -> Sequence[Call]:
        """The calls that were made and are kept, in the order in which they ended."""
        return self._brevo.calls

    def calls_since(self, number: int) -> Sequence[Call]:
        """The calls that ended after the one with that number."""
        return self._brevo.calls_since(number)

    @property
    def stats(self) -> dict[str, Any]:
        """`{"calls", "under_way", "contacts", "by_status": {"201": n, "none": n}, "largest_overlap"}`."""
        return self._brevo.stats

    def _accept(self, listener: socket.socket, stopping: Event) -> None:
        while not stopping.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            thread = Thread(target=self._serve, args=(client, stopping), name="sandbox-client", daemon=True)
            with self._lock:
                self._clients[client] = thread
            thread.start()

    def _serve(self, client: socket.socket, stopping: Event) -> None:
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._converse(Connection(client), stopping)
        except OSError:
            pass  # the client has left, or the sandbox is stopping
        finally:
            client.close()
            with self._lock:
                self._clients.pop(client, None)

    def _converse(self, connection: Connection, stopping: Event) -> None:
        try:
            while not stopping.is_set() and (request := connection.read()):
                if not self._answer(connection, request, stopping) or not connection.stays_open:
                    return
        except MalformedError as error:
            connection.refuse(error)

    def _answer(self, connection: Connection, request: Request, stopping: Event) -> bool:
        """Answer one request; False when the connection must end without more ado."""
        if not request.path.startswith("/v3/"):
            answer = control.respond(self._brevo, request)
            connection.write(answer, "sandbox-control")
            return True
        fate = self._brevo.meet(request)
        if self._latency:
            stopping.wait(self._latency)
        self._brevo.end(fate.call, fate.answer.status if fate.answer else None)
        if fate.answer:
            connection.write(fate.answer, fate.call.request_id)
        elif fate.behaviour and fate.behaviour != LOST_ANSWER:
            misbehave(fate.behaviour, connection.sock, stopping)
        return fate.answer is not None


def _loopback(host: str) -> str:
    """The address to listen on: a stand-in that takes made-up keys has no business on a network."""
    address = "127.0.0.1" if host == "localhost" else host
    try:
        if ipaddress.ip_address(address).is_loopback:
            return address
    except ValueError:
        pass
    raise ConfigError(
        [f"the sandbox cannot listen on {host!r}: it is not a loopback address"], hint="use 127.0.0.1"
    )


def _shut(sock: socket.socket) -> None:
    """Wake whoever is blocked on the socket; closing alone would not."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
