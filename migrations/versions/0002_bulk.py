"""What bulk work needs: backfilled events step back behind live ones, and imports are remembered."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OUTBOX = (
    """
ALTER TABLE outbox ADD COLUMN is_backfill INTEGER NOT NULL DEFAULT 0
    CONSTRAINT outbox_is_backfill_boolean CHECK (is_backfill IN (0, 1))
""",
    "DROP INDEX outbox_pending",
    "DROP INDEX outbox_due",
    # Not yet admitted, live events first; each customer's pending ones; their heads by when they are due.
    "CREATE INDEX outbox_fresh ON outbox (is_backfill, id) WHERE status = 'pending' AND customer_key IS NULL",
    "CREATE INDEX outbox_pending ON outbox (customer_key, id) "
    "WHERE status = 'pending' AND customer_key IS NOT NULL",
    "CREATE INDEX outbox_due ON outbox (is_backfill, next_attempt_at, created_at) WHERE is_head = 1",
)

# An import runs in Brevo for minutes. Until it has ended its customers are barred here, in the database, so
# that nothing newer can be overtaken by it, over restarts too.
IMPORTS = (
    """
CREATE TABLE imports (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    size       INTEGER NOT NULL,
    process_id INTEGER,
    started_at TEXT NOT NULL,
    ended_at   TEXT,
    status     TEXT NOT NULL DEFAULT 'sending',
    left_out   INTEGER
)
""",
    "CREATE INDEX imports_under_way ON imports (id) WHERE ended_at IS NULL",
    """
CREATE TABLE import_rows (
    customer_key TEXT NOT NULL CONSTRAINT import_rows_once PRIMARY KEY,
    import_id    INTEGER NOT NULL,
    claimed_at   TEXT NOT NULL,
    address_key  TEXT NOT NULL,
    digest       TEXT NOT NULL
) WITHOUT ROWID
""",
    "CREATE INDEX import_rows_of ON import_rows (import_id)",
)


def upgrade() -> None:
    for statement in (*OUTBOX, *IMPORTS):
        op.execute(statement)
