"""What an answer of Brevo means. Pure: a status, headers and a body in, an Answer out.

Codes are an open set and bodies can be anything, a proxy's HTML included; nothing is taken on trust. What an
answer means is read from its own words; what is told of it is without whatever was sent, or looks like it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from outboxd.errors import SECRET
from outboxd.event import PHONES, Outcome, Verdict

DEFAULT_WAIT = timedelta(seconds=5)
"""How long a 429 without headers is waited for."""

UNKNOWN_PATH = "not_found"
"""The code of Brevo's 404 for a path that its API does not have: for a contact, a list or a process that it
does not have there are others, and in the 404 of a proxy or a gateway there is none."""

UNRECOGNISED_IP = "unrecognised ip"
"""What the message of a 401 holds, in small letters, when the key is good and the host's address is not."""

UNAUTHORISED = (
    (
        UNRECOGNISED_IP,
        "Brevo does not accept this host's IP address: "
        "authorise it at https://app.brevo.com/security/authorised_ips",
    ),
    (
        "authentication not found",
        "Brevo got no API key: check the settings brevo.api_key_env, api_key_file and api_key_credential",
    ),
    (
        "",
        "Brevo does not know this API key (wrong, revoked, or an SMTP key): "
        "make a v3 key at https://app.brevo.com/settings/keys/api",
    ),
)

