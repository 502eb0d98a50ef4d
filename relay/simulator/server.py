"""The stand-in upstream as one aiohttp server: WebSocket, REST, and a control endpoint for its faults."""

import dataclasses
import ipaddress
import json
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from relay.log_names import Log
from relay.simulator.faults import Action, Faults
from relay.simulator.rest import OrdersApi
from relay.simulator.sockets import Sockets
from relay.simulator.world import World

_log = structlog.get_logger()

_CONTROL_BODY_BYTES: Final = 64 * 1024
_SHUTDOWN_SECONDS: Final = 1.0


class SimulatedUpstream:
    """A faithful, scriptable server of the partner API.

    Attributes:
        world: the orders it shows.
        faults: its switches; change them at any time.
        port: where it listens, known after `start`.
    """

    def __init__(self, world: World, *, partner_id: str, secret: str, faults: Faults | None = None) -> None:
        self.world = world
        self.faults = faults or Faults()
        self.port = 0
        self._host = ""
        self._sockets = Sockets(world, self.faults, partner_id, secret)
        self._orders = OrdersApi(world, self.faults, partner_id, secret)
        self._runner: web.AppRunner | None = None

    @property
    def websocket_url(self) -> str:
        """What a client puts into `upstream.websocket_url`."""
        return f"ws://{self._host}:{self.port}/v2/ws"

    @property
    def rest_url(self) -> str:
        """What a client puts into `upstream.rest_url`."""
        return f"http://{self._host}:{self.port}/v2"

    @property
    def open_sockets(self) -> int:
        """How many clients are connected."""
        return self._sockets.count

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one.

        Raises:
            OSError: the address cannot be had.
        """
        app = web.Application(middlewares=[_no_browsers], client_max_size=_CONTROL_BODY_BYTES)
        app.router.add_get("/v2/ws", self._sockets.handle)
        app.router.add_get("/v2/orders", self._orders.list_orders)
        app.router.add_get("/v2/orders/{houdini_id}", self._orders.get_order)
        app.router.add_post("/control/faults", self._control)
        app.router.add_get("/control/state", self._state)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self._host, self.port = host, self._runner.addresses[0][1]
        _log.info(Log.SIMULATED_UPSTREAM_STARTED, websocket_url=self.websocket_url, rest_url=self.rest_url)

    async def stop(self) -> None:
        """Close every socket and stop listening."""
        await self._sockets.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def act(self, action: Action) -> None:
        """Do something to every open socket, once."""
        _log.info(Log.SIMULATED_FAULT, action=action.value, sockets=self.open_sockets)
        await self._sockets.act(action)

    async def _control(self, request: web.Request) -> web.Response:
        """`POST /control/faults`: `{"<switch>": value, ..., "actions": ["drop", ...]}`; answers the state."""
        _only_loopback(request)
        try:
            changes = json.loads(await request.read())
            if not isinstance(changes, dict):
                raise ValueError("an object is expected")
            actions = [Action(name) for name in changes.pop("actions", [])]
            self.faults.update(changes)
        except (ValueError, TypeError) as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        for action in actions:
            await self.act(action)
        return web.json_response(self.state())

    async def _state(self, request: web.Request) -> web.Response:
        _only_loopback(request)
        return web.json_response(self.state())

    def state(self) -> dict[str, Any]:
        """What `GET /control/state` answers: faults, orders per status, connections, requests so far."""
        changes = self.world.changes()
        return {
            "faults": dataclasses.asdict(self.faults),
            "orders": {str(status): count for status, count in self.world.status_counts().items()},
            "changes": len(changes),
            "frames_pushed": sum(len(change.pushes) for change in changes),
            "open_sockets": self.open_sockets,
            "upgrades": self._sockets.upgrades,
            "rest_requests": self._orders.requests,
        }


@web.middleware
async def _no_browsers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Requests with an `Origin` get 403, as upstream; it also keeps web pages off the control endpoint."""
    if "Origin" in request.headers:
        return web.json_response({"code": "FORBIDDEN", "message": "Forbidden"}, status=403)
    return await handler(request)


def _only_loopback(request: web.Request) -> None:
    if request.remote is None or not ipaddress.ip_address(request.remote).is_loopback:
        raise web.HTTPForbidden(text="only from this machine")
