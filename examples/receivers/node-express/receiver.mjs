// Receives houdini-relay's webhooks with Express: verify, drop repeats and old news, store, answer. Work comes later.
import { constants, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import express from "express";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

const webhook = new Webhook(process.env.RELAY_SECRET); // throws without one: never verify with an empty key
const take = openJournal(process.env.RELAY_STATE ?? "receiver.jsonl");

const app = express();
// express.raw keeps the bytes, for the signature is over them; express.json would parse them away.
app.post("/hooks/houdini", express.raw({ type: () => true, limit: "1mb", inflate: false }), (request, response) => {
  const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0); // no body at all: not a Buffer
  try {
    webhook.verify(body, request.headers, { jsonParse: false });
  } catch (error) {
    if (error instanceof WebhookVerificationError) return response.sendStatus(401);
    throw error;
  }
  // What is thrown here is answered with 500, and the event comes again: 2xx only for what is stored.
  const { data, relay } = JSON.parse(body); // the relay's own notices (relay.*) have no `relay`
  const order = relay ? { houdiniId: data.houdiniId, orderSequence: relay.orderSequence } : {};
  // As text, because a double would keep only 16 digits of an amount.
  take({ webhookId: request.headers["webhook-id"], ...order, body: body.toString() });
  response.sendStatus(204);
});
// Express's own handler would show the sender a stack trace.
app.use((error, request, response, next) => {
  console.error("not stored:", error);
  response.sendStatus(error.status ?? 500); // 413 for a body that is too long
});
app.listen(Number(process.env.PORT ?? 8790), "127.0.0.1");

/**
 * One JSON line per event taken: what is left to work on, and the memory of what came, in one write.
 * For one process, and up to some hundred thousand events; beyond either, use a database.
 */
function openJournal(path) {
  const file = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  const found = readFileSync(file);
  let size = found.lastIndexOf("\n") + 1; // half a line was never answered with 2xx: it comes again
  const seen = new Set();
  const latest = new Map();
  const remember = ({ webhookId, houdiniId, orderSequence }) => {
    seen.add(webhookId);
    if (houdiniId !== undefined) latest.set(houdiniId, orderSequence);
  };
  const lines = found.subarray(0, size).toString().split("\n").filter(Boolean);
  for (const line of lines) remember(JSON.parse(line));

  // Synchronous from the first look to the last write, so that two posts of one id cannot both be new.
  return (entry) => {
    if (seen.has(entry.webhookId) || entry.orderSequence <= latest.get(entry.houdiniId)) return;
    const line = Buffer.from(`${JSON.stringify(entry)}\n`);
    ftruncateSync(file, size); // what a failed write may have left
    for (let at = 0; at < line.length; ) at += writeSync(file, line, at, line.length - at, size + at);
    fsyncSync(file);
    size += line.length;
    remember(entry);
  };
}
