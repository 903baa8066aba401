"""Many contacts in one call: POST /contacts/batch for those that Brevo has, POST /contacts/import for others.

A batch changes all of its contacts or none, so whoever spoils it is taken out: by the indexes that Brevo
names, or by halving. An import is a process in Brevo that ends when it likes, and tells only how many rows
it left out. Results are values; nothing is raised for what Brevo or the network does.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from outboxd.brevo import answers, listing
from outboxd.brevo.answers import Answer
from outboxd.brevo.client import Brevo
from outboxd.brevo.visit import update_body
from outboxd.clock import from_text
from outboxd.event import Found, Outcome, Upsert, Verdict
from outboxd.keys import address_key

LARGEST = 8_000_000
"""Bytes of a body: Brevo takes 10 MB and advises 8."""

SLOWEST = 60.0
"""Seconds more than other calls that an import may take: its body is large, and uplinks can be slow."""

SPOILED = frozenset({400, 404, 409, 413, 422})
"""What a batch is answered for the sake of some of its contacts."""

ENDED_BADLY = frozenset({"failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Reached:
    """Contacts by the keys of their addresses, with the attributes that they have; found by so many calls."""

    contacts: Mapping[str, Mapping[str, Any]]
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Process:
    """An import as Brevo sees it. `left_out` counts the rows that it did not take, None if that is unknown;
    `created_at` is Brevo's own time.
    """

    status: str
    left_out: int | None = None
    created_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        return self.status == "completed" or self.has_failed

    @property
    def has_failed(self) -> bool:
        return self.status in ENDED_BADLY


class Bulk:
    """The bulk calls of one account."""

    def __init__(self, brevo: Brevo) -> None:
        self._brevo = brevo

    def update(
        self, changes: Sequence[Upsert], is_late: Callable[[], bool]
    ) -> tuple[list[Outcome | Found | None], int]:
        """Change contacts that Brevo has: what came of each, and how many calls were for all of them.

        Once a call comes to nothing, or `is_late` says so, no call is begun any more; what came of the rest
        is None.
        """
        batch = _Batch(self._brevo, changes, is_late)
        batch.send(range(len(changes)))
        return [batch.told.get(index) for index in range(len(changes))], batch.calls

    def start_import(
        self, rows: Sequence[bytes], list_ids: Sequence[int], *, is_opted_out: bool
    ) -> int | Outcome:
        """Hand over `rows` (see `row`) for a process in Brevo; its id, or why there is none."""
        flags = {
            "listIds": list(list_ids),
            "updateExistingContacts": True,
            "emptyContactsAttributes": False,
            "emailBlacklist": is_opted_out,
            "disableNotification": True,  # or every import mails the account's owner
        }
        body = json.dumps(flags).encode()[:-1] + b', "jsonBody": [' + b",".join(rows) + b"]}"
        answer = self._brevo.call("POST", "/contacts/import", body, longer=SLOWEST)
        process_id = answer.body.get("processId")
        if answer.is_success and isinstance(process_id, int):
            return process_id
        outcome = answers.outcome(answer)
        if outcome.verdict is not Verdict.DELIVERED:
            return outcome
        return Outcome(Verdict.RETRY, call=answer.call, detail="Brevo took the import and named no process")

    def process(self, process_id: int) -> Process | Outcome:
        """How an import is getting on, or why that cannot be told."""
        answer = self._brevo.call("GET", f"/processes/{process_id}")
        if answer.status == 404:
            return Process("completed")  # forgotten: what it did must be looked up
        return _process(answer) if answer.is_success else answers.outcome(answer)

    def reached(self, since: datetime) -> Reached | Outcome:
        """All contacts made or changed since then."""
        found: dict[str, Mapping[str, Any]] = {}
        calls = 0
        for calls, page in enumerate(listing.pages(self._brevo, modified_since=since), start=1):
            if isinstance(page, Outcome):
                return replace(page, calls=calls)
            for contact in page:
                if contact.get("email"):
                    found[address_key(str(contact["email"]))] = dict(contact.get("attributes") or {})
        return Reached(found, calls)


def takes(value: Any) -> bool:
    """Whether an import carries a value: booleans are lost, nothing is cleared, and lists are in doubt."""
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""


def has(there: Mapping[str, Any], sent: Mapping[str, Any]) -> bool:
    """Whether a contact has what was sent, as far as Brevo shows it as it came: phones lose their plus."""
    return all(_shown(there.get(name)) == _shown(value) for name, value in sent.items())


def row(email: str, attributes: Mapping[str, Any]) -> bytes:
    """A contact as a row of an import."""
    return json.dumps({"email": email, "attributes": attributes}, separators=(",", ":")).encode()


class _Batch:
    """One update of many: who is still to be told, and what came of the others."""

    def __init__(self, brevo: Brevo, changes: Sequence[Upsert], is_late: Callable[[], bool]) -> None:
        self.calls = 0
        self.told: dict[int, Outcome | Found] = {}
        self._brevo = brevo
        self._changes = changes
        self._is_late = is_late
        self._items = [
            json.dumps({"email": change.email, **update_body(change, change.attributes)}).encode()
            for change in changes
        ]
        self._is_stopped = False

    def send(self, indexes: Sequence[int]) -> None:
        """Send these; take out what Brevo does not have, and halve what it refuses."""
        while indexes and not self._is_stopped:
            body = b'{"contacts": [' + b",".join(self._items[index] for index in indexes) + b"]}"
            if self._is_late():  # asked right before the call: nothing may come between the two
                return
            if len(indexes) == 1:
                alone = self._brevo.deliver(self._changes[indexes[0]])
                self.told[indexes[0]] = alone
                self._is_stopped = alone.verdict is Verdict.BLOCKED
                return
            if len(body) > LARGEST:
                self._halve(indexes)
                return
            answer = self._brevo.call("POST", "/contacts/batch", body)
            self.calls += 1
            missing = answer.missing if all(place < len(indexes) for place in answer.missing) else ()
            if not missing and answer.status in SPOILED:
                self._halve(indexes)
                return
            outcome = answers.outcome(answer)
            if not missing:
                self.told.update(dict.fromkeys(indexes, outcome))
                self._is_stopped = not answer.is_success
                return
            self.told.update({indexes[place]: Found() for place in missing})
            indexes = [index for index in indexes if index not in self.told]

    def _halve(self, indexes: Sequence[int]) -> None:
        middle = len(indexes) // 2
        self.send(indexes[:middle])
        self.send(indexes[middle:])


def _shown(value: Any) -> Any:
    return value.strip().removeprefix("+") if isinstance(value, str) else value


def _process(answer: Answer) -> Process:
    """GET /processes/{id}, leniently: the counts are numbers, or addresses of reports, or not there."""
    info = answer.body.get("info")
    told = info.get("import") if isinstance(info, dict) else None
    counts = {
        name: count
        for name, count in (told.items() if isinstance(told, dict) else ())
        if str(name).startswith(("invalid_", "duplicate_"))
    }
    try:
        created_at = from_text(str(answer.body.get("created_at")))
    except ValueError:
        created_at = None
    status = str(answer.body.get("status", "")).lower()
    return Process(status, sum(map(_count, counts.values())) if counts else None, created_at)


def _count(told: Any) -> int:
    """A count of rows; a report is there because it has rows."""
    if isinstance(told, int):
        return int(told)
    text = str(told or "")
    return int(text) if text.isdecimal() else int(bool(text))
