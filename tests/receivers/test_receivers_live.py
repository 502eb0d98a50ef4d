"""The real relay delivers to real receivers, one of which dies on the way: only a file and commands, as a user has."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from receiver_kit import EXAMPLES, JOURNAL, PATH, SECRET, SQLITE, Receiver
from support.needs import require_tool

from relay.simulator.child import free_port

pytestmark = [pytest.mark.machine, pytest.mark.timeout(120)]
ENOUGH = 60
"""Events to wait for."""


@contextmanager
def command(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`houdini-relay` with these arguments."""
    with (folder / f"{arguments[0]}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "relay", *arguments], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def until(fact: Callable[[], bool], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def configuration(folder: Path, upstream_port: int, receivers: Sequence[Receiver]) -> Path:
    here = f"127.0.0.1:{upstream_port}"
    targets = [
        {
            "name": f"receiver-{number}",
            "url": f"http://127.0.0.1:{receiver.port}{PATH}",
            "secrets": [SECRET],
            "events": ["order.*", "relay.*"],
            "retry": {"schedule": ["200ms", "500ms", *["1s"] * 40]},
        }
        for number, receiver in enumerate(receivers)
    ]
    upstream = {
        "websocket_url": f"ws://{here}/v2/ws",
        "rest_url": f"http://{here}/v2",
        "partner_id": "demo-partner",
        "secret": "demo-secret",
        "backfill": {"requests_per_minute": 6000},
    }
    settings = {
        "upstream": upstream,
        "store": {"url": f"sqlite:///{folder / 'relay.db'}"},
        "targets": targets,
        "admin": {"listen": None},
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


@pytest.fixture
def receivers(tmp_path: Path) -> Iterator[tuple[Receiver, Receiver]]:
    require_tool("php")
    require_tool("node")
    (tmp_path / "php").mkdir()
    (tmp_path / "node").mkdir()
    php = ["php", "-S", "127.0.0.1:{port}", str(EXAMPLES / "php" / "receiver.php")]
    node = [str(shutil.which("node")), str(EXAMPLES / "node-http" / "receiver.mjs")]
    made = Receiver(php, SQLITE, tmp_path / "php"), Receiver(node, JOURNAL, tmp_path / "node")
    try:
        for one in made:
            one.start()
        yield made
    finally:
        for one in made:
            one.kill()


def test_real_deliveries_arrive_once_and_in_order_though_a_receiver_dies(
    tmp_path: Path, receivers: tuple[Receiver, Receiver]
):
    php, node = receivers
    port = free_port()
    simulate = ("simulate", "--port", str(port), "--orders", "400", "--rate", "40", "--seed", "7")
    config = configuration(tmp_path, port, receivers)
    with command(tmp_path, *simulate), command(tmp_path, "run", "-c", str(config)) as relay:
        until(lambda: len(php.taken()) > ENOUGH // 3)
        php.kill()
        at_death = len(node.taken())
        until(lambda: len(node.taken()) > at_death + ENOUGH // 3)
        php.start(port=php.port)
        until(lambda: min(len(php.taken()), len(node.taken())) > ENOUGH)
        relay.terminate()
        assert relay.wait(40) == 0
    for one in receivers:
        taken = one.taken()
        assert len({webhook_id for webhook_id, _ in taken}) == len(taken)
        sequences: dict[str, list[int]] = {}
        for _, body in taken:
            event = json.loads(body)
            if "relay" in event:
                sequences.setdefault(event["data"]["houdiniId"], []).append(event["relay"]["orderSequence"])
        assert all(found == list(range(1, len(found) + 1)) for found in sequences.values())
        assert sum(map(len, sequences.values())) > ENOUGH // 2
