# Writes a customer event into the outbox. Needs a user in the group outboxd.
#   gem install sqlite3
#   ruby enqueue.rb customer_updated < customer.json
require 'json'
require 'sqlite3'

def enqueue(event, customer, idempotency_key = nil)
  path = ENV.fetch('OUTBOXD_DATABASE', '/var/lib/outboxd/outbox.db')
  outbox = SQLite3::Database.new(path, readwrite: true) # mode=rw: never makes the file
  outbox.busy_timeout(10_000) # milliseconds to wait for another writer
  outbox.execute(
    'INSERT INTO outbox (event, payload, idempotency_key) VALUES (?, ?, ?)',
    [event, JSON.generate(customer), idempotency_key]
  )
ensure
  outbox&.close
end

enqueue(ARGV[0], JSON.parse($stdin.read), ARGV[1]) if $PROGRAM_NAME == __FILE__
