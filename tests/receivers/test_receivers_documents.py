"""docs/receivers.md and the examples know each other, and what it says to paste works."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from receiver_events import FORGERIES, event
from receiver_kit import EXAMPLES, OTHER_SECRET, SECRET, signed
from support.needs import require_tool

DOCUMENT = (EXAMPLES.parents[1] / "docs" / "receivers.md").read_text(encoding="utf-8")
FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())
BODY = event("order-ž", 3)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_example_is_listed_and_says_how_it_is_run(folder: Path):
    assert f"(../examples/receivers/{folder.name}/)" in DOCUMENT
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 16
    assert "RELAY_SECRET" in text
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert link.startswith("http") or (folder / link).exists(), link


def code_step(headers: dict[str, str], body: bytes, secret: str = SECRET) -> dict[str, object] | None:
    """What the code step for no-code tools returns; None when it throws."""
    require_tool("node")
    (code,) = [block for block in re.findall(r"```js\n(.*?)```", DOCUMENT, re.DOTALL) if "inputData" in block]
    inputs = {
        "secret": secret,
        "id": headers.get("webhook-id", ""),
        "timestamp": headers.get("webhook-timestamp", ""),
        "signatures": headers.get("webhook-signature", ""),
        "body": body.decode(),
    }
    program = "const [code, inputs] = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
    program += "console.log(JSON.stringify(new Function('inputData', 'require', code)(inputs, require)));"
    done = subprocess.run(
        [str(shutil.which("node")), "-e", program], input=json.dumps([code, inputs]), capture_output=True, text=True,
        timeout=20, check=False,
    )  # fmt: skip
    return json.loads(done.stdout) if done.returncode == 0 else None


def test_the_code_step_takes_what_is_genuine():
    found = code_step(signed("evt_1", BODY, age=1800), BODY)
    assert found == {"id": "evt_1", "type": "order.new", "order": "order-ž", "sequence": 3, "body": BODY.decode()}


def test_the_code_step_throws_at_anything_else():
    for forge in FORGERIES.values():
        headers = signed("evt_1", BODY)
        forge(headers)
        assert code_step(headers, BODY) is None
    assert code_step(signed("evt_1", BODY, secret=OTHER_SECRET), BODY) is None
    assert code_step(signed("evt_1", BODY, age=4000), BODY) is None
    assert code_step(signed("evt_1", BODY), BODY + b" ") is None
    assert code_step(signed("evt_1", BODY), BODY, secret="whsec_") is None
