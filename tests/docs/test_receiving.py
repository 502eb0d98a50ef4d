"""The hand-written verifiers of docs/receiving.md do what they say; run where the language is there."""

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from relay.delivery.envelope import compose
from relay.delivery.signer import Signer, new_ed25519_pair
from relay.model import Event, OrderFacts, Origin
from relay.simulator.lifecycle import Kind, Stage
from relay.simulator.orders import at_stage, new_order

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DOCUMENT = (Path(__file__).parents[2] / "docs" / "receiving.md").read_text(encoding="utf-8")
RELIABILITY = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
BODY = '{"type":"order.new","data":{"houdiniId":"ö"}}'


def snippet(language: str, marker: str) -> str:
    found = [block for block in re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL) if marker in block]
    assert found, marker
    return str(found[-1])


def headers(secret: str, body: str, at: float) -> dict[str, str]:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"evt_1.{int(at)}.{body}".encode()
    mac = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": "evt_1", "webhook-timestamp": str(int(at)), "webhook-signature": f"v9,x v1,{mac}"}


PYTHON = (
    snippet("python", "def is_genuine(")
    + """
import json, sys
secret, headers, body = json.load(sys.stdin)
try: print("yes" if is_genuine(secret, headers, body.encode()) else "no")
except Exception: print("error")
"""
)
NODE = (
    snippet("js", "export function isGenuine")
    + """
import { readFileSync } from "node:fs";
const [secret, headers, body] = JSON.parse(readFileSync(0, "utf8"));
try { console.log(isGenuine(secret, headers, Buffer.from(body)) ? "yes" : "no"); } catch { console.log("error"); }
"""
)
PHP = (
    snippet("php", "php://input").split("$body = file_get_contents")[0]
    + """
[$secret, $headers, $body] = json_decode(stream_get_contents(STDIN), true);
try { echo is_genuine($secret, $headers, $body) ? 'yes' : 'no'; } catch (Throwable $error) { echo 'error'; }
"""
)
LANGUAGES = {"python": (sys.executable, "py", PYTHON), "node": ("node", "mjs", NODE), "php": ("php", "php", PHP)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_verifier_accepts_what_is_genuine_and_nothing_else(language: str, tmp_path: Path):
    program, ending, code = LANGUAGES[language]
    if shutil.which(program) is None:
        if os.environ.get("REQUIRE_ALL"):
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    script = tmp_path / f"verify.{ending}"
    script.write_text(code, encoding="utf-8")

    def ask(secret: str, given: dict[str, str], body: str) -> str:
        question = json.dumps([secret, given, body])
        done = subprocess.run(
            [program, str(script)], input=question, capture_output=True, text=True, timeout=30, check=False
        )
        return done.stdout.strip() or done.stderr

    now = time.time()
    genuine = headers(SECRET, BODY, now)
    assert ask(SECRET, genuine, BODY) == "yes"
    assert ask(SECRET, genuine, BODY + " ") == "no"
    assert ask(SECRET, headers(SECRET, BODY, now - 400), BODY) == "no"
    assert ask(SECRET, genuine | {"webhook-signature": "v1,"}, BODY) == "no"
    assert ask(SECRET, {}, BODY) == "no"
    assert ask("", headers("", BODY, now), BODY) == "error"


KEY = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="


def test_the_verifier_with_a_public_key():
    room: dict[str, Any] = {}
    exec(snippet("python", "def is_genuine_by_key"), room)  # noqa: S102 - the document's own program
    now, body = int(time.time()), BODY.encode()
    signed = Signer([SECRET, KEY]).sign("evt_1", now, body)
    genuine = {"webhook-id": "evt_1", "webhook-timestamp": str(now), "webhook-signature": signed}
    other = new_ed25519_pair(b"o" * 32)[1]
    verify = room["is_genuine_by_key"]
    assert verify(PUBLIC, genuine, body)
    assert not verify(PUBLIC, genuine, body + b" ")
    assert not verify(other, genuine, body)
    assert not verify(PUBLIC, genuine | {"webhook-signature": signed.split(" ")[0]}, body)
    assert not verify(PUBLIC, genuine | {"webhook-signature": "v1a,!"}, body)
    assert not verify(PUBLIC, genuine | {"webhook-timestamp": str(now - 400)}, body)


def test_every_rule_names_tests_that_exist():
    rules = RELIABILITY.split("\n## Standard Webhooks\n")[1].split("\n## ")[0]
    named = re.findall(r"`(test_\w+)`", rules)
    folder = Path(__file__).parents[1] / "integration"
    written = "\n".join((folder / name).read_text(encoding="utf-8") for name in ("test_conformance.py", "test_ssrf.py"))
    assert len(named) >= 14
    assert [name for name in named if f"def {name}(" not in written] == []


def test_the_example_has_the_members_of_an_order_and_of_an_event():
    (example,) = re.findall(r"```json\n(.+?)```", DOCUMENT, re.DOTALL)
    event = json.loads(example)
    rng = Random(1)
    order = new_order(Kind.CEX, 1795331090123, rng)
    for stage in (Stage(2, "SENDING_TO_RECEIVER", 4), Stage(4, "SWAP_COMPLETED", 5)):
        order = at_stage(order, stage, 1795331090123, rng)
    sometimes = {"receiverTag", "multiId"}
    assert set(event["data"]) == set(order) - sometimes
    for token in ("inToken", "outToken"):
        assert set(event["data"][token]) == set(order[token])
        assert set(event["data"][token]["network"]) == set(order[token]["network"])
    facts = OrderFacts(7, 4, 2, ("status",), Origin.WEBSOCKET)
    made = Event("evt_1", "h", "order.finished", 1795331090123, b"{}", facts)
    composed = json.loads(compose(made, "standard", "p"))
    assert [list(one) for one in (event, event["relay"])] == [list(one) for one in (composed, composed["relay"])]
    named = re.findall(
        r"`(?:relay\.)?(\w+)`", "".join(re.findall(r"^\| `(?:type|timestamp|data|relay\.).*?\|", DOCUMENT, re.M))
    )
    assert {*event, *event["relay"]} - {"relay"} == set(named)


def test_the_vectors_of_the_document_are_what_the_relay_signs():
    signed = Signer([SECRET, KEY]).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert all(f"`{signature}`" in DOCUMENT for signature in signed.split(" "))
    assert KEY in DOCUMENT
    assert PUBLIC in DOCUMENT
