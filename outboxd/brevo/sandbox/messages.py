"""The values that pass between the rooms: a request that was read, an answer to be written, a refusal.

Nothing here touches a socket or the state of an account.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

JSON_TYPE = "application/json"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Request(NamedTuple):
    """One request as the connection delivered it."""

    method: str
    path: str  # below the root, still percent-encoded, without the query
    query: str
    headers: Mapping[str, str]  # names in lower case
    content: bytes
    document: Any  # the content as JSON; None when there is none or it is not JSON


class Answer(NamedTuple):
    """What is to be written back. Length and request id are the connection's business."""

    status: int
    content: bytes = b""
    headers: Mapping[str, str] = NO_HEADERS

    @classmethod
    def of(cls, status: int, document: object, headers: Mapping[str, str] = NO_HEADERS) -> "Answer":
        """An answer with a JSON body."""
        content = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        return cls(status, content, {"content-type": JSON_TYPE, **headers})

    @classmethod
    def error(cls, status: int, code: str, message: str, headers: Mapping[str, str] = NO_HEADERS) -> "Answer":
        """An answer in the shape of all of Brevo's errors: `{"code", "message"}`."""
        return cls.of(status, {"code": code, "message": message}, headers)


class Refusal(Exception):  # noqa: N818 - it is an answer, not a failure of the sandbox
    """A rule of Brevo that a request breaks; ends the work on it, nothing of it having been written."""

    def __init__(
        self, status: int, code: str, message: str, metadata: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.metadata = metadata

    def answer(self) -> Answer:
        """The refusal as Brevo words it: `{"code", "message", "metadata"?}`."""
        document: dict[str, object] = {"code": self.code, "message": self.message}
        if self.metadata is not None:
            document["metadata"] = self.metadata
        return Answer.of(self.status, document)


def invalid(message: str) -> Refusal:
    """The refusal of a value: 400 `invalid_parameter`. Messages name parameters, never their values."""
    return Refusal(400, "invalid_parameter", message)


def absent(message: str) -> Refusal:
    """The refusal of something that is not there: 404 `document_not_found`."""
    return Refusal(404, "document_not_found", message)


def number(text: str) -> int | None:
    """The number that a text of at most 18 digits is, which is how paths and queries say numbers."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def loads(content: bytes) -> Any:
    """JSON as the standard has it (no NaN, no Infinity); None for anything else."""
    try:
        return json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
