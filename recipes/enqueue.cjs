// Writes a customer event into the outbox. Needs Node 20 or newer, and a user in the group outboxd.
//   npm install better-sqlite3
//   node enqueue.cjs customer_updated < customer.json
const { readFileSync } = require('node:fs');
const Database = require('better-sqlite3');

function enqueue(event, customer, idempotencyKey = null) {
  const outbox = new Database(process.env.OUTBOXD_DATABASE ?? '/var/lib/outboxd/outbox.db', {
    timeout: 10_000, // milliseconds to wait for another writer
    fileMustExist: true, // mode=rw: never makes the file
  });
  try {
    outbox
      .prepare('INSERT INTO outbox (event, payload, idempotency_key) VALUES (?, ?, ?)')
      .run(event, JSON.stringify(customer), idempotencyKey);
  } finally {
    outbox.close();
  }
}

module.exports = { enqueue };

if (require.main === module) {
  enqueue(process.argv[2], JSON.parse(readFileSync(0, 'utf8')), process.argv[3]);
}
