"""Restoring: what a backup needs before it may take the place of the outbox.

Time has gone on since the backup was made. What it has as pending may have been delivered, ids that it never
gave out are taken, persons who are in it may have been erased. The statements work on a copy that nobody
else has open; `present` is the outbox that is to be replaced, as far as it can be read.
"""

import sqlite3
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from outboxd.clock import to_text
from outboxd.outbox.statements import CORRECT, OFF

ATTACH = "ATTACH :present AS present"

KNOWS_HEIRS = "SELECT 1 FROM pragma_table_info('addresses', 'present') WHERE name = 'is_heir'"

# An outbox that was not brought to the current schema has one customer an address.
KNOWN = "CREATE TEMP VIEW known AS SELECT * FROM present.addresses"
KNOWN_BEFORE = "CREATE TEMP VIEW known AS SELECT *, NULL AS out_at, 1 AS is_heir FROM present.addresses"

PENDING = "SELECT count(*) FROM main.outbox WHERE status = 'pending'"

# What the present outbox does not have any more was delivered, and pruned.
DELIVERED_SINCE = """
SELECT count(*) FROM main.outbox AS old LEFT JOIN present.outbox AS new
    ON new.id = old.id AND new.created_at = old.created_at
WHERE old.status = 'pending' AND coalesce(
    new.status = 'delivered',
    old.id <= (SELECT seq FROM present.sqlite_sequence WHERE name = 'outbox'), 0
)
"""

WRITTEN_SINCE = """
SELECT count(*), count(*) FILTER (WHERE status = 'pending') FROM present.outbox
WHERE id > coalesce((SELECT seq FROM main.sqlite_sequence WHERE name = 'outbox'), 0)
"""

REASON = "restored from a backup: it may have been delivered since"

HOLD = f"""
UPDATE main.outbox SET status = 'dead', finished_at = :now, last_error = '{REASON}',
       is_head = 0, claimed_at = NULL
WHERE status = 'pending'
"""

# Leases, imports under way and the daemon's last words are those of a time that is over.
LET_GO = (
    "UPDATE main.outbox SET claimed_at = NULL, next_attempt_at = :now "
    "WHERE status = 'pending' AND claimed_at IS NOT NULL",
    "DELETE FROM main.import_rows",
    "UPDATE main.imports SET ended_at = :now, status = 'restored' WHERE ended_at IS NULL",
    "DELETE FROM main.state WHERE key IN ('heartbeat', 'lane', 'window', 'flush')",
)

# Whether what was pending in the backup, or was written since, is all there: ids have no gaps.
ALL_SINCE = """
(SELECT seq FROM present.sqlite_sequence WHERE name = 'outbox') IS (
    SELECT was.seq + (SELECT count(*) FROM present.outbox WHERE id > was.seq)
    FROM (SELECT coalesce((SELECT seq FROM main.sqlite_sequence WHERE name = 'outbox'), 0) AS seq) AS was
) AND NOT EXISTS (
    SELECT 1 FROM main.outbox WHERE status = 'pending' AND id NOT IN (SELECT id FROM present.outbox)
)
"""

# The emptied events of an erasure tell, as long as none of that time was removed. Of whoever has left and
# come back since it is not known whether the shop only deleted them.
ERASED = f"""
CREATE TEMP TABLE erased AS
SELECT customer_key FROM present.contacts AS new LEFT JOIN main.contacts AS old USING (customer_key)
WHERE new.is_redacted > ifnull(old.is_redacted, 0)
   OR new.deleted_at IS NOT NULL AND (
      customer_key IN (
         SELECT emptied.customer_key FROM present.outbox AS emptied JOIN main.outbox AS was USING (id)
         WHERE emptied.payload = '{{}}' AND was.payload <> '{{}}'
      )
      OR new.deleted_at IS NOT old.deleted_at AND (new.is_redacted = 1 OR new.born_at IS NOT NULL)
      OR (new.deleted_at, new.born_at) IS NOT (old.deleted_at, old.born_at) AND (
         NOT ({ALL_SINCE}) OR customer_key IN (
            SELECT emptied.customer_key FROM present.outbox AS emptied LEFT JOIN main.outbox AS was USING (id)
            WHERE emptied.payload = '{{}}' AND was.payload IS NULL
         )
      )
   )
"""

