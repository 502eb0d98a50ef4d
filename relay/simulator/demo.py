"""The demonstration: upstream, relay and receiver over real sockets, with trouble on the way, and a verdict.

Upstream and receiver run in this process, the relay as a real child process, so that what is shown is
what a user would run.
"""

import asyncio
import base64
import secrets
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import yaml

from relay.clock import Clock
from relay.simulator.child import RUN_RELAY, ChildFailed, RelayProcess, free_port
from relay.simulator.defaults import PARTNER
from relay.simulator.faults import Action
from relay.simulator.player import Player
from relay.simulator.receiver import Arrival, Receiver
from relay.simulator.server import SimulatedUpstream
from relay.simulator.verdict import History, Verdict, judge
from relay.simulator.world import World

_TARGET: Final = "shop"
_BORN_BEFORE: Final = 5
_OUTAGE_AT: Final = 0.3
_OUTAGE_SECONDS: Final = 3.0
_FAILURE_AT: Final = 0.6
_FAILURE_SECONDS: Final = 3.0
_KILL_AFTER_SECONDS: Final = 1.0
_SETTLE_SECONDS: Final = 45.0
_SETTLE_POLL_SECONDS: Final = 0.5
_POLL_SECONDS: Final = 0.1


def _nothing(_: object) -> None:
    pass


