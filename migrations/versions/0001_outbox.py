"""The outbox, its attempts, the contacts as Brevo has them, and what status needs."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NOW = "(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"
TIME = "GLOB '[0-9][0-9][0-9][0-9]-[0-1][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9].[0-9][0-9][0-9]Z'"

OUTBOX = f"""
CREATE TABLE outbox (
    id              INTEGER PRIMARY KEY AUTOINCREMENT
                    CONSTRAINT outbox_id_positive CHECK (id > 0),
    event           TEXT NOT NULL,
    payload         TEXT NOT NULL,
    source          TEXT,
    occurred_at     TEXT,
    idempotency_key TEXT,
    status          TEXT NOT NULL DEFAULT 'pending'
                    CONSTRAINT outbox_status_known CHECK (status IN ('pending', 'delivered', 'dead')),
    attempts        INTEGER NOT NULL DEFAULT 0
                    CONSTRAINT outbox_attempts_counted CHECK (attempts >= 0),
    next_attempt_at TEXT NOT NULL DEFAULT {NOW}
                    CONSTRAINT outbox_next_attempt_at_is_time CHECK (next_attempt_at {TIME}),
    created_at      TEXT NOT NULL DEFAULT {NOW}
                    CONSTRAINT outbox_created_at_is_time CHECK (created_at {TIME}),
    claimed_at      TEXT,
    finished_at     TEXT,
    customer_key    TEXT,
    is_head         INTEGER NOT NULL DEFAULT 0
                    CONSTRAINT outbox_is_head_boolean CHECK (is_head IN (0, 1)),
    last_error      TEXT,
    CONSTRAINT outbox_finished_unless_pending CHECK ((status = 'pending') = (finished_at IS NULL)),
    CONSTRAINT outbox_head_is_pending
        CHECK (is_head = 0 OR (status = 'pending' AND customer_key IS NOT NULL)),
    CONSTRAINT outbox_claimed_is_pending CHECK (claimed_at IS NULL OR status = 'pending')
)
"""

INDEXES = (
    # Not yet admitted events in their order (customer_key null), then each customer's pending ones.
    "CREATE INDEX outbox_pending ON outbox (customer_key, id) WHERE status = 'pending'",
    # The database itself forbids two deliveries in flight for one customer.
    "CREATE UNIQUE INDEX outbox_one_head ON outbox (customer_key) WHERE is_head = 1",
    "CREATE INDEX outbox_due ON outbox (next_attempt_at) WHERE is_head = 1",
    # In flight (claimed_at set) and waiting for another attempt (null): few, so that they can be counted.
    "CREATE INDEX outbox_tried ON outbox (claimed_at, id) WHERE status = 'pending' AND attempts > 0",
    "CREATE INDEX outbox_dead ON outbox (id) WHERE status = 'dead'",
    "CREATE INDEX outbox_dead_of ON outbox (customer_key) WHERE status = 'dead'",
    "CREATE UNIQUE INDEX outbox_idempotency_key_once ON outbox (idempotency_key) "
    "WHERE idempotency_key IS NOT NULL",
)

# A day that no calendar has, or a text that only looks like a time, would stop whoever reads it.
IS_TIME = f"""(typeof({{0}}) = 'text' AND {{0}} {TIME} AND {{0}} > '1'
  AND strftime('%Y-%m-%dT%H:%M:%S', substr({{0}}, 1, 19), '+0 days') IS substr({{0}}, 1, 19))"""

# Other programs write to this table. They can insert nothing but new events, reuse no id, rewrite no
# payload and remove nothing that is still pending; a repeated idempotency key is accepted and changes nothing
# (as a trigger, because INSERT OR REPLACE would go round a DELETE trigger and drop the first one).
GUARDS = (
    """
CREATE TRIGGER outbox_guard_insert BEFORE INSERT ON outbox
WHEN NEW.id <> -1 OR NEW.status <> 'pending' OR NEW.attempts <> 0 OR NEW.claimed_at IS NOT NULL
  OR NEW.finished_at IS NOT NULL OR NEW.customer_key IS NOT NULL OR NEW.is_head <> 0
  OR NEW.last_error IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'outbox: write event and payload, and if you like source, occurred_at and \
idempotency_key; outboxd keeps the other columns itself');
END
""",
    # A trigger also stops INSERT OR IGNORE, which would leave the row out, and its id: a gap in the ids.
    f"""
CREATE TRIGGER outbox_guard_values BEFORE INSERT ON outbox
WHEN NEW.event IS NULL OR NEW.payload IS NULL
  OR {IS_TIME.format("NEW.created_at")} IS NOT 1 OR {IS_TIME.format("NEW.next_attempt_at")} IS NOT 1
BEGIN
    SELECT RAISE(ABORT, 'outbox: event and payload must be there; created_at and next_attempt_at are left \
out, or UTC such as 2026-11-23T16:12:51.821Z');
END
""",
    """
CREATE TRIGGER outbox_guard_repeat BEFORE INSERT ON outbox
WHEN NEW.idempotency_key IS NOT NULL
 AND EXISTS (SELECT 1 FROM outbox WHERE idempotency_key = NEW.idempotency_key)
BEGIN
    SELECT RAISE(IGNORE);
END
""",
    """
