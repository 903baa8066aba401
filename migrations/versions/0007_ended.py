"""What else is over leaves by its age: dropped letters, delivered notifications, imports that ended.

Shops' writes touch none of these indexes: an event is never dropped when it is written. And no event is from
a time that is far ahead: it would wait that long for a batch window, and its news would win until then.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

STATEMENTS = (
    "CREATE INDEX outbox_dropped ON outbox (dropped_at) WHERE dropped_at IS NOT NULL",
    "CREATE INDEX notifications_delivered ON notifications (finished_at) WHERE status = 'delivered'",
    "CREATE INDEX imports_ended ON imports (ended_at) WHERE ended_at IS NOT NULL",
    """
CREATE TRIGGER outbox_guard_times BEFORE INSERT ON outbox
WHEN NEW.created_at >= '2200' OR NEW.next_attempt_at >= '2200'
BEGIN
    SELECT RAISE(ABORT, 'outbox: created_at and next_attempt_at are left out; this one is a lifetime ahead');
END
""",
    # What was counted so far is not lost.
    "INSERT INTO totals SELECT 'notifications', type, count(*) FROM notifications "
    "WHERE status = 'delivered' GROUP BY type",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
