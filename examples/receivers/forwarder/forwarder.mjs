// Stands before a no-code tool that cannot verify: passes on what houdini-relay signed, and nothing else.
// It keeps nothing. The tool's answer is the relay's answer, so what the tool did not take comes again.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const MAX_BODY = 1024 * 1024;
const TOLERANCE_SECONDS = 5 * 60;
const TOOL_TIMEOUT_MS = 10_000; // below the target's `timeout` (15 s): the relay should hear of it from us

const key = Buffer.from((process.env.RELAY_SECRET ?? "").replace(/^whsec_/, ""), "base64");
if (key.length < 24) throw new Error("RELAY_SECRET is missing or damaged"); // never verify with an empty key
const toolUrl = new URL(process.env.FORWARD_URL); // a secret: who knows it can post to the tool
const toolHeaders = JSON.parse(process.env.FORWARD_HEADERS ?? "{}"); // as in {"x-make-apikey": "..."}

createServer(async (request, response) => {
  const body = await read(request).catch(() => undefined); // the sender went away
  if (body === null) {
    response.writeHead(413, { connection: "close" }).end();
  } else if (body === undefined || !isGenuine(request.headers, body)) {
    response.writeHead(401).end();
  } else {
    const { status, headers } = await forward(request.headers["webhook-id"], body);
    response.writeHead(status, headers).end();
  }
}).listen(Number(process.env.PORT ?? 8790), "127.0.0.1");

/** What the relay should be told. */
async function forward(webhookId, body) {
  try {
    // Redirects are followed: a Google Apps Script does its work first and then redirects to its output.
    const answer = await fetch(toolUrl, {
      method: "POST",
      headers: { ...toolHeaders, "content-type": "application/json", "webhook-id": webhookId },
      body,
      signal: AbortSignal.timeout(TOOL_TIMEOUT_MS),
    });
    await answer.body?.cancel();
    if (answer.ok) return { status: 204 };
    console.error(`the tool answered ${answer.status}`);
    const after = answer.headers.get("retry-after");
    // 429 slows the relay down. No other status is passed on: some of them would end the event, or park the target.
    return { status: answer.status === 429 ? 429 : 502, headers: after === null ? {} : { "retry-after": after } };
  } catch (error) {
    console.error("the tool did not answer:", error.cause?.code ?? error.name); // a message could hold its URL
    return { status: 502 };
  }
}

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
