"""Totals that only grow, over restarts and prunings: what a monitoring system takes differences of.

Each has a measure and a label: ('attempts', 'delivered'), ('latencies', the number of a bucket of
outboxd.stats), ('notifications', their type), ('calls', ''). They are added to in the transaction that makes
them true.
"""

from collections.abc import Mapping

from sqlalchemy import Connection

from outboxd.outbox.rows import at_once, table

ADD = f"""
INSERT INTO totals (measure, label, value)
SELECT :measure, label, value FROM {table("label", "value")} WHERE true
ON CONFLICT (measure, label) DO UPDATE SET value = value + excluded.value
"""


def add(connection: Connection, measure: str, counts: Mapping[str, int]) -> None:
    """Add to the totals of `measure`, by their labels; none is negative."""
    rows = [{"label": label, "value": value} for label, value in counts.items() if value]
    at_once(connection, ADD, rows, measure=measure)
