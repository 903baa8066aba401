"""Rehearsal: the calls that a change takes, written down by the client's own code and not made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outboxd.brevo.answers import Answer
from outboxd.brevo.paths import route
from outboxd.brevo.visit import carry_out
from outboxd.event import Outcome, Remove, Upsert

ANSWERS = {"GET": 200, "POST": 201, "PUT": 204, "DELETE": 204}
"""How Brevo answers when all is well."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call as it would leave. `path` is below the base URL; `body` becomes JSON, None is no body."""

    method: str
    path: str
    body: Mapping[str, Any] | None


def rehearse(change: Upsert | Remove, *, updates: bool) -> tuple[Outcome, list[Request]]:
    """The outcome of `change` if Brevo has what is believed of it, and the requests that this takes."""
    requests: list[Request] = []

    def call(method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        requests.append(Request(method, path, body))
        return Answer(f"{method} {route(path)}", ANSWERS[method])

    return carry_out(change, call, updates=updates), requests
