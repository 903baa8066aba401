"""Totals that only grow: what counters need that outlive the pruning of what they were counted from."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TOTALS = """
CREATE TABLE totals (
    measure TEXT NOT NULL,
    label   TEXT NOT NULL DEFAULT '',
    value   INTEGER NOT NULL CONSTRAINT totals_grow CHECK (value >= 0),
    CONSTRAINT totals_once PRIMARY KEY (measure, label)
) WITHOUT ROWID
"""

# What was counted so far is not lost.
SO_FAR = (
    "INSERT INTO totals SELECT 'attempts', verdict, count(*) FROM attempts GROUP BY verdict",
    "INSERT INTO totals SELECT 'calls', '', coalesce(sum(calls), 0) FROM stats",
    "INSERT INTO totals SELECT 'latency_ms', '', coalesce(sum(latency_ms), 0) FROM stats",
    "INSERT INTO totals SELECT 'latencies', key, sum(value) FROM stats, json_each(latencies) GROUP BY key",
    "INSERT INTO totals SELECT 'imports', status, count(*) FROM imports WHERE ended_at IS NOT NULL "
    "GROUP BY status",
)


def upgrade() -> None:
    for statement in (TOTALS, *SO_FAR):
        op.execute(statement)
