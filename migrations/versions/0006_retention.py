"""What pruning needs: delivered events by their age. Shops' writes do not touch this index."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX outbox_delivered ON outbox (finished_at) WHERE status = 'delivered'")
