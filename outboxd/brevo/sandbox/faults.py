"""Trouble to order: which calls go wrong, how often, and in what way.

A fault is a frozen value; what is counted about it lives in `Faults`. Faults that are answers are made
here; those that are bad manners on the wire are only named here, and carried out by `misbehaviour`.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from random import Random
from threading import Lock
from typing import Any

from outboxd.brevo.sandbox.messages import Answer
from outboxd.errors import ConfigError

LOST_ANSWER = "lost_answer"  # the call is carried out, its answer is not sent
HELD_ANSWER = "held_answer"  # likewise, and the client is kept waiting
CARRIED_OUT = frozenset({LOST_ANSWER, HELD_ANSWER})
ANSWERED = frozenset({"html", "redirect", "unrecognised_ip"})
ON_THE_WIRE = frozenset({"reset", "hang", "drip", "drip_headers", "garbage", "huge", "half"})
BEHAVIOURS = ANSWERED | ON_THE_WIRE | CARRIED_OUT

_USUAL_ERRORS = {
    400: ("invalid_parameter", "Invalid parameters passed"),
    401: ("unauthorized", "Key not found"),
    402: ("not_enough_credits", "Insufficient credits"),
    403: ("permission_denied", "Permission denied"),
    404: ("document_not_found", "Contact does not exist"),
    422: ("unprocessable_entity", "Unprocessable entity"),
    425: ("account_in_process", "Too early, another request is in process"),
    429: ("too_many_requests", "The expected rate limit is exceeded."),
}
_UNRECOGNISED_IP = (
    "We have detected you are using an unrecognised IP address 127.0.0.1. If you performed this action make "
    "sure to add the new IP address in this link: https://app.brevo.com/security/authorised_ips"
)

_JSON_TYPES: Mapping[str, Any] = {
    "status": int,
    "body": object,
    "headers": dict,
    "behaviour": str,
    "method": str,
    "path": str,
    "identifier": str,
    "times": int,
    "after": int,
    "rate": int | float,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Calls that match `method`, `path` and `identifier` get an answer of your choice, or bad manners.

    `path` is an fnmatch pattern for the decoded path below /v3: `/contacts/*`. `identifier` is an address (or
    another identifier) in the path or the body. Of the calls that match, the first `after` are let through,
    then each is hit with probability `rate`, until `times` were hit (None: no end).

    Either `status` is given, with a `body` (JSON; a text is sent as HTML; None: the usual body for that
    status), or `behaviour`, one of BEHAVIOURS. `headers` are added to an answer. The behaviour `html` takes
    a `status` too (else it is 502).
    """

    status: int | None = None
    body: Any = field(default=None, hash=False)
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    behaviour: str | None = None
    method: str = "*"
    path: str = "*"
    identifier: str | None = None
    times: int | None = None
    after: int = 0
    rate: float = 1.0

    def __post_init__(self) -> None:
        if self.behaviour is not None and self.behaviour not in BEHAVIOURS:
            raise ConfigError(
                [f"unknown behaviour {self.behaviour!r}"], hint=f"one of {', '.join(sorted(BEHAVIOURS))}"
            )
        if self.status is None and self.behaviour is None:
            raise ConfigError(["a fault needs a status or a behaviour"])
        if self.status is not None and self.behaviour not in (None, "html"):
            raise ConfigError([f"behaviour {self.behaviour!r} takes no status"])

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "Fault":
        """A fault from its JSON form: an object with the names of the fields."""
        unknown = sorted(document.keys() - _JSON_TYPES.keys())
        mistyped = [
            name for name, kind in _JSON_TYPES.items() if not isinstance(document.get(name), kind | None)
        ]
        wrong = [f"unknown key {name!r} in a fault" for name in unknown]
        wrong += [f"a fault's {name!r} is of the wrong type" for name in mistyped]
        if wrong:
            raise ConfigError(wrong)
        return cls(**{name: value for name, value in document.items() if value is not None})

    def matches(self, method: str, path: str, identifiers: Collection[str]) -> bool:
        """Whether a call is one that this fault is about; identifiers come in lower case."""
        return (
            self.method.upper() in ("*", method)
            and (self.path == "*" or fnmatchcase(path, self.path))
            and (self.identifier is None or self.identifier.lower() in identifiers)
        )

    def answer(self) -> Answer | None:
        """What is answered instead of acting; None when no proper answer comes at all."""
        if self.behaviour == "unrecognised_ip":
            return Answer.error(401, "unauthorized", _UNRECOGNISED_IP, self.headers)
        if self.behaviour == "redirect":
            return Answer(302, b"", {"location": "https://elsewhere.invalid/", **self.headers})
        if self.behaviour == "html" or isinstance(self.body, str):
            status = self.status or 502
            page = self.body or f"<html><body><h1>{status} Bad Gateway</h1></body></html>"
            return Answer(status, page.encode(), {"content-type": "text/html", **self.headers})
        if self.status is None:
            return None
        if self.body is not None:
            return Answer.of(self.status, self.body, self.headers)
        return Answer.error(self.status, *self._usual_error(), self.headers)

    def _usual_error(self) -> tuple[str, str]:
        return _USUAL_ERRORS.get(self.status or 0, ("internal_error", "Something went wrong"))


def parse_faults(text: str | bytes) -> list[Fault]:
    """Faults from a JSON list of objects; raises ConfigError."""
    try:
        documents = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"faults are not JSON: {error}"]) from error
    if not isinstance(documents, list) or not all(isinstance(each, dict) for each in documents):
        raise ConfigError(["faults must be a JSON list of objects"])
    return [Fault.parse(document) for document in documents]


@dataclass(slots=True)
class _Armed:
    fault: Fault
    seen: int = 0
    hits: int = 0


class Faults:
    """The faults in force, which may change at any time, from any thread. The first that hits wins."""

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        self._lock = Lock()
        self._random = Random(seed)  # noqa: S311 - trouble that can be repeated, not a secret
        self._armed = [_Armed(fault) for fault in faults]

    def add(self, *faults: Fault) -> None:
        """Put more faults in force, after those that are."""
        with self._lock:
            self._armed = [*self._armed, *map(_Armed, faults)]

    def clear(self) -> None:
        """No more trouble."""
        with self._lock:
            self._armed = []

    def __bool__(self) -> bool:
        return bool(self._armed)

    def pick(self, method: str, path: str, identifiers: Collection[str]) -> Fault | None:
        """The fault that hits this call, counted."""
        with self._lock:
            for armed in self._armed:
                fault = armed.fault
                if armed.hits == fault.times or not fault.matches(method, path, identifiers):
                    continue
                armed.seen += 1
                if armed.seen > fault.after and (fault.rate >= 1 or self._random.random() < fault.rate):
                    armed.hits += 1
                    return fault
        return None
