<?php
// Receives houdini-relay's webhooks in plain PHP: verify, drop repeats and old news, store, answer. Work comes later.
declare(strict_types=1);

const MAX_BODY = 1024 * 1024;
const TOLERANCE_SECONDS = 5 * 60;

// Until the event is stored the answer is "send it again", whatever goes wrong: with display_errors on,
// PHP would answer an uncaught exception with 200, and the event would be lost.
http_response_code(500);
ini_set('display_errors', '0');

$headers = array_change_key_case(getallheaders(), CASE_LOWER);
// The bytes as they came, for the signature is over them.
$body = stream_get_contents(fopen('php://input', 'rb'), MAX_BODY + 1);
if (strlen($body) > MAX_BODY) {
    http_response_code(413);
    exit;
}
// php-fpm clears the environment by default: set RELAY_SECRET in the pool's configuration, or read it from a file.
if (!is_genuine((string) getenv('RELAY_SECRET'), $headers, $body)) {
    http_response_code(401);
    exit;
}
accept(getenv('RELAY_STATE') ?: 'receiver.db', $headers['webhook-id'], $body);
http_response_code(204);

/** Standard Webhooks 1.0.0: any one of the signatures, over id, time and bytes, made within the last five minutes. */
function is_genuine(string $secret, array $headers, string $body): bool
{
    $key = base64_decode(preg_replace('/^whsec_/', '', $secret), true);
    if ($key === false || strlen($key) < 24) { // never verify with an empty key
        throw new RuntimeException('RELAY_SECRET is missing or damaged');
    }
    $id = $headers['webhook-id'] ?? '';
    $timestamp = $headers['webhook-timestamp'] ?? '';
    if ($id === '' || !ctype_digit($timestamp) || abs(time() - (int) $timestamp) > TOLERANCE_SECONDS) {
        return false;
    }
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    foreach (explode(' ', $headers['webhook-signature'] ?? '') as $offered) {
        if (hash_equals($expected, $offered)) {
            return true;
        }
    }
    return false;
}

/** Store an event to work on, unless it is a repeat or older than what this order already had. */
function accept(string $state, string $webhook_id, string $body): void
{
    $event = json_decode($body, true, 512, JSON_THROW_ON_ERROR);
    $db = new PDO("sqlite:$state", null, null, [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_TIMEOUT => 5]);
    $db->exec('CREATE TABLE IF NOT EXISTS seen(webhook_id TEXT PRIMARY KEY, at TEXT DEFAULT CURRENT_TIMESTAMP);
               CREATE TABLE IF NOT EXISTS orders(houdini_id TEXT PRIMARY KEY, order_sequence INTEGER NOT NULL);
               CREATE TABLE IF NOT EXISTS work(number INTEGER PRIMARY KEY, webhook_id TEXT NOT NULL,
                                               body BLOB NOT NULL)');
    $run = function (string $sql, array $values) use ($db): bool {
        $statement = $db->prepare($sql);
        $statement->execute($values);
        return $statement->rowCount() > 0;
    };
    $db->beginTransaction(); // one transaction: all of it or, when anything throws, nothing
    $relay = $event['relay'] ?? null; // the relay's own notices (relay.*) have none
    $wanted = $run('INSERT INTO seen(webhook_id) VALUES(?) ON CONFLICT DO NOTHING', [$webhook_id])
        && ($relay === null || $run(
            'INSERT INTO orders VALUES(?, ?) ON CONFLICT(houdini_id) DO UPDATE
             SET order_sequence = excluded.order_sequence WHERE excluded.order_sequence > order_sequence',
            [$event['data']['houdiniId'], $relay['orderSequence']]
        ));
    if ($wanted) {
        // Your effect goes here, in the same transaction. The body is kept as it came: no digit of an amount is lost.
        $run('INSERT INTO work(webhook_id, body) VALUES(?, ?)', [$webhook_id, $body]);
    }
    $db->commit();
}
