"""Writes a customer event into the outbox. Needs Python 3 alone, and a user in the group outboxd.

python3 enqueue.py customer_updated < customer.json
"""

import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path


def enqueue(event: str, customer: dict[str, object], idempotency_key: str | None = None) -> None:
    path = Path(os.environ.get("OUTBOXD_DATABASE", "/var/lib/outboxd/outbox.db"))
    uri = f"{path.absolute().as_uri()}?mode=rw"  # never makes the file
    patience = 10  # seconds that it waits for other writers
    with closing(sqlite3.connect(uri, uri=True, timeout=patience)) as outbox, outbox:
        outbox.execute(
            "INSERT INTO outbox (event, payload, idempotency_key) VALUES (?, ?, ?)",
            (event, json.dumps(customer), idempotency_key),
        )


if __name__ == "__main__":
    enqueue(sys.argv[1], json.load(sys.stdin), *sys.argv[2:3])
