#!/bin/sh
# Writes a customer event into the outbox. Needs the sqlite3 command (3.28), and a user in the group outboxd.
#   sh enqueue.sh customer_updated < customer.json
set -eu
event=$1 key=${2-}

# Whatever a name holds, quotes and line ends included: no part of it is read as SQL, and none is seen by `ps`.
text() { printf "CAST(x'%s' AS TEXT)" "$(od -An -v -tx1 | tr -d ' \n')"; }

# In a URI, whose mode never makes the file, these three signs stand for others.
outbox=$(printf %s "${OUTBOXD_DATABASE:-/var/lib/outboxd/outbox.db}" | sed 's/%/%25/g; s/?/%3f/g; s/#/%23/g')

sqlite3 -batch -bail "file:$outbox?mode=rw" <<SQL
.timeout 10000
.parameter set :event   "$(printf %s "$event" | text)"
.parameter set :key     "$(printf %s "$key" | text)"
.parameter set :payload "$(text)"
INSERT INTO outbox (event, payload, idempotency_key) VALUES (:event, json(:payload), NULLIF(:key, ''));
SQL