class Demo:
    """One run of it.

    Attributes:
        metrics_url: where the relay's metrics are; `/readyz` is beside it.
        stop_requested: set it to end a demo that keeps running.
        world: the orders.
        receiver: what came in.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        orders: int = 60,
        rate: float = 20.0,
        calm: bool = False,
        keep_running: bool = False,
        seed: int | None = None,
        on_arrival: Callable[[Arrival], None] = _nothing,
        say: Callable[[str], None] = _nothing,
        command: Sequence[str] = RUN_RELAY,
    ) -> None:
        """Prepare.

        Args:
            clock: time for everything but the relay.
            orders: how many new orders live their lives, besides a few that exist before.
            rate: updates per second.
            calm: no outage, no failing receiver, no kill -9.
            keep_running: after the last delivery, leave everything up until `stop_requested`.
            seed: makes the orders' lives repeatable.
            on_arrival: told of each webhook as it is answered.
            say: told in a sentence what is going on.
            command: what starts the relay.
        """
        rng = Random(seed)
        self.world = World(clock, rng)
        self._clock = clock
        self._calm = calm
        self._keep_running = keep_running
        self._on_arrival = on_arrival
        self._say = say
        self._command = command
        self._webhook_secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        self._upstream_secret = secrets.token_urlsafe(16)
        self._admin_port = free_port()
        self._acknowledged: set[tuple[str, int]] = set()
        self._player = Player(self.world, orders=orders, rate=rate, rng=rng, clock=clock)
        self._upstream = SimulatedUpstream(self.world, partner_id=PARTNER, secret=self._upstream_secret)
        self.receiver = Receiver([self._webhook_secret], clock=clock, rng=rng, on_arrival=self._note)
        self.metrics_url = f"http://127.0.0.1:{self._admin_port}/metrics"
        self.stop_requested = asyncio.Event()

    async def run(self) -> Verdict:
        """Play it all; the verdict tells whether it went well, a relay that would not start included."""
        with tempfile.TemporaryDirectory(prefix="houdini-relay-demo-") as name:
            folder = Path(name)
            try:
                await self._upstream.start()
                await self.receiver.start()
                config = folder / "config.yaml"
                config.write_text(yaml.safe_dump(self._config(folder), sort_keys=False))
                relay = RelayProcess(config, folder / "relay.log", self._admin_port, self._command)
                return await self._with_relay(relay)
            finally:
                await self.receiver.stop()
                await self._upstream.stop()

    async def _with_relay(self, relay: RelayProcess) -> Verdict:
        unfinished: list[str] = []
        history = None
        try:
            await relay.start()
            await relay.while_alive(self._first_act(relay))
            unfinished += await relay.while_alive(self._settle())
            history = History.of(self.world)
            if self._keep_running:
                self._say(f"Everything stays up until you stop it. Metrics: {self.metrics_url}")
                await relay.while_alive(self._linger())
        except ChildFailed as failure:
            unfinished.append(str(failure))
        finally:
            code = await relay.stop()
        if code != 0:
            unfinished.append(f"the relay's exit code was {code}")
        verdict = judge(history or History.of(self.world), self.receiver.arrivals, [_TARGET])
        if self.receiver.forgotten:
            unfinished.append(f"{self.receiver.forgotten} arrivals were too many to keep, so they are not judged")
        verdict.unfinished += unfinished
        if not verdict.ok:
            for line in relay.last_words():
                self._say(f"relay: {line}")
        return verdict

    def _config(self, folder: Path) -> dict[str, Any]:
        return {
            "upstream": {
                "websocket_url": self._upstream.websocket_url,
                "rest_url": self._upstream.rest_url,
                "partner_id": PARTNER,
                "secret": self._upstream_secret,
                "heartbeat": {"interval": "5s", "timeout": "3s"},
                "reconnect": {"initial": "200ms", "max": "2s"},
                "backfill": {"first_start": "baseline", "interval": "10s", "requests_per_minute": 600},
            },
            "store": {"url": f"sqlite:///{folder / 'relay.db'}"},
            "targets": [
                {
                    "name": _TARGET,
                    "url": f"http://127.0.0.1:{self.receiver.port}/{_TARGET}",
                    "secrets": [self._webhook_secret],
                    "timeout": "5s",
                    "retry": {"schedule": ["1s", "1s", "2s", "3s", *["5s"] * 8], "jitter": 0.2},
                    "breaker": {"probe": {"initial": "1s", "max": "5s"}},
                }
            ],
            "admin": {"listen": f"127.0.0.1:{self._admin_port}"},
            "log": {"level": "info", "format": "json"},
        }

    async def _first_act(self, relay: RelayProcess) -> None:
        self._player.populate(_BORN_BEFORE)
        await relay.until_ready()
        self._say(f"The relay is ready. Metrics: {self.metrics_url}")
        async with asyncio.TaskGroup() as acts:
            acts.create_task(self._player.run(), name="demo-player")
            if not self._calm:
                acts.create_task(self._trouble(relay), name="demo-trouble")

    async def _trouble(self, relay: RelayProcess) -> None:
        await self._until_progress(_OUTAGE_AT)
        self._say(f"Trouble: the upstream resets the WebSocket and refuses new ones for {_OUTAGE_SECONDS:.0f} s.")
        self._upstream.faults.refuse_count = -1
        await self._upstream.act(Action.DROP)
        await self._clock.sleep(_OUTAGE_SECONDS)
        self._upstream.faults.refuse_count = 0
        await self._until_progress(_FAILURE_AT)
        self._say(f"Trouble: the receiver answers 500 for {_FAILURE_SECONDS:.0f} s.")
        self.receiver.misbehaviour.fail_until = self._clock.mono() + _FAILURE_SECONDS
        await self._clock.sleep(_KILL_AFTER_SECONDS)
        self._say("Trouble: the relay is killed with SIGKILL, deliveries waiting, and started again.")
        await relay.kill()
        await relay.start()

    async def _until_progress(self, share: float) -> None:
        while self._player.progress < share:
            await self._clock.sleep(_POLL_SECONDS)

    async def _settle(self) -> list[str]:
        """Wait until every order's end state was acknowledged, and nothing visible is missing."""
        self._say("All orders have come to their end; waiting for the last deliveries.")
        deadline = self._clock.mono() + _SETTLE_SECONDS
        while self._clock.mono() < deadline:
            if not self._open_orders() and not self._judge_now().lost:
                return []
            await self._clock.sleep(_SETTLE_POLL_SECONDS)
        open_orders = self._open_orders()
        return [f"{open_orders} end states were not acknowledged within {_SETTLE_SECONDS:.0f} s"] if open_orders else []

    def _open_orders(self) -> int:
        last = (order.changes[-1] for order in self.world.orders.values())
        return sum((change.houdini_id, change.index) not in self._acknowledged for change in last)

    def _judge_now(self) -> Verdict:
        return judge(History.of(self.world), self.receiver.arrivals, [_TARGET])

    async def _linger(self) -> None:
        await self.stop_requested.wait()

    def _note(self, arrival: Arrival) -> None:
        order = self.world.orders.get(arrival.houdini_id or "")
        if order is not None and arrival.acknowledged:
            carried = (change for change in order.changes if any(body in arrival.body for body in change.bodies))
            self._acknowledged.update((change.houdini_id, change.index) for change in carried)
        self._on_arrival(arrival)
