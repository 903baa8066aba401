"""What stands beside the figures of an outbox: what keeps the daemon, by its own word, and the disk."""

import json
from pathlib import Path
from typing import Any

from outboxd import locks, place


def facts(database: Path) -> dict[str, Any]:
    """`trouble`: since, reason and hint, or None; `disk`: each a fault and its mend."""
    word = locks.word(database)
    faults = [fault for fault in place.faults(database) if fault.what == "disk"]
    return {
        "trouble": json.loads(word) if word else None,
        "disk": [{"fault": fault.told, "mend": fault.mend} for fault in faults],
    }
