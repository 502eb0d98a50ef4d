// Receives houdini-relay's webhooks with nothing but Node: verify, drop repeats and old news, store, answer.
import { createHmac, timingSafeEqual } from "node:crypto";
import { constants, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { createServer } from "node:http";

const MAX_BODY = 1024 * 1024;
const TOLERANCE_SECONDS = 5 * 60;

const key = Buffer.from((process.env.RELAY_SECRET ?? "").replace(/^whsec_/, ""), "base64");
if (key.length < 24) throw new Error("RELAY_SECRET is missing or damaged"); // never verify with an empty key
const take = openJournal(process.env.RELAY_STATE ?? "receiver.jsonl");

createServer(async (request, response) => {
  const body = await read(request).catch(() => undefined); // the sender went away
  if (body === null) {
    response.writeHead(413, { connection: "close" }).end();
  } else if (body === undefined || !isGenuine(request.headers, body)) {
    response.writeHead(401).end();
  } else {
    response.writeHead(accept(request.headers["webhook-id"], body) ? 204 : 500).end();
  }
}).listen(Number(process.env.PORT ?? 8790), "127.0.0.1");

/** The bytes as they came, for the signature is over them; null when there are too many. */
async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Standard Webhooks 1.0.0: any one of the signatures, over id, time and bytes, made within the last five minutes. */
function isGenuine(headers, body) {
  const { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signatures } = headers;
  if (!id || !signatures || !/^\d{1,12}$/.test(timestamp ?? "")) return false;
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_SECONDS) return false;
  const mac = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64");
  const expected = Buffer.from(`v1,${mac}`);
  return signatures.split(" ").some((text) => {
    const offered = Buffer.from(text);
    return offered.length === expected.length && timingSafeEqual(offered, expected);
  });
}

/** Whether the event is safe with us. Only then say 2xx: after anything else it comes again. */
function accept(webhookId, body) {
  try {
    const { data, relay } = JSON.parse(body); // the relay's own notices (relay.*) have no `relay`
    const order = relay ? { houdiniId: data.houdiniId, orderSequence: relay.orderSequence } : {};
    // As text, because a double would keep only 16 digits of an amount.
    take({ webhookId, ...order, body: body.toString() });
    return true;
  } catch (error) {
    console.error("not stored:", error);
    return false;
  }
}

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