BLOCKED = {
    402: "Brevo says that the account has no credit left: see https://app.brevo.com/billing",
    403: "Brevo forbids this account the contacts API: see the account's state at https://app.brevo.com",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, read leniently. `status` 0: none came, and `message` says why.

    `duplicates` are the identifiers that clash, `missing` the places in a batch of contacts that Brevo lacks.
    """

    call: str
    status: int = 0
    code: str | None = None
    message: str = ""
    duplicates: frozenset[str] = frozenset()
    missing: frozenset[int] = frozenset()
    says_phone_invalid: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)
    request_id: str | None = None
    wait: timedelta | None = None
    is_settled: bool = False  # an error that is as good as success: what was to be done is done

    @property
    def is_success(self) -> bool:
        return self.is_settled or 200 <= self.status < 300

    @property
    def says_address_taken(self) -> bool:
        """The contact exists: 409 by the specification, 400 in truth, under a code that changes."""
        return "email" in self.duplicates or (self.status == 409 and not self.duplicates)

    @property
    def says_phone_taken(self) -> bool:
        return any(phone.lower() in self.duplicates for phone in PHONES)


def read(
    call: str,
    status: int,
    headers: Mapping[str, str],
    raw: bytes | None,
    without_sent: Callable[[str], str] = str,
) -> Answer:
    """An answer as it came; `raw` None is a body past the size limit. `without_sent` takes out of a text what
    was sent.
    """
    body, is_json = _parse(raw)
    request_id = _token(headers.get("sib-request-id"), without_sent)
    is_empty = raw == b"" and (status == 204 or headers.get("content-length") == "0")
    if (what := _foreign(status, body, is_json=is_json or is_empty)) is not None:
        return Answer(
            call,
            message=f"not Brevo's API: {what} came back; check brevo.base_url and any proxy",
            request_id=request_id,
        )
    said = body.get("message")
    said = said if isinstance(said, str) else ""
    duplicates = _duplicates(body, said) if status in (400, 409) else frozenset()
    is_told = is_json or status < 300
    return Answer(
        call,
        status,
        _token(body.get("code"), lambda code: masked(without_sent(code))),
        _printable(without_sent(said)) if is_told else f"HTTP {status} without a JSON body",
        duplicates,
        _missing(said) if status == 404 else frozenset(),
        says_phone_invalid=status == 400 and not duplicates and "phone" in said.lower(),
        body=body,
        request_id=request_id,
        wait=_wait(headers) if status == 429 else None,
    )


def outcome(
    answer: Answer,
    *,
    calls: int = 0,
    warnings: Sequence[str] = (),
    holds: frozenset[str] | None = None,
) -> Outcome:
    """The verdict on an answer that nothing could heal, with what the Outcome says of the way there."""
    verdict, detail = Verdict.REFUSED, answer.message or f"HTTP {answer.status}"
    if answer.is_success:
        verdict, detail = Verdict.DELIVERED, answer.message
    elif answer.status == 0 or answer.status in (408, 425) or answer.status >= 500:
        verdict = Verdict.RETRY
    elif answer.status == 401:
        told = answer.message.lower()
        verdict, detail = Verdict.BLOCKED, next(text for sign, text in UNAUTHORISED if sign in told)
    elif answer.status in BLOCKED:
        verdict, detail = Verdict.BLOCKED, BLOCKED[answer.status]
    elif answer.status == 429:
        verdict, detail = Verdict.BLOCKED, "Brevo's rate limit is used up"
    return Outcome(
        verdict,
        call=answer.call,
        http_status=answer.status or None,
        error_code=None if answer.is_success else answer.code,
        detail=masked(detail) or None,
        request_id=answer.request_id,
        wait=answer.wait,
        is_network=answer.status == 0,
        calls=calls,
        warnings=tuple(warnings),
        holds=holds,
    )


def masked(text: str) -> str:
    """`text` without what may be an address, a phone or a key: it goes to logs and tables."""
    text = SECRET.sub("…", text)
    text = re.sub(r"(?<!\S)\S+(@|%40)\S+", "[address]", text)  # anchored: a long word stays cheap
    return re.sub(r"\+?\d[\d ()./-]{5,}\d", "[number]", text)


def _token(value: object, hidden: Callable[[str], str]) -> str | None:
    """A code or an id, which is one short word; None for all else, and for what is to be `hidden`."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
        return None
    return value if hidden(value) == value and not SECRET.search(value) else None


def _printable(text: str) -> str:
    """`text` as a log, a table and SQLite can hold it."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text)


def _foreign(status: int, body: Mapping[str, Any], *, is_json: bool) -> str | None:
    """What came in the place of an answer of Brevo's API: that has not heard of the call."""
    if 200 <= status < 300 and not is_json:
        return "something that is not JSON"
    if 300 <= status < 400:
        return "a redirect"
    code = body.get("code")
    if status == 404 and (not isinstance(code, str) or code == UNKNOWN_PATH):
        return "the 404 of an unknown path"
    return None


def _parse(raw: bytes | None) -> tuple[Mapping[str, Any], bool]:
    try:
        body = json.loads(raw or b"")
    except (ValueError, RecursionError):
        return {}, False
    return (body, True) if isinstance(body, dict) else ({}, isinstance(body, list))


def _duplicates(body: Mapping[str, Any], message: str) -> frozenset[str]:
    """The identifiers that clash, in small letters: by metadata, then by the message, never by code."""
    metadata = body.get("metadata")
    named = metadata.get("duplicate_identifiers") if isinstance(metadata, dict) else None
    if isinstance(named, list):
        return frozenset(str(name).lower() for name in named)
    if "already associated" in message or "already exist" in message:
        names = ("email", "ext_id", *(phone.lower() for phone in PHONES))
        told = re.findall(r"[a-z_]+", message.lower())
        return frozenset(name for name in names if name in told) or frozenset({"email"})
    return frozenset()


def _missing(message: str) -> frozenset[int]:
    """The places that "No contact found for indexes 3,4" names."""
    named = re.search(r"indexe?s?\b\D{0,3}([0-9]{1,7}(?:\s*,\s*[0-9]{1,7})*)", message)
    return frozenset(map(int, re.findall("[0-9]+", named[1]))) if named else frozenset()


def _wait(headers: Mapping[str, str]) -> timedelta:
    """How long a 429 asks to wait: both headers count seconds from now."""
    for name in ("retry-after", "x-sib-ratelimit-reset"):
        text = headers.get(name, "")
        if re.fullmatch(r"\d{1,6}(\.\d+)?", text):
            return timedelta(seconds=min(max(float(text), 1.0), 3600.0))
    return DEFAULT_WAIT
