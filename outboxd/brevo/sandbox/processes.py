"""What Brevo does in its own time: processes that are queued, run for a while, and then take effect.

Nothing runs by itself. Whoever looks at the account first calls `advance(now)`, and whatever is due by
then is carried out as if it had happened on time; nobody can tell the difference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from outboxd.brevo.sandbox.messages import Refusal, number
from outboxd.clock import to_text

Work = Callable[[datetime], dict[str, Any]]


@dataclass(slots=True)
class Process:
    """One piece of work: queued for the first half of its time, in process for the second, then completed."""

    id: int
    name: str
    created_at: datetime
    due_at: datetime
    work: Work
    info: dict[str, Any] | None = None

    def shown(self, now: datetime) -> dict[str, Any]:
        """The process as GET /processes/{id} shows it."""
        shown: dict[str, Any] = {"id": self.id, "name": self.name, "created_at": to_text(self.created_at)}
        if self.info is not None:
            return shown | {"status": "completed", "completed_at": to_text(self.due_at), "info": self.info}
        halfway = self.created_at + (self.due_at - self.created_at) / 2
        return shown | {"status": "queued" if now < halfway else "in_process"}


class Processes:
    """All processes of the account, in the order they were asked for."""

    def __init__(self, *, delay: timedelta) -> None:
        self._delay = delay
        self._all: dict[int, Process] = {}
        self._waiting: list[Process] = []

    def start(self, name: str, work: Work, now: datetime) -> int:
        """Queue `work`, which returns the `info` of the finished process; returns the process id."""
        process = Process(len(self._all) + 1, name, now, now + self._delay, work)
        self._all[process.id] = process
        self._waiting.append(process)
        return process.id

    def advance(self, now: datetime) -> None:
        """Carry out what is due."""
        while self._waiting and self._waiting[0].due_at <= now:
            process = self._waiting.pop(0)
            process.info = process.work(process.due_at)

    def shown(self, process_id: str, now: datetime) -> dict[str, Any]:
        """The process as GET shows it, or 404."""
        process = self._all.get(number(process_id) or 0)
        if process is None:
            raise Refusal(404, "invalid_parameter", "processId is invalid")
        return process.shown(now)
