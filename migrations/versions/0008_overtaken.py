"""Customers who have one contact in Brevo: whose news it got since another one's.

Of those whom an older version left with one contact nobody knows what of it is whose: all count as overtaken,
so that each is told again what they say.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE contacts ADD COLUMN is_overtaken INTEGER NOT NULL DEFAULT 0 "
    "CONSTRAINT contacts_overtaken_boolean CHECK (is_overtaken IN (0, 1))",
    """
UPDATE contacts SET is_overtaken = 1 WHERE synced_email IN (
    SELECT synced_email FROM contacts WHERE synced_email IS NOT NULL GROUP BY synced_email HAVING count(*) > 1
)
""",
    "DROP INDEX contacts_synced_email",
    "CREATE INDEX contacts_synced_email ON contacts (synced_email, is_overtaken) "
    "WHERE synced_email IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
