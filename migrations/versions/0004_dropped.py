"""Dead letters that an operator dropped: finished for good, kept until they are pruned, and not counted."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATEMENTS = (
    # A column, for SQLite cannot add a value to the CHECK of `status` without rebuilding the table.
    """
ALTER TABLE outbox ADD COLUMN dropped_at TEXT
    CONSTRAINT outbox_dropped_is_dead CHECK (dropped_at IS NULL OR status = 'dead')
""",
    """
CREATE TRIGGER outbox_guard_dropped BEFORE INSERT ON outbox
WHEN NEW.dropped_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'outbox: dropped_at is left out; outboxd keeps the other columns itself');
END
""",
    """
CREATE TRIGGER outbox_depth_drop AFTER UPDATE OF dropped_at ON outbox
WHEN (NEW.dropped_at IS NULL) <> (OLD.dropped_at IS NULL)
BEGIN
    UPDATE depth SET dead = dead + (NEW.dropped_at IS NULL) - (OLD.dropped_at IS NULL);
END
""",
    "DROP TRIGGER outbox_depth_delete",
    """
CREATE TRIGGER outbox_depth_delete AFTER DELETE ON outbox
WHEN OLD.status = 'dead' AND OLD.dropped_at IS NULL
BEGIN
    UPDATE depth SET dead = dead - 1;
END
""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
