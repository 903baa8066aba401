"""Addresses that several customers have: each of them is found by it, and not the first one alone.

`out_at` is when the customer had opted out last by the time they left the address to others. `is_heir` says
that they took over whoever was known by this address alone, and so the events of that one.
"""

from alembic import op

from outboxd.database import decoded
from outboxd.keys import address_key

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ADDRESSES = """
CREATE TABLE addresses_of_several (
    address_key  TEXT NOT NULL,
    source       TEXT NOT NULL,
    customer_key TEXT NOT NULL,
    out_at       TEXT,
    is_heir      INTEGER NOT NULL DEFAULT 0
                 CONSTRAINT addresses_heir_boolean CHECK (is_heir IN (0, 1)),
    CONSTRAINT addresses_once PRIMARY KEY (address_key, source, customer_key)
) WITHOUT ROWID
"""

# Whoever had an address after another one was not met by it; of what was spoiled nobody is.
OWN = """
INSERT OR IGNORE INTO addresses (address_key, source, customer_key)
SELECT address_key(CAST({0} AS BLOB)), source, customer_key FROM contacts
WHERE typeof({0}) = 'text' AND typeof(source) = 'text'
"""

STATEMENTS = (
    ADDRESSES,
    "INSERT INTO addresses_of_several (address_key, source, customer_key, is_heir) "
    "SELECT address_key, source, customer_key, customer_key <> source || ':@' || address_key FROM addresses",
    "DROP TABLE addresses",
    "ALTER TABLE addresses_of_several RENAME TO addresses",
    OWN.format("email"),
    OWN.format("synced_email"),
)


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    driver.create_function("address_key", 1, lambda email: address_key(decoded(email)), deterministic=True)
    for statement in STATEMENTS:
        op.execute(statement)
