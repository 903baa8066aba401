"""Notices: what an operator can be told of, by webhook, and one such message."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

COMPLETED = "sync_completed"
FAILED = "sync_failed"
BATCH = "batch_completed"
BLOCKED = "lane_blocked"
RESUMED = "lane_resumed"

TYPES = (COMPLETED, FAILED, BATCH, BLOCKED, RESUMED)


class Wanted(NamedTuple):
    """What the operator wants to be told: the types, and whether of each event or in sum."""

    types: frozenset[str] = frozenset()
    each: bool = False
    interval: timedelta = timedelta(minutes=1)


class Notification(NamedTuple):
    """One message. `message_id` is the same at every attempt."""

    id: int
    message_id: str
    type: str
    data: Mapping[str, Any]
    created_at: str
    attempts: int
