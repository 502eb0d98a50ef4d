"""What leaves the relay, over a real socket, is accepted by the official verifiers of Standard Webhooks."""

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import time

import pytest
import standardwebhooks
import svix
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from reach_kit import ORDER, a_client, a_delivery, a_target
from support.needs import require_tool

from relay.delivery.signer import new_ed25519_pair, new_secret

OLD, NEW, FOREIGN = new_secret(b"o" * 32), new_secret(bytes(range(32))), new_secret(b"f" * 64)
PAIR, PUBLIC = new_ed25519_pair(b"e" * 32)

VERIFIER = """
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
const require = createRequire(process.argv[2] + "/");
const { Webhook } = require(process.argv[3]);
const cases = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(cases.map(([secret, headers, body]) => {
  try { new Webhook(secret).verify(Buffer.from(body, "base64").toString(), headers); return true; }
  catch { return false; }
})));
"""


class Receiver:
    """Answers 200 and keeps every request as it came off the wire."""

    async def __aenter__(self):
        self.requests = []
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hooks"
        return self

    async def __aexit__(self, *exc_info):
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
        pairs = [(name, value) for name, _, value in lines]
        body = await reader.readexactly(int(dict(pairs)["content-length"]))
        self.requests.append((head.split("\r\n")[0], pairs, body))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


async def sent(*secrets, attempts=1, **settings):
    """What arrives when a target with these secrets gets its attempts: [(request line, headers, body)]."""
    async with Receiver() as receiver:
        client = a_client(a_target(receiver.url, secrets=list(secrets), **settings))
        for number in range(attempts):
            await client.attempt(a_delivery(attempts_made=number))
        await client.close()
    return receiver.requests


async def one(*secrets, **settings):
    ((_, headers, body),) = await sent(*secrets, **settings)
    return dict(headers), body


async def cases():
    """(name, secret the receiver knows, headers, body, whether it is accepted)."""
    plain, body = await one(NEW)
    rotating, _ = await one(NEW, OLD)
    paired, _ = await one(PAIR, NEW)
    v1, v1a = paired["webhook-signature"].split(" ")
    unknown = {**plain, "webhook-signature": "v9,abc " + plain["webhook-signature"]}
    stale = {**plain, "webhook-timestamp": str(int(time.time()) - 3600)}
    return [
        ("v1", NEW, plain, body, True),
        ("rotation, new secret only", NEW, rotating, body, True),
        ("rotation, old secret only", OLD, rotating, body, True),
        ("v1 beside v1a", NEW, paired, body, True),
        ("an unknown version first", NEW, unknown, body, True),
        ("v1a alone", NEW, {**paired, "webhook-signature": v1a}, body, False),
        ("v1 of the pair alone", NEW, {**paired, "webhook-signature": v1}, body, True),
        ("a foreign secret", FOREIGN, rotating, body, False),
        ("a changed body", NEW, plain, body + b" ", False),
        ("a changed id", NEW, {**plain, "webhook-id": "evt_2"}, body, False),
        ("a stale timestamp", NEW, stale, body, False),
        ("no signature", NEW, {**plain, "webhook-signature": ""}, body, False),
    ]  # fmt: skip


@pytest.mark.parametrize("library", [standardwebhooks, svix], ids=["standardwebhooks", "svix"])
async def test_the_python_verifiers_agree(library):
    for name, secret, headers, body, expected in await cases():
        try:
            library.Webhook(secret).verify(body, headers)
            accepted = True
        except (standardwebhooks.WebhookVerificationError, svix.webhooks.WebhookVerificationError):
            accepted = False
        assert accepted is expected, name


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory):
    """A folder with both packages of npm."""
    require_tool("node")
    require_tool("npm")
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
    done = subprocess.run(
        [*command, "standardwebhooks@1", "svix@2"], capture_output=True, text=True, timeout=150, check=False, cwd=folder
    )
    if done.returncode != 0 and os.environ.get("REQUIRE_ALL"):
        pytest.fail(f"npm install failed: {done.stderr[-500:]}")
    if done.returncode != 0:
        pytest.skip("npm cannot install standardwebhooks and svix here")
    return folder


