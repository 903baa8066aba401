"""The sandbox's own doors under /sandbox/: what another process may look at and change.

They are no part of Brevo: without a key, without limits, not recorded as calls.
"""

from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import parse_qs

from outboxd.brevo.sandbox.calls import Call
from outboxd.brevo.sandbox.faults import Faults, parse_faults
from outboxd.brevo.sandbox.messages import Answer, Request, number
from outboxd.errors import ConfigError


class Observed(Protocol):
    """What these doors lead to."""

    @property
    def contacts(self) -> Sequence[dict[str, Any]]: ...
    @property
    def stats(self) -> dict[str, Any]: ...
    @property
    def faults(self) -> Faults: ...
    def calls_since(self, number: int) -> Sequence[Call]: ...
    def unsubscribe(self, email: str) -> None: ...


def respond(sandbox: Observed, request: Request) -> Answer:
    """Answer a request below /sandbox/."""
    match request.method, request.path:
        case "GET", "/sandbox/contacts":
            return Answer.of(200, sandbox.contacts)
        case "GET", "/sandbox/calls":
            return _calls(sandbox, request)
        case "GET", "/sandbox/stats":
            return Answer.of(200, sandbox.stats)
        case "POST", "/sandbox/faults":
            return _add_faults(sandbox, request)
        case "DELETE", "/sandbox/faults":
            sandbox.faults.clear()
            return Answer(204)
        case "POST", "/sandbox/unsubscribe":
            return _unsubscribe(sandbox, request)
        case _:
            return Answer.error(404, "not_found", "The sandbox has no such door")


def _calls(sandbox: Observed, request: Request) -> Answer:
    since = number(parse_qs(request.query).get("since", ["0"])[-1])
    if since is None:
        return Answer.error(400, "invalid_parameter", "since is the number of a call")
    return Answer.of(200, [call.shown() for call in sandbox.calls_since(since)])


def _add_faults(sandbox: Observed, request: Request) -> Answer:
    try:
        faults = parse_faults(request.content)
    except ConfigError as error:
        return Answer.error(400, "invalid_parameter", str(error))
    sandbox.faults.add(*faults)
    return Answer(204)


def _unsubscribe(sandbox: Observed, request: Request) -> Answer:
    email = request.document.get("email") if isinstance(request.document, dict) else None
    if not isinstance(email, str):
        return Answer.error(400, "invalid_parameter", 'Send {"email": "…"}')
    try:
        sandbox.unsubscribe(email)
    except LookupError:
        return Answer.error(404, "document_not_found", "Contact does not exist")
    return Answer(204)