CREATE TRIGGER outbox_guard_update
BEFORE UPDATE OF id, event, payload, source, occurred_at, idempotency_key, created_at ON outbox
WHEN NEW.id IS NOT OLD.id OR NEW.event IS NOT OLD.event OR NEW.source IS NOT OLD.source
  OR NEW.occurred_at IS NOT OLD.occurred_at OR NEW.idempotency_key IS NOT OLD.idempotency_key
  OR NEW.created_at IS NOT OLD.created_at
  OR (NEW.payload IS NOT OLD.payload AND NOT (NEW.payload = '{}' AND OLD.status <> 'pending'))
BEGIN
    SELECT RAISE(ABORT, 'outbox: an event is not changed once it is written; write a new one');
END
""",
    """
CREATE TRIGGER outbox_guard_delete BEFORE DELETE ON outbox
WHEN OLD.status = 'pending'
BEGIN
    SELECT RAISE(ABORT, 'outbox: a pending event is not deleted; it would be lost');
END
""",
)

ATTEMPTS = """
CREATE TABLE attempts (
    event_id    INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    started_at  TEXT NOT NULL,
    finished_at TEXT NOT NULL,
    verdict     TEXT NOT NULL
                CONSTRAINT attempts_verdict_known
                CHECK (verdict IN ('delivered', 'unchanged', 'superseded', 'retry', 'refused', 'blocked')),
    call        TEXT,
    http_status INTEGER,
    error_code  TEXT,
    detail      TEXT CONSTRAINT attempts_detail_short CHECK (length(detail) <= 512),
    request_id  TEXT,
    CONSTRAINT attempts_once PRIMARY KEY (event_id, number, started_at)
) WITHOUT ROWID
"""

CONTACTS = """
CREATE TABLE contacts (
    customer_key      TEXT NOT NULL CONSTRAINT contacts_once PRIMARY KEY,
    source            TEXT NOT NULL,
    customer_id       TEXT,
    email             TEXT,
    email_at          TEXT,
    synced_email      TEXT,
    fields            TEXT NOT NULL DEFAULT '{}',
    labels            TEXT NOT NULL DEFAULT '{}',
    accepts_marketing INTEGER CONSTRAINT contacts_consent_boolean CHECK (accepts_marketing IN (0, 1)),
    consent_at        TEXT,
    deleted_at        TEXT,
    born_at           TEXT,
    is_redacted       INTEGER NOT NULL DEFAULT 0
                      CONSTRAINT contacts_redacted_boolean CHECK (is_redacted IN (0, 1)),
    synced_at         TEXT
) WITHOUT ROWID
"""

CONTACT_INDEXES = (
    "CREATE UNIQUE INDEX contacts_customer_once ON contacts (source, customer_id) "
    "WHERE customer_id IS NOT NULL",
    "CREATE INDEX contacts_synced_email ON contacts (synced_email) WHERE synced_email IS NOT NULL",
)

# Which customer an address belongs to, former addresses included; hashed, so that it outlives an erasure.
ADDRESSES = """
CREATE TABLE addresses (
    address_key  TEXT NOT NULL,
    source       TEXT NOT NULL,
    customer_key TEXT NOT NULL,
    CONSTRAINT addresses_once PRIMARY KEY (address_key, source)
) WITHOUT ROWID
"""

# What status reads instead of counting. Ids have no gaps and nothing pending is ever deleted, so the
# pending events are those ever written (sqlite_sequence) less those that left; writers pay nothing.
DEPTH = (
    """
CREATE TABLE depth (
    id        INTEGER PRIMARY KEY CONSTRAINT depth_one_row CHECK (id = 1),
    finished  INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    dead      INTEGER NOT NULL DEFAULT 0
)
""",
    "INSERT INTO depth (id) VALUES (1)",
    """
CREATE TRIGGER outbox_depth_update AFTER UPDATE OF status ON outbox
WHEN NEW.status <> OLD.status
BEGIN
    UPDATE depth SET
        finished  = finished  + (OLD.status = 'pending')   - (NEW.status = 'pending'),
        delivered = delivered + (NEW.status = 'delivered') - (OLD.status = 'delivered'),
        dead      = dead      + (NEW.status = 'dead')      - (OLD.status = 'dead');
END
""",
    """
CREATE TRIGGER outbox_depth_delete AFTER DELETE ON outbox
WHEN OLD.status = 'dead'
BEGIN
    UPDATE depth SET dead = dead - 1;
END
""",
)

STATS = """
CREATE TABLE stats (
    minute     TEXT NOT NULL CONSTRAINT stats_once PRIMARY KEY,
    delivered  INTEGER NOT NULL DEFAULT 0,
    dead       INTEGER NOT NULL DEFAULT 0,
    attempts   INTEGER NOT NULL DEFAULT 0,
    failed     INTEGER NOT NULL DEFAULT 0,
    calls      INTEGER NOT NULL DEFAULT 0,
    latency_ms INTEGER NOT NULL DEFAULT 0,
    latencies  TEXT NOT NULL DEFAULT '{}'
) WITHOUT ROWID
"""

STATE = """
CREATE TABLE state (
    key        TEXT NOT NULL CONSTRAINT state_once PRIMARY KEY,
    value      TEXT NOT NULL,
    updated_at TEXT NOT NULL
) WITHOUT ROWID
"""


def upgrade() -> None:
    for statement in (
        OUTBOX,
        *INDEXES,
        *GUARDS,
        ATTEMPTS,
        CONTACTS,
        *CONTACT_INDEXES,
        ADDRESSES,
        *DEPTH,
        STATS,
        STATE,
    ):
        op.execute(statement)
