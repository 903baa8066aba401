"""placeholder"""
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from outboxd.brevo import answers
from outboxd.brevo.client import Brevo
from outboxd.clock import to_text
from outboxd.event import Outcome


def pages(brevo: Brevo, *, modified_since: datetime | None = None) -> Iterator[Sequence[Mapping[str, Any]] | Outcome]:
    offset = 0
    while True:
        since = f"&modifiedSince={to_text(modified_since)}" if modified_since else ""
        answer = brevo.call("GET", f"/contacts?limit=1000&offset={offset}&sort=asc{since}", largest=1 << 24)
        if not answer.is_success:
            yield answers.outcome(answer)
            return
        page = answer.body.get("contacts") or []
        if page:
            yield page
        if len(page) < 1000:
            return
        offset += 1000
