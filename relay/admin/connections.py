"""Connections to the admin server: so many at a time, none kept idle for long, one error shape on all of them."""

import asyncio
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import web

from relay.admin.answers import ApiError, error_answer, set_safe_headers
from relay.log import Sampler
from relay.log_names import Log

MOST_CONNECTIONS: Final = 256
"""At a time; more are closed at once, so that they cannot use up the descriptors that deliveries need."""
IDLE: Final = 30.0
"""Seconds for which a connection may say nothing, or not get to the end of a request's head."""
_LINES_A_MINUTE: Final = 3

_log = structlog.get_logger()


class Connection(web.RequestHandler):
    """A connection; what is no HTTP is answered as everything else that is wrong, and not dwelt on in the log."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what never came to be a request, or to a defect outside of all handlers."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        if status == HTTPStatus.BAD_REQUEST:
            response = error_answer(ApiError(status, "bad_request", "this is not HTTP that can be understood"))
        else:
            _log.error(Log.ADMIN_REQUEST_FAILED, exc_info=exc)
            response = error_answer(ApiError(status, "internal_error", "an error of our own; the log has the details"))
        set_safe_headers(response)
        response.force_close()
        return response


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.abort()


class Site(web.BaseSite):
    """Where connections come in."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        super().__init__(runner, backlog=64)
        self._host, self._port = host, port
        self._refusals = Sampler(_LINES_A_MINUTE, 60.0)

    @property
    def name(self) -> str:
        """Its address."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Bind and listen.

        Raises:
            OSError: the address cannot be bound.
        """
        await super().start()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, self._host, self._port, backlog=self._backlog)

    def _connect(self) -> asyncio.Protocol:
        server, loop = self._runner.server, asyncio.get_running_loop()
        if server is not None and len(server.connections) < MOST_CONNECTIONS:
            no_log: Any = None  # which aiohttp takes for no access log, though its annotation does not say so
            return Connection(server, loop=loop, keepalive_timeout=IDLE, access_log=no_log)
        suppressed = self._refusals.admit(loop.time())
        if suppressed is not None:
            _log.warning(Log.ADMIN_CONNECTION_REFUSED, most=MOST_CONNECTIONS, suppressed=suppressed)
        return _Refusal()
