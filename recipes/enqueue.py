"""Writes a customer event into the outbox. Needs Python 3 alone, and a user in the group outboxd.

python3 enqueue.py customer_updated < customer.json
"""

import json
import os
import sqlite3
import sys
from contextlib import closing


def enqueue(event: str, customer: dict[str, object], idempotency_key: str | None = None) -> None:
    path = os.environ.get("OUTBOXD_DATABASE", "/var/lib/outboxd/outbox.db")
    uri = f"file:{path}?mode=rw"  # never makes the file
    with (
        closing(sqlite3.connect(uri, uri=True, timeout=10)) as outbox,
        outbox,
    ):  # seconds to wait for a writer
        outbox.execute(
            "INSERT INTO outbox (event, payload, idempotency_key) VALUES (?, ?, ?)",
            (event, json.dumps(customer), idempotency_key),
        )


if __name__ == "__main__":
    enqueue(sys.argv[1], json.load(sys.stdin), *sys.argv[2:3])
