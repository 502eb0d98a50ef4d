"""What the dashboard's forms do. The gatekeeper has checked their secret before any of these is called."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import structlog
from aiohttp import web

from relay.admin import control, dashboard
from relay.admin.actions import Actions
from relay.admin.answers import ApiError
from relay.admin.auth import SIGN_IN_PATH, Gatekeeper, browser_of
from relay.admin.dashboard import Dashboard, replay_question
from relay.admin.pages import Pages, own_path, see_other
from relay.admin.sessions import Sessions
from relay.log_names import Log

_TEST: Final = "/targets/{name}/test"
_FORGET: Final = "/targets/{name}/forget"
LONG_DEADLINES: Final[Mapping[str, float]] = {
    dashboard.REPLAY_PATH: control.LONG_DEADLINES[control.REPLAY_PATH],
    _TEST: control.LONG_DEADLINES[control.TEST_PATH],
    _FORGET: control.LONG_DEADLINES[control.FORGET_PATH],
}
"""Seconds; as long as the API gives the same."""

_log = structlog.get_logger()


class Forms:
    """The handlers; each does one thing and leads back to the page that shows what came of it."""

    def __init__(
        self, actions: Actions, gatekeeper: Gatekeeper, sessions: Sessions, pages: Pages, board: Dashboard
    ) -> None:
        self._actions = actions
        self._gatekeeper = gatekeeper
        self._sessions = sessions
        self._pages = pages
        self._dashboard = board

    def routes(self) -> list[web.RouteDef]:
        """Paths and handlers."""
        return [
            web.get(SIGN_IN_PATH, self.door),
            web.post(SIGN_IN_PATH, self.sign_in),
            web.post("/logout", self.sign_out),
            web.post("/backfill", self.backfill),
            web.post("/deliveries/{id}/retry", self.retry),
            web.post("/deliveries/{id}/cancel", self.cancel),
            web.post("/targets/{name}/pause", self.pause),
            web.post("/targets/{name}/resume", self.resume),
            web.post(_TEST, self.test),
            web.post(dashboard.REPLAY_PATH, self.replay),
            web.post(_FORGET, self.forget),
        ]

    async def door(self, request: web.Request) -> web.StreamResponse:
        """The page for signing in."""
        if not self._gatekeeper.wants_token:
            return see_other("/")
        return self._door(request, request.query.get("next", "/"))

    async def sign_in(self, request: web.Request) -> web.StreamResponse:
        """Compare the token; the browser gets a new id, so that nobody can have planted it."""
        form = await request.post()
        wanted = own_path(str(form.get("next", "/")))
        try:
            browser = await self._gatekeeper.sign_in(request, str(form.get("token", "")))
        except ApiError as error:
            return self._door(request, wanted, error)
        _log.info(Log.ADMIN_SIGNED_IN, address=request.remote)
        response = see_other(wanted)
        self._pages.keep(request, response, browser)
        return response

    async def sign_out(self, request: web.Request) -> web.StreamResponse:
        """Forget the browser, here and there."""
        self._sessions.sign_out(browser_of(request))
        response = see_other(SIGN_IN_PATH)
        self._pages.keep(request, response, self._sessions.new_id())
        return response

    async def backfill(self, _request: web.Request) -> web.StreamResponse:
        """Ask for a sweep."""
        await self._actions.backfill()
        return see_other("/?done=backfill")

    async def retry(self, request: web.Request) -> web.StreamResponse:
        """Attempt a delivery now, or send it again as a new one."""
        done = await self._actions.retry(request.match_info["id"])
        if "replayed" in done:
            return see_other(f"/deliveries/{done['replayed']}?done=replayed")
        return see_other(f"/deliveries/{done['delivery']}?done=retried")

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """End a delivery."""
        done = await self._actions.cancel(request.match_info["id"])
        return see_other(f"/deliveries/{done['delivery']}?done=cancelled")

    async def pause(self, request: web.Request) -> web.StreamResponse:
        """Keep what comes for a target."""
        done = await self._actions.pause(request.match_info["name"])
        return _to_target(request, "paused" if done["paused"] else "was_paused")

    async def resume(self, request: web.Request) -> web.StreamResponse:
        """Send to a target again, or probe it now."""
        done = await self._actions.resume(request.match_info["name"])
        if done["was"] == "breaker_open":
            return _to_target(request, "probed")
        return _to_target(request, "resumed" if done["resumed"] else "was_resumed")

    async def test(self, request: web.Request) -> web.StreamResponse:
        """Make one attempt now, and show it."""
        name = request.match_info["name"]
        done = await self._actions.test(name)
        return await self._dashboard.target_page(request, name, done["attempt"])

    async def replay(self, request: web.Request) -> web.StreamResponse:
        """Send again what the page before has counted."""
        form = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        await self._actions.replay(replay_question(request.match_info["name"], form, dry_run=False))
        return _to_target(request, "replay")

    async def forget(self, request: web.Request) -> web.StreamResponse:
        """Cancel what is kept for a target that is no longer configured."""
        await self._actions.forget(request.match_info["name"])
        return see_other("/?done=forgotten")

    def _door(self, request: web.Request, wanted: str, error: ApiError | None = None) -> web.Response:
        problem = None if error is None else error.message
        status = 200 if error is None else error.status
        response = self._pages.page(request, "login.html", status, next=own_path(wanted), problem=problem)
        if error is not None and "retry-after" in error.headers:
            response.headers["retry-after"] = error.headers["retry-after"]
        return response


def _to_target(request: web.Request, done: str) -> web.Response:
    return see_other(f"/targets/{quote(request.match_info['name'], safe='')}?done={done}")