# Who was erased since stays erased: their events go; what is known of them now comes, a tombstone or a new
# life, and the hashes of their addresses.
THEIRS = """
customer_key IN (
    SELECT customer_key FROM erased
    UNION SELECT source || ':@' || address_key FROM known WHERE customer_key IN erased AND is_heir
)
"""

# Of every schema. What they said in the new life is told again with their next news.
KEPT = (
    "customer_key, source, customer_id, email, email_at, synced_email, fields, labels, accepts_marketing, "
    "consent_at, deleted_at, born_at, is_redacted, synced_at"
)

ERASE = (
    "DELETE FROM main.attempts WHERE event_id IN (SELECT id FROM main.outbox WHERE {theirs})",
    "UPDATE main.outbox SET status = 'dead', finished_at = :now, is_head = 0, claimed_at = NULL "
    "WHERE status = 'pending' AND {theirs}",
    "DELETE FROM main.outbox WHERE {theirs}",
    "DELETE FROM main.addresses WHERE {theirs}",
    "INSERT INTO main.addresses SELECT * FROM known WHERE {theirs}",
    f"INSERT OR REPLACE INTO main.contacts ({KEPT}, is_overtaken) SELECT {KEPT}, 1 FROM present.contacts "
    "WHERE {theirs}",
)

# No id is given out twice. The depth, which ids tell, is counted anew.
GO_ON = (
    "INSERT INTO main.sqlite_sequence (name, seq) SELECT 'outbox', 0 "
    "WHERE NOT EXISTS (SELECT 1 FROM main.sqlite_sequence WHERE name = 'outbox')",
    "UPDATE main.sqlite_sequence SET seq = max(seq, coalesce("
    "(SELECT seq FROM present.sqlite_sequence WHERE name = 'outbox'), 0)) WHERE name = 'outbox'",
)


@dataclass(frozen=True, slots=True)
class Then:
    """What a backup has, and the present outbox has not.

    `pending` events in the backup, of which `delivered` have been delivered since; `lost` events that were
    written since, of which `undelivered` are pending; `erased` customers, who were erased since, or left and
    came back. All but the first are None if there is no present outbox that can be read.
    """

    pending: int
    delivered: int | None = None
    lost: int | None = None
    undelivered: int | None = None
    erased: int | None = None

    def followed_by(self, later: "Then") -> "Then":
        """With what was written after this had been prepared for."""
        if self.lost is None:
            return self
        lost = self.lost + (later.lost or 0)
        undelivered = (self.undelivered or 0) + (later.undelivered or 0)
        return replace(self, lost=lost, undelivered=undelivered)


def compare(backup: sqlite3.Connection, present: Path | None) -> Then:
    """What lies between the backup and the present outbox, which is attached from here on."""
    pending = int(backup.execute(PENDING).fetchone()[0])
    if present is None:
        return Then(pending)
    backup.execute(ATTACH, {"present": f"{present.absolute().as_uri()}?mode=ro"})
    known = KNOWN if backup.execute(KNOWS_HEIRS).fetchone() else KNOWN_BEFORE
    backup.execute(known)
    backup.execute(ERASED)  # what is done for them may change what this is known by
    lost, undelivered = backup.execute(WRITTEN_SINCE).fetchone()
    return Then(
        pending,
        int(backup.execute(DELIVERED_SINCE).fetchone()[0]),
        int(lost),
        int(undelivered),
        int(backup.execute("SELECT count(*) FROM erased").fetchone()[0]),
    )


def prepare(backup: sqlite3.Connection, then: Then, now: datetime, *, hold: bool) -> int:
    """Make it fit to go on from; how many events of whoever is not erased were pending.

    If they are to be held, they are dead letters then.
    Once more, when events were written since it was compared, this changes the ids to come alone.
    """
    values = {"now": to_text(now)}
    backup.execute("BEGIN IMMEDIATE")
    if then.erased:
        for statement in ERASE:
            backup.execute(statement.format(theirs=THEIRS), values)
    (waiting,) = backup.execute(PENDING).fetchone()
    for statement in ((HOLD,) if hold else ()) + LET_GO:
        backup.execute(statement, values)
    if then.lost is not None:
        for statement in GO_ON:
            backup.execute(statement)
    pending, dead = backup.execute(OFF).fetchone()
    backup.execute(CORRECT, {"pending": pending, "dead": dead})
    backup.execute("COMMIT")
    if then.erased:
        backup.execute("VACUUM main")  # not in the file's slack either
    return int(waiting)
