<?php
// Writes a customer event into the outbox. Needs PHP 8 with pdo_sqlite, and a user in the group outboxd.
//   php enqueue.php customer_updated < customer.json

function enqueue(string $event, array $customer, ?string $idempotencyKey = null): void
{
    $outbox = new PDO('sqlite:' . (getenv('OUTBOXD_DATABASE') ?: '/var/lib/outboxd/outbox.db'), null, null, [
        PDO::ATTR_TIMEOUT => 10,                                      // seconds to wait for another writer
        PDO::SQLITE_ATTR_OPEN_FLAGS => PDO::SQLITE_OPEN_READWRITE,    // mode=rw: never makes the file
        PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
    ]);
    $outbox
        ->prepare('INSERT INTO outbox (event, payload, idempotency_key) VALUES (?, ?, ?)')
        ->execute([$event, json_encode($customer, JSON_THROW_ON_ERROR), $idempotencyKey]);
}

if (realpath($argv[0] ?? '') === __FILE__) {
    $customer = json_decode(file_get_contents('php://stdin'), true, 512, JSON_THROW_ON_ERROR | JSON_BIGINT_AS_STRING);
    enqueue($argv[1], $customer, $argv[2] ?? null);
}
