"""A served admin room with a real store and a scripted upstream, and short ways to ask it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from support.stores import Bench

from relay.admin.app import Admin
from relay.admin.compare import SeenOrder
from relay.admin.context import Context
from relay.board import Board, UpstreamState
from relay.clock import Clock, SystemClock
from relay.config import AdminSettings, TargetSettings
from relay.metrics import Metrics
from relay.model import Attempt, KnownOrder, Outcome
from relay.secret import Secret
from relay.standing import Resume
from relay.store.sqlite import SqliteStore
from relay.vitals import Vitals

TOKEN = "canary-admin-token-1234"
KEY_IN_URL = "canary-key-in-path"
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class ScriptedSource:
    """An upstream for the audit: `orders` is what REST shows."""

    settling = 0.05

    def __init__(self) -> None:
        self.orders: dict[str, SeenOrder] = {}
        self.reason: str | None = None
        self.ingested: list[SeenOrder] = []
        self.error: Exception | None = None
        self.windows = 0
        self.on_one: Any = None

    def show(self, houdini_id: str, status: int, created_ms: int | None = 0, **fields: Any) -> None:
        values = {"status": status, **fields}
        self.orders[houdini_id] = SeenOrder(houdini_id, status, values, b"{}", created_ms, 0.0)

    async def not_ready(self) -> str | None:
        return self.reason

    async def window(self, since_ms: int) -> AsyncIterator[Sequence[SeenOrder]]:
        self.windows += 1
        if self.error is not None:
            raise self.error
        for seen in list(self.orders.values()):
            if seen.created_ms is None or seen.created_ms >= since_ms:
                yield [seen]

    async def one(self, houdini_id: str) -> SeenOrder | None:
        if self.on_one is not None:
            await self.on_one(houdini_id)
        return self.orders.get(houdini_id)

    async def ingest(self, orders: Sequence[SeenOrder]) -> None:
        self.ingested += orders

    def last_webhook_id(self, known: KnownOrder) -> str:
        return f"evt_{known.houdini_id}_{known.sequence}"


class ScriptedControl:
    """An engine that does nothing but what the store does."""

    def __init__(self, room: "AdminRoom") -> None:
        self._room = room
        self.woken: list[str] = []
        self.answer = Attempt(at_ms=1_000, duration_ms=12.5, outcome=Outcome.OK, status_code=200)

    async def pause(self, target: str) -> bool:
        return await self._room.store.pause(target, self._room.clock.wall_ms())

    async def resume(self, target: str) -> Resume:
        if any(one.name == target and one.paused for one in self._room.targets):
            return Resume.PAUSED_BY_CONFIG
        return await self._room.store.resume(target, self._room.clock.wall_ms())

    async def test(self, target: str) -> Attempt:
        return self.answer

    def wake(self, target: str) -> None:
        self.woken.append(target)


def target(name: str, **changes: Any) -> TargetSettings:
    values = {"url": f"https://shop.example.com/hooks/{KEY_IN_URL}", "secrets": [WEBHOOK_SECRET], **changes}
    return TargetSettings.model_validate({"name": name, **values})


class AdminRoom:
    """A board that is fine, two targets, and the server on a port of its own."""

    def __init__(
        self, folder: Path, *, token: str | Secret | None = TOKEN, clock: Clock | None = None, **admin: Any
    ) -> None:
        self.clock = clock or SystemClock()
        self.store = SqliteStore(folder / "relay.db", self.clock.wall_ms, lambda _seconds: None)
        self.bench = Bench(lambda: self.store)
        self.board = Board()
        self.metrics = Metrics("1.2.3")
        self.source = ScriptedSource()
        self.sweeps: list[str] = []
        self.targets = [target("alpha"), target("beta")]
        self.control = ScriptedControl(self)
        self.keys: dict[str, list[str]] = {}
        secret = Secret.of(token) if isinstance(token, str) else token
        self.settings = AdminSettings(listen=("127.0.0.1", 0), **admin).model_copy(update={"token": secret})
        context = Context(
            settings=self.settings,
            version="1.2.3",
            targets=lambda: self.targets,
            store=self.store,
            board=self.board,
            metrics=self.metrics,
            clock=self.clock,
            want_sweep=self.want_sweep,
            audit_source=self.source,
            control=self.control,
            public_keys=lambda: self.keys,
            vitals=Vitals(lambda: self.store.check_alive(), self.board, self.clock, lambda _lag: None),
        )
        self.admin = Admin(("127.0.0.1", 0), context)
        self.be_fine()

    async def want_sweep(self, reason: str) -> None:
        self.sweeps.append(reason)

    def be_fine(self) -> None:
        upstream = self.board.upstream
        upstream.state, upstream.epoch, upstream.since_ms = UpstreamState.SUBSCRIBED, 1, self.clock.wall_ms()
        upstream.first_sweep_done = upstream.in_sync = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.admin.port}"

    @property
    def reachable(self) -> AdminSettings:
        """The settings as a configuration would have them that names the port."""
        return self.settings.model_copy(update={"listen": ("127.0.0.1", self.admin.port)})

    async def ask(
        self, method: str, path: str, *, token: str | None = TOKEN, headers: Any = None, **sent: Any
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        given = dict(headers or {})
        if token is not None:
            given.setdefault("authorization", f"Bearer {token}")
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.request(method, self.url + path, headers=given, **sent) as answer,
        ):
            text = await answer.text()
            return answer.status, await answer.json() if text and answer.content_type.endswith("json") else text, answer

    async def get(self, path: str) -> tuple[int, Any]:
        status, document, _ = await self.ask("GET", path)
        return status, document

    async def read(self, path: str) -> bytes:
        """The bytes of an answer."""
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession() as session, session.get(self.url + path, headers=headers) as answer:
            return await answer.read()

    async def post(self, path: str, body: Any = None, **sent: Any) -> tuple[int, Any]:
        status, document, _ = await self.ask("POST", path, json={} if body is None else body, **sent)
        return status, document


@asynccontextmanager
async def served(folder: Path, **changes: Any) -> AsyncIterator[AdminRoom]:
    room = AdminRoom(folder, **changes)
    await room.bench.open([one.name for one in room.targets])
    await room.admin.start()
    try:
        yield room
    finally:
        await room.admin.stop()
        await room.store.close()
