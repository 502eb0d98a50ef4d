"""The other side of a packaged relay: `houdini-relay simulate` and `listen` as processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from relay.simulator.child import free_port

WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
UPDATES_PER_SECOND = "10"


def wait_for(fact: Callable[[], object], seconds: float, what: str) -> None:
    """Return once `fact()` is true; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


class StandIns:
    """A simulated upstream that plays orders all the time, and a receiver that verifies what it gets."""

    def __init__(self, folder: Path) -> None:
        self.simulator_output = folder / "simulate.out"
        self.receiver_output = folder / "listen.out"
        self.receiver_port = free_port()

    @property
    def upstream(self) -> dict[str, Any]:
        """The configuration's `upstream`, as the simulator prints it."""
        printed = yaml.safe_load(self.simulator_output.read_text(encoding="utf-8")) or {}
        return dict(printed.get("upstream") or {})

    def settings(self, admin_port: int, secret: Any, target: str = "shop") -> dict[str, Any]:
        """A relay's configuration; `secret` is the upstream's, in any of the forms of a secret."""
        return {
            "upstream": {
                **self.upstream,
                "secret": secret,
                "reconnect": {"initial": "100ms", "max": "1s"},
                "backfill": {"requests_per_minute": 6000},
            },
            "targets": [
                {
                    "name": target,
                    "url": f"http://127.0.0.1:{self.receiver_port}/{target}",
                    "secrets": [WEBHOOK_SECRET],
                    "retry": {"schedule": ["200ms", *["1s"] * 40]},
                }
            ],
            "admin": {"listen": f"127.0.0.1:{admin_port}"},
            "log": {"format": "json"},
        }

    def arrivals(self) -> list[dict[str, Any]]:
        """Every delivery so far; a line that is still being written is left for later."""
        lines = self.receiver_output.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def until_more_arrive(self, seconds: float = 30) -> None:
        """Wait for three deliveries from now on, all verified."""
        before = len(self.arrivals())
        wait_for(lambda: len(self.arrivals()) >= before + 3, seconds, "three more deliveries")
        assert all(one["verified"] for one in self.arrivals()[before:])


@contextmanager
def stand_ins(folder: Path, inside: Sequence[str] = ()) -> Iterator[StandIns]:
    """Start both; `inside` is what runs a command elsewhere, as `ip netns exec NAME`."""
    pair = StandIns(folder)
    listen = ("listen", "--port", str(pair.receiver_port), "--json", "--secret", WEBHOOK_SECRET)
    simulate = ("simulate", "--port", "0", "--orders", "1000000", "--rate", UPDATES_PER_SECOND)
    with ExitStack() as running:
        for output, command in ((pair.receiver_output, listen), (pair.simulator_output, simulate)):
            running.enter_context(_relay_command((*inside, sys.executable, "-m", "relay", *command), output))
        wait_for(lambda: pair.upstream, 20, "the simulator's settings")
        yield pair


@contextmanager
def _relay_command(command: Sequence[str], output: Path) -> Iterator[None]:
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
