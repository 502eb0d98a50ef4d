"""The WebSocket half of the stand-in upstream: upgrade, conversation, pushes, and how they go wrong."""

import asyncio
import contextlib
import json
from typing import Final, NamedTuple

from aiohttp import WSCloseCode, WSMsgType, web

from relay.simulator.faults import RESET, Action, Faults
from relay.simulator.subscription import Subscription
from relay.simulator.world import Change, World

_OUTBOX_FRAMES: Final = 20_000
_CLIENT_MESSAGE_BYTES: Final = 64 * 1024
_CLOSE_SECONDS: Final = 2.0
_HELD_BACK_SECONDS: Final = 0.5
_AUTH_FAILED_CLOSE: Final = 4401
_ODD_FRAMES: Final = {
    Action.GARBAGE: b'{"type":"order_update","data":{"houdiniId":',
    Action.OVERSIZED: b'{"type":"order_update","data":{"padding":"' + b"x" * (2 << 20) + b'"}}',
    Action.BINARY: b"\x00\x01\xfe\xff",
    Action.UNKNOWN_TYPE: b'{"type":"maintenance_notice","message":"back soon"}',
    Action.BAD_ORDER: b'{"type":"order_update","data":{"houdiniId":7,"status":"soon"}}',
}


class _Outgoing(NamedTuple):
    frame: bytes
    opcode: WSMsgType = WSMsgType.TEXT
    change: Change | None = None
    confirms: bool = False


class Connection:
    """One client's socket, from its upgrade to its end."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request, world: World, faults: Faults) -> None:
        self._socket = socket
        self._request = request
        self._world = world
        self._faults = faults
        self._subscription = Subscription()
        self._outbox: asyncio.Queue[_Outgoing] = asyncio.Queue(_OUTBOX_FRAMES)
        self._pushes = 0
        self._held_back: Change | None = None
        self._release: asyncio.TimerHandle | None = None
        self._epoch = world.epoch_started(self)

    async def serve(self, partner_id: str) -> None:
        """Greet, then answer and push until the client or a fault ends it."""
        writer = asyncio.create_task(self._write(), name=f"simulator-writer-{self._epoch}")
        try:
            if not self._faults.no_welcome:
                self._say({"type": "welcome", "partnerId": partner_id})
            async for message in self._socket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    self._answer(message.data)
        finally:
            self._world.epoch_ended(self._epoch, self)
            if self._release is not None:
                self._release.cancel()
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer

    def _answer(self, text: str | bytes) -> None:
        reply = self._subscription.answer(text, self._faults.all_marker)
        silent = {"subscribed": self._faults.no_subscribed, "pong": self._faults.no_pong}
        if not silent.get(reply["type"], False):
            self._say(reply)

    def _say(self, message: dict[str, object]) -> None:
        if not self._faults.mute:
            frame = json.dumps(message, separators=(",", ":")).encode()
            self._put(_Outgoing(frame, confirms=message["type"] == "subscribed"))

    def _put(self, outgoing: _Outgoing) -> None:
        try:
            self._outbox.put_nowait(outgoing)
        except asyncio.QueueFull:
            self.drop()

    async def _write(self) -> None:
        while True:
            outgoing = await self._outbox.get()
            try:
                await self._socket.send_frame(outgoing.frame, outgoing.opcode)
            except ConnectionError:
                return
            if outgoing.change is not None:
                self._world.pushed(outgoing.change, self._epoch)
            if outgoing.confirms:
                self._world.subscribed()

    def push(self, change: Change) -> None:
        """Send a change if it is wanted, as the faults have it."""
        if self._faults.mute or not self._subscription.wants(change.houdini_id):
            return
        self._pushes += 1
        if self._faults.drop_every and self._pushes % self._faults.drop_every == 0:
            return
        if self._faults.reorder and self._held_back is None:
            self._held_back = change
            self._release = asyncio.get_running_loop().call_later(_HELD_BACK_SECONDS, self._let_go)
            return
        self._enqueue(change)
        self._let_go()

    def _let_go(self) -> None:
        held, self._held_back = self._held_back, None
        if self._release is not None:
            self._release.cancel()
        if held is not None:
            self._enqueue(held)

    def _enqueue(self, change: Change) -> None:
        frame = b'{"type":"order_update","data":' + change.body + b"}"
        opcode = WSMsgType.BINARY if self._faults.binary_pushes else WSMsgType.TEXT
        for _ in range(1 + self._faults.double_pushes):
            self._put(_Outgoing(frame, opcode, change))

    def act(self, action: Action) -> None:
        """Do to this socket what no documented server would, closing aside."""
        if action is Action.DROP:
            self.drop()
        else:
            opcode = WSMsgType.BINARY if action is Action.BINARY else WSMsgType.TEXT
            self._put(_Outgoing(_ODD_FRAMES[action], opcode))

    def drop(self) -> None:
        """Reset the connection: no close frame, what is not yet sent is gone."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def close(self, code: int) -> None:
        """Close in good order, for at most a few seconds."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._socket.close(code=code)
        except TimeoutError:
            self.drop()


class Sockets:
    """All clients' sockets."""

    def __init__(self, world: World, faults: Faults, partner_id: str, secret: str) -> None:
        self._world = world
        self._faults = faults
        self._partner_id = partner_id
        self._credentials = f"{partner_id}:{secret}"
        self._open: set[Connection] = set()
        self.upgrades = 0

    @property
    def count(self) -> int:
        """How many sockets are open."""
        return len(self._open)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """`GET /v2/ws`."""
        self.upgrades += 1
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        try:
            return await self._serve(request)
        except ConnectionResetError:
            # The client has left: nobody reads an answer, and nothing is wrong here.
            return web.Response()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(timeout=_CLOSE_SECONDS, max_msg_size=_CLIENT_MESSAGE_BYTES, compress=False)
        await socket.prepare(request)
        if request.headers["Authorization"] != self._credentials:
            error = {"type": "error", "code": "AUTH_FAILED", "message": "Invalid credentials"}
            await socket.send_str(json.dumps(error))
            await socket.close(code=_AUTH_FAILED_CLOSE, message=b"AUTH_FAILED")
            return socket
        connection = Connection(socket, request, self._world, self._faults)
        self._open.add(connection)
        try:
            await connection.serve(self._partner_id)
        finally:
            self._open.discard(connection)
        return socket

    def _refusal(self, request: web.Request) -> web.Response | None:
        status = self._faults.take_refusal()
        if status == RESET and request.transport is not None:
            request.transport.abort()
        if status is not None:
            return _refused(status or 503, "refused by a fault switch")
        if "Authorization" not in request.headers:
            return _refused(401, "Missing Authorization header")
        partner_id, _, secret = request.headers["Authorization"].partition(":")
        if not partner_id or not secret:
            return _refused(400, "Authorization must be partnerId:secret")
        return None

    async def act(self, action: Action) -> None:
        """Do something to every open socket."""
        connections = tuple(self._open)
        if action is Action.CLOSE:
            await asyncio.gather(*(connection.close(self._faults.close_code) for connection in connections))
        else:
            for connection in connections:
                connection.act(action)

    async def close(self) -> None:
        """Close every socket, going away."""
        await asyncio.gather(*(connection.close(WSCloseCode.GOING_AWAY) for connection in tuple(self._open)))


def _refused(status: int, message: str) -> web.Response:
    return web.json_response({"code": "UPGRADE_REFUSED", "message": message}, status=status)
