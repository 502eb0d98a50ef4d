"""The admin HTTP server, put together: who may ask, within what time, and what answers."""

import asyncio

import structlog
from aiohttp import web

from relay.admin import forms
from relay.admin.actions import Actions
from relay.admin.answers import add_safe_headers
from relay.admin.api import LONG_DEADLINES, Api
from relay.admin.auth import BODY_CAP, Gatekeeper
from relay.admin.connections import Site
from relay.admin.context import Context
from relay.admin.dashboard import Dashboard
from relay.admin.middleware import answer_errors, deadline
from relay.admin.openapi import OpenApi
from relay.admin.pages import Pages
from relay.admin.probes import Probes
from relay.admin.sessions import Sessions
from relay.admin.stream import STREAM_PATH, Stream
from relay.admin.views import Views
from relay.admin.whose import only_by_its_own, say_whose
from relay.config import AdminSettings
from relay.errors import StoreError
from relay.log_names import Log

_log = structlog.get_logger()


class Admin:
    """Serves `listen` from `start` to `stop`."""

    def __init__(self, listen: tuple[str, int], context: Context) -> None:
        self._listen = listen
        self._context = context
        self._runner: web.AppRunner | None = None
        self._gatekeeper: Gatekeeper | None = None
        self._api: Api | None = None

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            OSError: the address cannot be bound.
        """
        context = self._context
        views = Views(context.store, context.targets, context.board, context.clock.wall_ms)
        actions = Actions(context)
        api = self._api = Api(context, views, actions)
        sessions = Sessions()
        gatekeeper = self._gatekeeper = Gatekeeper(context.settings, context.clock, sessions)
        # Templates and files are read from the disk.
        pages = await asyncio.to_thread(
            lambda: Pages(sessions, context.clock, context.version, signs_in=lambda: gatekeeper.wants_token)
        )
        dashboard = Dashboard(context, views, actions, pages)
        longer = {**LONG_DEADLINES, **forms.LONG_DEADLINES}
        app = web.Application(
            client_max_size=BODY_CAP,
            middlewares=[
                answer_errors(pages.error),
                deadline(longer, (STREAM_PATH,)),
                gatekeeper.middleware,
                only_by_its_own(context.board.config),
            ],
        )
        app.add_routes(
            [
                *Probes(self._context).routes(),
                *api.routes(),
                *Stream(self._context).routes(),
                *OpenApi(self._context.version).routes(),
                *pages.routes(),
                *dashboard.routes(),
                *forms.Forms(actions, gatekeeper, sessions, pages, dashboard).routes(),
            ]
        )
        app.on_response_prepare.append(add_safe_headers)
        app.on_response_prepare.append(say_whose(context.board.config))
        try:
            await api.begin()
        except StoreError as error:
            # A store that fails ends the process by itself; until then health has to answer.
            _log.error(Log.AUDIT_NOT_PREPARED, error=str(error))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=2.0)
        await self._runner.setup()
        await Site(self._runner, *self._listen).start()

    async def reconfigure(self, settings: AdminSettings) -> None:
        """Admit by these settings from now on; where it listens stays. Targets may be others, too.

        Raises:
            StoreError: the store cannot be used.
        """
        if self._gatekeeper is not None:
            self._gatekeeper.reconfigure(settings)
        if self._api is not None:
            await self._api.begin()

    async def stop(self) -> None:
        """Stop serving; streams end at once, other answers under way get 2 s."""
        self._context.board.live.end()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def port(self) -> int:
        """The port that was bound (the configured one may be 0)."""
        if self._runner is None:
            raise RuntimeError("the admin server is not started")
        return int(self._runner.addresses[0][1])
