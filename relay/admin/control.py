"""The requests that change deliveries and targets: retry, cancel, replay, pause, resume, test, forget."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from relay.admin.actions import Actions
from relay.admin.answers import json_answer
from relay.admin.questions import NoQuestion, ReplayQuestion, read_question
from relay.admin.shapes import Shape

REPLAY_PATH: Final = "/api/v1/replay"
TEST_PATH: Final = "/api/v1/targets/{name}/test"
FORGET_PATH: Final = "/api/v1/targets/{name}/forget"
LONG_DEADLINES: Final[Mapping[str, float]] = {REPLAY_PATH: 1800.0, FORGET_PATH: 1800.0, TEST_PATH: 630.0}
"""Seconds for what goes through the whole store in pages, and for one attempt of the slowest target."""


class ControlApi:
    """The handlers."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions

    def routes(self) -> list[web.RouteDef]:
        """Paths and handlers."""
        actions = self._actions
        return [
            web.post("/api/v1/deliveries/{id}/retry", _about("id", actions.retry)),
            web.post("/api/v1/deliveries/{id}/cancel", _about("id", actions.cancel)),
            web.post(REPLAY_PATH, self.replay),
            web.post("/api/v1/targets/{name}/pause", _about("name", actions.pause)),
            web.post("/api/v1/targets/{name}/resume", _about("name", actions.resume)),
            web.post(TEST_PATH, _about("name", actions.test)),
            web.post(FORGET_PATH, _about("name", actions.forget)),
        ]

    async def replay(self, request: web.Request) -> web.Response:
        """Send events again whose last delivery to a target has ended."""
        return json_answer(await self._actions.replay(await read_question(request, ReplayQuestion)))


def _about(part: str, action: Callable[[str], Awaitable[Shape]]) -> Handler:
    """A handler that does this to what the path names in `part`."""

    async def answer(request: web.Request) -> web.Response:
        await read_question(request, NoQuestion)
        return json_answer(await action(request.match_info[part]))

    return answer