@pytest.mark.timeout(240)
@pytest.mark.parametrize("package", ["standardwebhooks", "svix"])
async def test_the_node_verifiers_agree(package, node_modules, tmp_path):
    script = tmp_path / "verify.mjs"
    script.write_text(VERIFIER)
    given = await cases()
    question = json.dumps([[secret, headers, base64.b64encode(body).decode()] for _, secret, headers, body, _ in given])
    node = shutil.which("node")
    done = await asyncio.to_thread(
        subprocess.run,
        [node, str(script), str(node_modules), package],
        input=question, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [expected for *_, expected in given], [name for name, *_ in given]


async def test_v1a_on_the_wire_verifies_with_the_public_key():
    headers, body = await one(NEW, PAIR)
    signature = base64.b64decode(headers["webhook-signature"].split(" v1a,")[1])
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(PUBLIC.removeprefix("whpk_")))
    key.verify(signature, content)


# The rules of Standard Webhooks 1.0.0 that docs/reliability.md lists, one test each.


async def test_a_webhook_is_a_post_with_the_body_as_signed():
    ((line, headers, body),) = await sent(NEW)
    assert line == "POST /hooks HTTP/1.1"
    assert ("content-length", str(len(body))) in headers
    assert ORDER in body


async def test_the_three_headers_come_once_and_in_lower_case():
    ((_, headers, _),) = await sent(NEW, OLD, PAIR)
    names = [name for name, _ in headers]
    assert [name for name in names if name.startswith("webhook-")] == [
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    ]
    assert len(set(names)) == len(names)


async def test_the_id_is_the_same_for_every_attempt():
    requests = await sent(NEW, attempts=3)
    assert {dict(headers)["webhook-id"] for _, headers, _ in requests} == {"evt_1"}
    assert [dict(headers)["relay-attempt"] for _, headers, _ in requests] == ["1", "2", "3"]


async def test_the_timestamp_is_the_attempts_own_in_unix_seconds():
    before = int(time.time())
    headers, _ = await one(NEW)
    assert re.fullmatch(r"[0-9]+", headers["webhook-timestamp"])
    assert before <= int(headers["webhook-timestamp"]) <= time.time()


async def test_signatures_are_versioned_base64_separated_by_single_spaces():
    headers, _ = await one(PAIR, NEW, OLD)
    v1, v1a = "v1,[A-Za-z0-9+/]{43}=", "v1a,[A-Za-z0-9+/]{86}=="
    assert re.fullmatch(f"{v1} {v1} {v1a}", headers["webhook-signature"])


async def test_id_timestamp_and_body_are_signed_as_they_are_sent():
    headers, body = await one(NEW)
    signer = standardwebhooks.Webhook(NEW)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        signer.verify(body.replace(b"h9", b"h8"), headers)
    assert signer.verify(body, headers)["type"] == "order.finished"


@pytest.mark.parametrize(
    ("format", "kind"),
    [
        ("standard", "application/json"),
        ("raw", "application/json"),
        ("cloudevents", "application/cloudevents+json"),
        ("slack", "application/json"),
    ],
)
async def test_the_body_is_json_and_its_type_says_so(format, kind):
    headers, body = await one(NEW, format=format)
    assert headers["content-type"] == kind
    json.loads(body)
    standardwebhooks.Webhook(NEW).verify(body, headers)


async def test_a_standard_body_has_type_timestamp_and_data():
    _, body = await one(NEW)
    payload = json.loads(body)
    assert re.fullmatch(r"[a-zA-Z0-9_]+(\.[a-zA-Z0-9_]+)*", payload["type"])
    assert payload["timestamp"] == "2026-11-22T07:04:50.123Z"
    assert payload["data"]["houdiniId"] == "h9"
