"""So that nobody steers one relay by another one's configuration file, which may name the same port."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from relay.admin.answers import ApiError
from relay.board import ConfigBoard
from relay.config.marks import marks_of

CONFIG_HEADER: Final = "houdini-relay-config"
"""In a request: marks of the caller's configuration. In an answer: the path of ours, where it is another one."""
_ANOTHER: Final = web.RequestKey("another_configuration", bool)


def only_by_its_own(board: ConfigBoard) -> Middleware:
    """A middleware that does nothing for who speaks for another configuration; what only reads is answered."""

    @web.middleware
    async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
        said = request.headers.get(CONFIG_HEADER)
        if said is not None and not await _is_ours(board, said):
            if request.method != "GET":
                raise ApiError(
                    409,
                    "another_configuration",
                    f"nothing was done: this relay runs by {board.path}; give that with -c, or give the relay of "
                    "your configuration an admin.listen of its own",
                )
            request[_ANOTHER] = True
        return await handler(request)

    return checked


def say_whose(board: ConfigBoard) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """What adds the path of our configuration to an answer for who speaks for another one."""

    async def add(request: web.Request, response: web.StreamResponse) -> None:
        if request.get(_ANOTHER):
            response.headers[CONFIG_HEADER] = quote(board.path)

    return add


async def _is_ours(board: ConfigBoard, said: str) -> bool:
    """Asked of the file itself, for it may have been edited and reloaded since the start."""
    if not board.path:
        return True
    return bool((await asyncio.to_thread(marks_of, Path(board.path))).intersection(said.split()))
