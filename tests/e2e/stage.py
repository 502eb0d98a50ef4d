"""The real process between a simulated upstream and a verifying receiver, all over real sockets."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import psutil
import yaml
from support.until import until

from relay.clock import SystemClock
from relay.simulator.child import RUN_RELAY, RelayProcess, free_port
from relay.simulator.player import Player
from relay.simulator.receiver import Receiver
from relay.simulator.server import SimulatedUpstream
from relay.simulator.verdict import History, Verdict, judge
from relay.simulator.world import World

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PARTNER, UPSTREAM_SECRET = "e2e-partner", "e2e-upstream-secret"


class SteppedClock(SystemClock):
    """The machine's clock, its wall time set by hand to another hour."""

    steps_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.steps_ms


class Stage:
    """Start it with `async with`; `relay` is the child process."""

    def __init__(self, folder: Path, seed: int = 1, command: Sequence[str] = (), **changes: Any) -> None:
        """Prepare.

        Args:
            folder: where configuration, store and log of the relay go.
            seed: picks orders and their lives.
            command: what runs the relay's command, as in `env NAME=value`.
            changes: `more_targets` and members of `upstream` to set.
        """
        self.folder = folder
        self.clock = SystemClock()
        self.rng = Random(seed)
        self.world = World(self.clock, self.rng)
        self.receiver_clock = SteppedClock()
        self.upstream = SimulatedUpstream(self.world, partner_id=PARTNER, secret=UPSTREAM_SECRET)
        self.receiver = Receiver([SECRET], clock=self.receiver_clock, rng=self.rng, kept_bytes=1 << 30)
        self.admin_port = free_port()
        self.targets = ["shop"]
        self.deaf_since: list[float] = []  # monotonic moments at which whoever was connected stopped reading
        self.unstored = 0.0  # seconds for which a frame may have waited for the store then
        self._changes = changes
        self._command = (*command, *RUN_RELAY)

    async def __aenter__(self) -> "Stage":
        await self.upstream.start()
        await self.receiver.start()
        self.config = self.folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(self.settings()))
        self.relay = RelayProcess(self.config, self.folder / "relay.log", self.admin_port, self._command)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.relay.stop()
        await self.receiver.stop()
        await self.upstream.stop()

    def settings(self) -> dict[str, Any]:
        target = {
            "name": "shop",
            "url": f"http://127.0.0.1:{self.receiver.port}/shop",
            "secrets": [SECRET],
            "timeout": "5s",
            "retry": {"schedule": ["200ms", "500ms", *["1s"] * 40]},
            "breaker": {"probe": {"initial": "200ms", "max": "1s"}},
        }
        return {
            "upstream": {
                "websocket_url": self.upstream.websocket_url,
                "rest_url": self.upstream.rest_url,
                "partner_id": PARTNER,
                "secret": UPSTREAM_SECRET,
                "reconnect": {"initial": "100ms", "max": "1s"},
                "backfill": {"interval": "5s", "requests_per_minute": 6000},
                **self._changes.get("upstream", {}),
            },
            "store": {"url": f"sqlite:///{self.folder / 'relay.db'}"},
            "targets": [target, *self._changes.get("more_targets", [])],
            "admin": {"listen": f"127.0.0.1:{self.admin_port}"},
            "log": {"format": "json"},
        }

    async def start_relay(self) -> None:
        await self.relay.start()
        await self.relay.until_ready()

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.relay.pid)

    async def kill_relay(self) -> None:
        """SIGKILL: no chance to finish anything."""
        await self.relay.kill()

    def player(self, orders: int, rate: float) -> Player:
        return Player(self.world, orders=orders, rate=rate, rng=self.rng, clock=self.clock)

    def verdict(self) -> Verdict:
        return judge(self._history(), self.receiver.arrivals, self.targets)

    def _history(self) -> History:
        """Frames that were written to a process which was frozen were shown to nobody, and some before that."""
        history = History.of(self.world)
        epochs = dict(history.epochs)
        for moment in self.deaf_since:
            for number, epoch in epochs.items():
                if epoch.started <= moment and (epoch.ended is None or epoch.ended > moment):
                    epochs[number] = replace(epoch, ended=moment - self.unstored)
        return replace(history, epochs=epochs)

    async def until_all_delivered(self, seconds: float = 40.0, pause: float = 0.5) -> None:
        """Until the end state of every order, and everything visible, has been acknowledged."""

        def nothing_is_missing() -> bool:
            return not self.verdict().lost and not self.missing_ends()

        await until(nothing_is_missing, seconds, pause=pause)

    def missing_ends(self) -> list[str]:
        """Orders whose last change has not been acknowledged, changes before the first subscription aside."""
        bodies: dict[str | None, list[bytes]] = {}
        for arrival in self.receiver.arrivals:
            if arrival.acknowledged:
                bodies.setdefault(arrival.houdini_id, []).append(arrival.body)
        since = self.world.first_subscribed_at or 0.0
        ends = [order.changes[-1] for order in self.world.orders.values() if order.changes[-1].at >= since]
        return [
            end.houdini_id
            for end in ends
            if not any(sent in body for body in bodies.get(end.houdini_id, []) for sent in end.bodies)
        ]
