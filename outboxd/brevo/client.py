"""The client: HTTP calls to Brevo, within its limits and deadlines.

Results are values; nothing is raised for what Brevo or the network does.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from functools import partial
from math import inf
from time import monotonic, sleep
from typing import Any

import requests
import urllib3

from outboxd import __version__
from outboxd.brevo import answers, echoes
from outboxd.brevo.answers import Answer
from outboxd.brevo.catalogue import Catalogue
from outboxd.brevo.deadline import Allowance, DeadlineAdapter, failure
from outboxd.brevo.limiter import Limiter, acquire
from outboxd.brevo.paths import route
from outboxd.brevo.visit import MOST_CALLS, carry_out
from outboxd.event import Attribute, Outcome, Remove, Upsert

BODY_LIMIT = 1 << 20
"""Bytes of an answer that are read."""

CONNECTIONS = 80
"""Connections that are kept for the next call: as many as there can be threads."""

PATIENCE = 2.0
"""Seconds a call waits for its turn at the limiter before the delivery is put off."""

ELSEWHERE = frozenset({"GET /account", "GET /contacts/attributes", "GET /processes/{id}"})
"""Calls whose budget may be another one than the contacts': its end says nothing about theirs."""


class Brevo:
    """Brevo's contacts API, for one account. Safe for many threads: one limiter for all of them."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        limiter: Limiter,
        timeout: timedelta,
        update_enabled: bool = True,
        sleep: Callable[[float], object] = sleep,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._limiter = limiter
        self._timeout = timeout.total_seconds()
        self.longest = MOST_CALLS * timedelta(seconds=self._timeout + PATIENCE)
        """How long one delivery can take at the most."""
        self.is_halted = False  # no call leaves any more
        self._updates = update_enabled
        self._sleep = sleep
        self._adapter = DeadlineAdapter(max_retries=0, pool_connections=1, pool_maxsize=CONNECTIONS)
        self._key = api_key.replace("-", "")  # a single word: none of its parts tells anything
        self._headers = {
            "api-key": api_key,
            "accept": "application/json",
            "accept-encoding": "gzip, deflate",
            "user-agent": f"outboxd/{__version__}",
        }
        self._catalogue = Catalogue(self.list_attributes, monotonic)

    def room(self) -> int:
        """How many calls may leave now."""
        return self._limiter.room(monotonic())

    def wait(self) -> float:
        """Seconds until a call may leave."""
        return self._limiter.wait(monotonic())

    def left(self) -> list[tuple[float, int, int]]:
        """Of each rate limit its period in seconds, the calls it allows, and how many of them are left."""
        return self._limiter.left(monotonic())

    def deliver(self, change: Upsert | Remove) -> Outcome:
        """Carry out `change`, with as many calls as it takes; none leaves after `longest`."""
        call = partial(self.call, give_up=monotonic() + self.longest.total_seconds())
        return carry_out(change, call, updates=self._updates)

    def attributes(self, wanted: Collection[str]) -> Mapping[str, Attribute] | Outcome:
        """The account's attributes by name, or what became of asking for them; asked for when need be."""
        return self._catalogue.attributes(wanted)

    def list_attributes(self) -> Answer:
        """GET /contacts/attributes; `catalogue.read` understands the body."""
        return self.call("GET", "/contacts/attributes")

    def make_attribute(self, attribute: Attribute) -> Answer:
        """POST /contacts/attributes/normal/{name}."""
        return self.call("POST", f"/contacts/attributes/normal/{attribute.name}", {"type": attribute.type})

    def list_(self, list_id: int) -> Answer:
        """GET /contacts/lists/{id}: whether the list exists."""
        return self.call("GET", f"/contacts/lists/{list_id}")

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None = None,
        *,
        longer: float = 0.0,
        largest: int = BODY_LIMIT,
        give_up: float = inf,
    ) -> Answer:
        """One call within the limits and the deadline. Never raises: no answer is an Answer with status 0.

        `body` is JSON, written or not; `longer` are seconds that it may take beyond the others; `largest`
        is how many bytes of an answer are read; `give_up` is when it must be over, in monotonic seconds.
        """
        name = f"{method} {route(path)}"
        allowed = self._timeout + longer
        give_up = min(give_up, monotonic() + PATIENCE + allowed)
        if wait := acquire(self._limiter, PATIENCE, monotonic, self._sleep):
            return Answer(name, 429, message="own limit", wait=timedelta(seconds=wait))
        if self.is_halted:
            return Answer(name, message="whoever drained has ended")
        try:
            timeout = Allowance(min(give_up, monotonic() + allowed))
            return self._exchange(name, method, path, body, timeout, largest)
        except (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            ValueError,  # such as a chunk of a negative size
        ) as error:
            return Answer(name, message=failure(error, "Brevo", allowed))

    def _exchange(
        self,
        name: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None,
        timeout: Allowance,
        largest: int,
    ) -> Answer:
        # Straight to the adapter: what a Session would add (redirects, cookies, proxies and passwords from
        # the environment) is what must not happen here, and takes as long as the call itself.
        request = requests.PreparedRequest()
        request.method, request.url = method, self._base_url + path
        request.headers = {**self._headers}  # type: ignore[assignment]  # plain, but in requests' spelling
        if body is not None:
            request.body = body if isinstance(body, bytes) else json.dumps(body).encode()
            request.headers["Content-Type"] = "application/json"
            request.headers["Content-Length"] = str(len(request.body))

        def without_sent(text: str) -> str:
            return echoes.without(text, (self._key, *echoes.said(path, body)))

        response = self._adapter.send(request, stream=True, timeout=timeout)
        with response:
            raw = response.raw.read(largest + 1, decode_content=True)
        raw = raw if len(raw) <= largest else None
        answer = answers.read(name, response.status_code, response.headers, raw, without_sent)
        is_used_up = answer.status == 429 or response.headers.get("x-sib-ratelimit-remaining") == "0"
        if is_used_up and name not in ELSEWHERE:
            self._hold(answer, response.headers.get("x-sib-ratelimit-reset", ""))
        return answer

    def _hold(self, answer: Answer, reset: str) -> None:
        """Other programs of the shop spend the same budget: rest when Brevo says that it is used up."""
        if answer.wait is not None:
            self._limiter.hold(monotonic() + answer.wait.total_seconds())
        elif re.fullmatch(r"[0-9]{1,6}", reset):
            self._limiter.hold(monotonic() + min(int(reset), 3600))
