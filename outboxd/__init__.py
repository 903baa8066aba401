"""outboxd: the embedded outbox between a shop and its Brevo contacts.

Importing it costs the standard library's import of nothing much: everything is loaded at first use.

    outboxd.enqueue("customer_created", {"id": 5, "email": "jane@example.com"}, db="outbox.db")
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself would cost a third of an intake's start
if TYPE_CHECKING:
    from typing import Any

    from outboxd.embedded import CustomerSync
    from outboxd.errors import EventError, OutboxdError
    from outboxd.intake import enqueue

__version__ = "0.1.0"

__all__ = ["CustomerSync", "EventError", "OutboxdError", "__version__", "enqueue"]

_HOMES = {
    "CustomerSync": "outboxd.embedded",
    "EventError": "outboxd.errors",
    "OutboxdError": "outboxd.errors",
    "enqueue": "outboxd.intake",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_HOMES[name]), name)  # a shop asks for it at every event
    return found
