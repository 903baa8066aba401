"""The statements of an event's life: what is asked before it, and what writes it. Tests hold the hot ones to
their indexes.
"""

from outboxd.outbox.rows import EVENT, table

FRESH = f"""
SELECT {EVENT} FROM outbox
WHERE status = 'pending' AND customer_key IS NULL ORDER BY is_backfill, id LIMIT :limit
"""

NEXT_DUE = """
SELECT next_attempt_at FROM outbox
WHERE is_head = 1 AND is_backfill = :is_backfill AND (created_at <= :before OR created_at > :future)
ORDER BY next_attempt_at LIMIT 1
"""

# With whether the customer has more events than this one: most have not.
DUE_HEADS = f"""
SELECT {EVENT}, customer_key, EXISTS (
    SELECT 1 FROM outbox AS other
    WHERE other.status = 'pending' AND other.customer_key = outbox.customer_key AND other.id <> outbox.id
)
FROM outbox
WHERE is_head = 1 AND is_backfill = :is_backfill AND next_attempt_at <= :now
  AND (created_at <= :before OR created_at > :future)
ORDER BY next_attempt_at LIMIT :limit
"""

# Imports end when they end, which no clock tells: whoever is in one has a lease until the year 9999.
AHEAD = """
SELECT id FROM outbox
WHERE is_head = 1 AND is_backfill IN (0, 1) AND next_attempt_at > :now AND next_attempt_at < '9999'
"""

# The last sign of life of whoever drains is yet to come: the first of them who sees it puts things right.
SET_BACK = "UPDATE state SET value = :now, updated_at = :now WHERE key = 'heartbeat' AND value > :now"

LEASED_TO = """
SELECT id FROM outbox
WHERE is_head = 1 AND customer_key IN (SELECT value FROM json_each(:keys)) AND claimed_at IS NOT NULL
"""

SHIFT = """
UPDATE outbox SET next_attempt_at = strftime('%Y-%m-%dT%H:%M:%fZ', next_attempt_at, :by)
WHERE id IN (SELECT value FROM json_each(:ids)) AND is_head = 1 AND next_attempt_at < '9999'
"""

WAITING = """
SELECT count(*) FROM (
    SELECT 1 FROM outbox WHERE is_head = 1 AND is_backfill = 0 AND next_attempt_at <= :now LIMIT :most
)
"""

# No index serves this; it is asked once, at the start. What is not admitted yet is counted when it is.
LIVE_WAITING = """
SELECT count(*) FROM outbox
WHERE status = 'pending' AND customer_key IS NOT NULL AND is_backfill = 0 AND attempts = 0
  AND created_at > :after
"""

STATE = "SELECT value FROM state WHERE key = :key"

# What a live event is news of cannot wait behind backfilled ones.
HURRY = """
UPDATE outbox SET is_backfill = 0
WHERE is_head = 1 AND +is_backfill = 1 AND customer_key IN (SELECT value FROM json_each(:keys))
"""

PENDING_OF = f"""
SELECT {EVENT} FROM outbox
WHERE status = 'pending' AND customer_key = :key ORDER BY id LIMIT :limit
"""

LEASE = """
UPDATE outbox SET attempts = attempts + 1, claimed_at = :now, next_attempt_at = :until
WHERE id IN (SELECT value FROM json_each(:ids))
"""

HELD = """
SELECT id, attempts, claimed_at FROM outbox
WHERE id IN (SELECT value FROM json_each(:ids)) AND status = 'pending'
"""

ELECT = f"""
UPDATE outbox SET is_head = 1, next_attempt_at = told.at
FROM {table("key", "at")}
WHERE outbox.id = (SELECT min(id) FROM outbox WHERE status = 'pending' AND customer_key = told.key)
  AND NOT EXISTS (SELECT 1 FROM outbox WHERE is_head = 1 AND customer_key = told.key)
"""

# No index serves this: it is rare, and it holds no lock. Events of a guest who turned out to be the customer
# ended under the key of their address.
KEPT_OF = """
SELECT id FROM outbox
WHERE status <> 'pending' AND payload <> '{}' AND customer_key IN (
    SELECT :key
    UNION SELECT source || ':@' || address_key FROM addresses WHERE customer_key = :key AND is_heir
)
"""

PURGE = """
UPDATE outbox SET payload = '{}'
WHERE id IN (SELECT value FROM json_each(:ids)) AND status <> 'pending'
"""

PURGE_ATTEMPTS = "UPDATE attempts SET detail = NULL WHERE event_id IN (SELECT value FROM json_each(:ids))"

# How far the depth is from what counting finds: by indexes alone, and without a lock.
OFF = """
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0) - finished
       - (SELECT count(*) FROM outbox WHERE status = 'pending' AND customer_key IS NULL)
       - (SELECT count(*) FROM outbox WHERE status = 'pending' AND customer_key IS NOT NULL),
       (SELECT count(*) FROM outbox WHERE status = 'dead')
       - (SELECT count(*) FROM outbox WHERE dropped_at IS NOT NULL) - dead
FROM depth
"""

CORRECT = "UPDATE depth SET finished = finished + :pending, dead = dead + :dead"

ADMIT = f"""
UPDATE outbox SET customer_key = told.key, is_head = told.is_head, next_attempt_at = told.at
FROM {table("id", "key", "is_head", "at")} WHERE outbox.id = told.id
"""

STILL_FRESH = """
SELECT id FROM outbox
WHERE id IN (SELECT value FROM json_each(:ids)) AND status = 'pending' AND customer_key IS NULL
"""

HEADS_OF = """
SELECT customer_key, next_attempt_at FROM outbox
WHERE is_head = 1 AND customer_key IN (SELECT value FROM json_each(:keys))
"""
