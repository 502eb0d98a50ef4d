"""The admin HTTP server, put together: who may ask, within what time, and what answers."""

import structlog
from aiohttp import web

from relay.admin.answers import add_safe_headers
from relay.admin.api import LONG_DEADLINES, Api
from relay.admin.auth import BODY_CAP, Gatekeeper
from relay.admin.context import Context
from relay.admin.middleware import answer_errors, deadline
from relay.admin.probes import Probes
from relay.errors import StoreError

_log = structlog.get_logger()


class Admin:
    """Serves `listen` from `start` to `stop`."""

    def __init__(self, listen: tuple[str, int], context: Context) -> None:
        self._listen = listen
        self._context = context
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            OSError: the address cannot be bound.
        """
        api = Api(self._context)
        gatekeeper = Gatekeeper(self._context.settings, self._context.clock)
        app = web.Application(
            client_max_size=BODY_CAP, middlewares=[answer_errors, deadline(LONG_DEADLINES), gatekeeper.middleware]
        )
        app.add_routes([*Probes(self._context).routes(), *api.routes()])
        app.on_response_prepare.append(add_safe_headers)
        try:
            await api.begin()
        except StoreError as error:
            # A store that fails ends the process by itself; until then health has to answer.
            _log.error("audit_not_prepared", error=str(error))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=2.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._listen, backlog=64).start()

    async def stop(self) -> None:
        """Stop serving; answers under way get 2 s."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def port(self) -> int:
        """The port that was bound (the configured one may be 0)."""
        if self._runner is None:
            raise RuntimeError("the admin server is not started")
        return int(self._runner.addresses[0][1])
