"""Totals that only grow, over restarts and prunings: what a monitoring system takes differences of.

Each has a measure and a label: ('attempts', 'delivered'), ('latencies', the number of a bucket of
outboxd.stats), ('notifications', their type), ('calls', ''). They are added to in the transaction that makes
them true.
"""

from collections.abc import Mapping

from outboxd.outbox.rows import Write, at_once, table

ADD = f"""
INSERT INTO totals (measure, label, value)
SELECT measure, label, value FROM {table("measure", "label", "value")} WHERE true
ON CONFLICT (measure, label) DO UPDATE SET value = value + excluded.value
"""


def add(**measures: Mapping[str, int]) -> list[Write]:
    """Add to the totals of `measures`, by their labels; none is negative."""
    rows = [
        {"measure": measure, "label": label, "value": value}
        for measure, counts in measures.items()
        for label, value in counts.items()
        if value
    ]
    return at_once(ADD, rows)
