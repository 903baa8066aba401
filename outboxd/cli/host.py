"""What stands beside the figures of an outbox: what keeps the daemon, by its own word, and the disk."""

import json
from pathlib import Path
from typing import Any

from outboxd import locks, place


def facts(database: Path) -> dict[str, Any]:
    """`trouble`: since, reason and hint, or None; `disk`: each a fault and its mend."""
    faults = [fault for fault in place.faults(database) if fault.what == "disk"]
    return {
        "trouble": _trouble(database),
        "disk": [{"fault": fault.told, "mend": fault.mend} for fault in faults],
    }


def _trouble(database: Path) -> dict[str, Any] | None:
    try:
        word: dict[str, Any] | None = json.loads(locks.word(database) or "null")
    except ValueError:  # it is just being written
        return None
    return word
