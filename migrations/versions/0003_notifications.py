"""Notifications: an outbox of our own, for the operator's webhook."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NOTIFICATIONS = (
    """
CREATE TABLE notifications (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id      TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
    type            TEXT NOT NULL,
    data            TEXT NOT NULL,
    status          TEXT NOT NULL DEFAULT 'pending'
                    CONSTRAINT notifications_status_known CHECK (status IN ('pending', 'delivered', 'dead')),
    is_open         INTEGER NOT NULL DEFAULT 0
                    CONSTRAINT notifications_is_open_boolean CHECK (is_open IN (0, 1)),
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    finished_at     TEXT,
    last_error      TEXT,
    CONSTRAINT notifications_finished_unless_pending CHECK ((status = 'pending') = (finished_at IS NULL))
)
""",
    # What is still being summed up: one of a type.
    "CREATE UNIQUE INDEX notifications_one_open ON notifications (type) WHERE is_open = 1",
    "CREATE INDEX notifications_due ON notifications (next_attempt_at) WHERE status = 'pending'",
    "CREATE INDEX notifications_dead ON notifications (id) WHERE status = 'dead'",
)


def upgrade() -> None:
    for statement in NOTIFICATIONS:
        op.execute(statement)
