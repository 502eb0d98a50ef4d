"""The dashboard's pages: the API's documents, shown to people. What its forms do is in `forms`."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec
from aiohttp import web

from relay.admin.actions import Actions
from relay.admin.answers import ApiError
from relay.admin.context import Context
from relay.admin.overview import read_overview
from relay.admin.pages import Pages, see_other
from relay.admin.paging import PARAMETERS
from relay.admin.questions import ReplayQuestion, path_id, period
from relay.admin.shapes import Shape
from relay.admin.views import Views
from relay.admin.wording import DONE, problems_of, verdict
from relay.model import DeliveryStatus, iso_utc

REPLAY_PATH: Final = "/targets/{name}/replay"
_REPLAY_PARTS: Final = ("status", "since", "until", "order")
_LATEST: Final = 10
"""Deliveries that a target's page shows, with the last attempts of these."""
_ATTEMPTS: Final = 20
_STATUSES: Final = tuple(status.value for status in DeliveryStatus)


class Dashboard:
    """The handlers of pages; they only read."""

    def __init__(self, context: Context, views: Views, actions: Actions, pages: Pages) -> None:
        self._context = context
        self._views = views
        self._actions = actions
        self._pages = pages

    def routes(self) -> list[web.RouteDef]:
        """Paths and handlers."""
        return [
            web.get("/", self.overview),
            web.get("/search", self.search),
            web.get("/orders/{id}", self.order),
            web.get("/events", self.events),
            web.get("/events/{id}", self.event),
            web.get("/deliveries", self.deliveries),
            web.get("/deliveries/{id}", self.delivery),
            web.get("/targets/{name}", self.target),
            web.get(REPLAY_PATH, self.replay),
        ]

    async def overview(self, request: web.Request) -> web.Response:
        """Is everything delivered, and if not, why and what to do."""
        status = await read_overview(self._context)
        return self._page(request, "overview.html", status["now"], status=status, verdict=verdict(status))

    async def search(self, request: web.Request) -> web.Response:
        """To the order, event or delivery of this id."""
        wanted = request.query.get("q", "").strip()
        for kind in ("orders", "events", "deliveries"):
            if wanted and await self._exists(kind, wanted):
                return see_other(f"/{kind}/{quote(wanted, safe='')}")
        raise ApiError(404, "not_found", "no order, event or delivery has this id; ids are compared whole")

    async def order(self, request: web.Request) -> web.Response:
        """An order's life across targets."""
        return await self._single(request, "orders", "order.html")

    async def event(self, request: web.Request) -> web.Response:
        """An event with its data, and how its signature comes about."""
        return await self._single(request, "events", "event.html")

    async def delivery(self, request: web.Request) -> web.Response:
        """A delivery and its attempts."""
        return await self._single(request, "deliveries", "delivery.html")

    async def events(self, request: web.Request) -> web.Response:
        """Events, newest first."""
        return await self._list(request, "events")

    async def deliveries(self, request: web.Request) -> web.Response:
        """Deliveries, newest first."""
        return await self._list(request, "deliveries")

    async def target(self, request: web.Request) -> web.Response:
        """A target, its latest deliveries, and what can be done about it."""
        return await self.target_page(request, request.match_info["name"])

    async def target_page(self, request: web.Request, name: str, tested: Shape | None = None) -> web.Response:
        """A target's page, with the attempt of a test event where one has just been made."""
        status, target = await self._target(name)
        latest = (await self._views.page("deliveries", {"target": name, "limit": str(_LATEST)}))["items"]
        whole = await asyncio.gather(*(self._views.single("deliveries", str(one["id"])) for one in latest))
        attempts = sorted((attempt for one in whole for attempt in one["attempts"]), key=lambda one: str(one["at"]))
        return self._page(
            request,
            "target.html",
            status["now"],
            target=target,
            problems=problems_of(status, f"target {name}"),
            deliveries=latest,
            attempts=attempts[-_ATTEMPTS:],
            tested=tested,
        )

    async def replay(self, request: web.Request) -> web.Response:
        """How many events a replay would send again; sends nothing."""
        name = request.match_info["name"]
        status, target = await self._target(name)
        asked = {part: request.query.get(part, "").strip() for part in _REPLAY_PARTS}
        asked["status"] = asked["status"] or "dead"
        count: int | None = None
        problem: str | None = None
        try:
            asked |= self._fixed(asked)
            count = (await self._actions.replay(replay_question(name, asked, dry_run=True)))["count"]
        except ApiError as error:
            problem = error.message
        values = {"target": target, "asked": asked, "count": count, "problem": problem}
        return self._page(request, "replay.html", status["now"], **values)

    def _fixed(self, asked: Mapping[str, str]) -> dict[str, str]:
        """`24h` as a moment, so that what is sent is what was counted, however long somebody thinks about it."""
        given = {part: asked[part] for part in ("since", "until") if asked[part]}
        since_ms, until_ms = period(given.get("since"), given.get("until"), self._context.clock.wall_ms())
        found = {"since": since_ms, "until": until_ms}
        return {part: iso_utc(wall_ms) for part, wall_ms in found.items() if wall_ms is not None}

    async def _target(self, name: str) -> tuple[Shape, Shape]:
        status = await read_overview(self._context)
        found = next((one for one in status["targets"] if one["name"] == name), None)
        if found is None:
            raise ApiError(404, "unknown_target", "no target of this name is configured, and nothing is kept for one")
        return status, found

    async def _exists(self, kind: str, key: str) -> bool:
        if kind == "deliveries" and path_id(key) is None:
            return False
        try:
            await self._views.single(kind, key)
        except ApiError:
            return False
        return True

    async def _single(self, request: web.Request, kind: str, template: str) -> web.Response:
        one = await self._views.single(kind, request.match_info["id"])
        return self._page(request, template, self._now(), one=one)

    async def _list(self, request: web.Request, kind: str) -> web.Response:
        """A list by its filters; an empty field of the form asks for nothing."""
        asked = {name: value.strip() for name, value in request.query.items() if value.strip()}
        shown = {name: asked.get(name) for name in PARAMETERS}
        problem: str | None = None
        page: Shape = {"items": [], "next": None}
        try:
            page = await self._views.page(kind, asked)
        except ApiError as error:
            problem = error.message
        targets = (await self._views.page("targets", {}))["items"]
        values = {"page": page, "asked": shown, "targets": targets, "statuses": _STATUSES, "problem": problem}
        return self._page(request, f"{kind}.html", self._now(), **values)

    def _now(self) -> str:
        return iso_utc(self._context.clock.wall_ms())

    def _page(self, request: web.Request, template: str, now: str, **values: Any) -> web.Response:
        done = DONE.get(request.query.get("done", ""))
        return self._pages.page(request, template, now=now, done=done, **values)


def replay_question(target: str, asked: Mapping[str, Any], *, dry_run: bool) -> ReplayQuestion:
    """The replay that the fields of a form ask for; empty ones ask for nothing.

    Raises:
        ApiError: a field has a value that it cannot have.
    """
    given = {part: asked[part] for part in _REPLAY_PARTS if asked.get(part)}
    try:
        return msgspec.convert({**given, "target": target, "dry_run": dry_run}, ReplayQuestion)
    except msgspec.ValidationError:
        raise ApiError(400, "bad_form", "choose one of the statuses of the form") from None
