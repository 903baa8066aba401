"""Trouble: what keeps something from going on is said when it begins or changes, and when it is over.

The host may be broken for hours and is looked at every few seconds; nobody wants to read that as often.
"""

from collections.abc import Callable
from time import monotonic
from typing import Any

from outboxd.errors import OutboxdError
from outboxd.logs import line, logger

AGAIN = 1.0
"""Seconds until what has failed is tried again."""


class Trouble:
    """Of one thing that is tried again and again; `at` names it in the log.

    `say` is told the reason and the hint as they change, (None, None) when it is over.
    """

    def __init__(self, at: str | None = None) -> None:
        self.reason: str | None = None
        self.say: Callable[[str | None, str | None], None] = lambda _reason, _hint: None
        self._at = at
        self._told: set[str] = set()
        self._since = 0.0

    def tell(self, error: Exception) -> None:
        """It has failed, with `error`. Of reasons that alternate each is said once."""
        is_ours = isinstance(error, OutboxdError)
        self.reason = str(error) if is_ours else f"{type(error).__name__} at {origin(error)}"
        hint = error.hint if isinstance(error, OutboxdError) else None
        self._since = self._since if self._told else monotonic()
        if self.reason in self._told:
            return
        self._told.add(self.reason)
        self.say(self.reason, hint)
        if is_ours:
            logger.error(line("stuck", at=self._at, reason=self.reason, hint=hint))
        else:
            logger.error(line("bug", error=type(error).__name__, at=origin(error)))

    def note(self, error: Exception | None) -> None:
        """It has gone well, but for what keeps a part of it, if anything does."""
        self.over() if error is None else self.tell(error)

    def over(self) -> None:
        """It has gone well."""
        if self.reason is None:
            return
        logger.warning(line("unstuck", at=self._at, seconds=round(monotonic() - self._since)))
        self.reason = None
        self._told.clear()
        self.say(None, None)


def origin(error: BaseException) -> str:
    """File and line of a bug: enough to find it, and nothing of the data it was at."""
    trace: Any = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
