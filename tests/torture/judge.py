"""What there must be: each event accounted for once and told in order, each contact right, nothing personal
told.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from outboxd import database
from outboxd.brevo.sandbox import Call, Sandbox
from tests.processes import KEY
from tests.torture.people import Customer

LIST = 5
"""The list that every contact joins."""

PERSONAL = re.compile(
    r"ann\d+|example\.com|\b[FL]\d+v\d+\b|4915112\d{6}|1555\d{7}|whsec_|" + re.escape(KEY), re.IGNORECASE
)
"""What only customers have, and what only outboxd and its counterparts know."""

VERSIONED = re.compile(r"\b([FL]\d+)v(\d+)\b")
"""A value in a call: whose it is, and of which version."""

TOTALS = """
SELECT coalesce(sum(value), 0) FROM totals
WHERE measure = 'attempts' AND label IN ('delivered', 'unchanged', 'superseded')
"""

DEPTH = "SELECT finished, dead FROM depth"

ANSWERED = """
SELECT request_id, http_status FROM attempts WHERE http_status IS NOT NULL AND request_id IS NOT NULL
"""

TOLD = (
    "SELECT coalesce(detail, '') || ' ' || coalesce(error_code, '') FROM attempts",
    "SELECT coalesce(last_error, '') || ' ' || coalesce(customer_key, '') FROM outbox",
    "SELECT key || ' ' || value FROM state",
    "SELECT type || ' ' || data FROM notifications",
)
"""What the database keeps of people to be told to operators."""


def account(outbox: Path, acknowledged: Collection[int], calls: Sequence[Call]) -> dict[str, Any]:
    """What became of the events that were acknowledged, by the file and by the record of calls."""
    with database.reading(outbox) as connection:
        ends = dict(connection.execute("SELECT id, status FROM outbox").fetchall())
        reasons = connection.execute("SELECT last_error FROM outbox WHERE status = 'dead' LIMIT 5").fetchall()
        (recorded,) = connection.execute(TOTALS).fetchone()
        depth = connection.execute(DEPTH).fetchone()
        claimed = connection.execute(ANSWERED).fetchall()
    answered = {call.request_id: call.status for call in calls}
    ended = [sum(end == status for end in ends.values()) for status in ("delivered", "dead")]
    return {
        "acknowledged": len(set(acknowledged)),
        "written": len(ends),
        "lost": len(set(acknowledged) - ends.keys()) + sum(end == "pending" for end in ends.values()),
        "delivered": ended[0],
        "dead": ended[1],
        "reasons": [row[0] for row in reasons],
        "recorded more than once": recorded - ended[0],
        "miscounted": sum(
            abs(told - ended) for told, ended in zip(depth, (sum(ended), ended[1]), strict=True)
        ),
        "answers nobody gave": sum(answered.get(request) != status for request, status in claimed),
    }


def out_of_order(outbox: Path, calls: Iterable[Call]) -> list[str]:
    """Every call that told of a customer what was older than a call before it, whose answer is recorded.

    After a call without an answer a delivery may begin with its oldest event again: it must find whatever
    contact that call has made.
    """
    with database.reading(outbox) as connection:
        answered = {request for request, status in connection.execute(ANSWERED) if 200 <= status < 300}
    newest: dict[str, int] = {}
    found = []
    for call in calls:
        for whose, text in VERSIONED.findall(json.dumps(call.body)):
            version = int(text)
            if version < newest.get(whose, 0):
                found.append(f"call {call.number}: {whose} of version {version} after {newest[whose]}")
            if call.request_id in answered:
                newest[whose] = max(newest.get(whose, 0), version)
    return found


def personal(told: Mapping[str, str]) -> list[str]:
    """Where, of these texts by their names, something stands that must not."""
    return [
        f"{name}: {line.strip()[:200]}"
        for name, text in told.items()
        for line in text.splitlines()
        if PERSONAL.search(line)
    ]


def kept(outbox: Path) -> str:
    """What the database tells of people to operators."""
    with database.reading(outbox) as connection:
        return "\n".join(row[0] for statement in TOLD for row in connection.execute(statement))


def seen_by_ps(process_id: int) -> str:
    """What other users of this host see of a process and its threads; nothing of one that has ended."""
    process = Path(f"/proc/{process_id}")
    try:
        names = [file.read_text() for file in process.glob("task/*/comm")]
        return "\n".join([(process / "cmdline").read_text().replace("\0", " "), *names])
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wrong(sandbox: Sandbox, customers: Sequence[Customer]) -> list[str]:
    """Every contact that is not as it ought to be: one too many, one too few, or different."""
    found = {contact["email"]: contact for contact in sandbox.contacts}
    found_wrong = []
    for customer in customers:
        contact = found.pop(customer.email, None)
        if customer.is_gone or contact is None:
            if customer.is_gone != (contact is None):
                found_wrong.append(f"{customer.number}: {'still there' if contact else 'missing'}")
        elif contact["attributes"] != customer.attributes:
            found_wrong.append(f"{customer.number}: {contact['attributes']} instead of {customer.attributes}")
        elif contact["emailBlacklisted"] != customer.is_out:
            found_wrong.append(f"{customer.number}: blocklisted is {contact['emailBlacklisted']}")
        elif contact["listIds"] != [LIST]:
            found_wrong.append(f"{customer.number}: on the lists {contact['listIds']}")
    return found_wrong + [f"{email}: nobody has that address any more" for email in found]
