"""A program of the shop: `python -m tests.torture.producer EVENTS ACKNOWLEDGED OUTBOX`.

It is killed and started again, and so it loads what a shop loads, and nothing of the tests.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep

import outboxd
from outboxd.clock import from_text


def produce(events: Path, acknowledged: Path, outbox: Path) -> None:
    """Write what of `events` is not acknowledged yet, and say each id as soon as it is."""
    lines: Sequence[str] = events.read_text().splitlines()
    done = acknowledged.read_text().count("\n")
    for number, line in enumerate(lines[done:], done):
        event = json.loads(line)
        if number == len(lines) - 1:
            _wait_for(end_of(acknowledged))
        told = outboxd.enqueue(
            event["event"],
            event["data"],
            occurred_at=from_text(event["at"]),
            idempotency_key=f"{events.stem}-{number}",
            db=outbox,
        )
        print(f"{told}\n", end="", flush=True)  # however Python buffers, no kill comes between the two


def end_of(acknowledged: Path) -> Path:
    """What is there once the last event may be written."""
    return acknowledged.with_suffix(".end")


def _wait_for(path: Path) -> None:
    give_up = monotonic() + 600
    while not path.exists():
        assert monotonic() < give_up, f"there never was {path}"
        sleep(0.005)


if __name__ == "__main__":
    produce(*map(Path, sys.argv[1:]))
