"""`GET /api/v1/stream`: what happens right now, as server-sent events, for as long as somebody listens.

Nothing is kept for it. A listener that comes back says which id it had last (`Last-Event-ID`) and is told how
many happenings it has missed; what was in them is in the store.
"""

import asyncio
import re
from typing import Any, Final

from aiohttp import web

from relay.admin.answers import ApiError, encoded
from relay.admin.context import Context
from relay.admin.paging import TARGET_FORM
from relay.live import MISSED, Happening, Listener, Wants

STREAM_PATH: Final = "/api/v1/stream"
KINDS: Final = ("event", "attempt", "target", "upstream", "notice")
LISTENERS: Final = 32
"""Who may listen at a time."""
HEARTBEAT: Final = 15.0
"""Seconds of silence after which a comment says that the stream lives."""
LONGEST: Final = 3600.0
"""Seconds after which a stream ends, so that whoever is let in no longer does not listen for ever."""
RETRY_MS: Final = 3000
"""How long a browser waits before it comes back."""
_LOOK: Final = 1.0
"""Seconds between two looks at whether the listener is still there."""
_WRITE_PATIENCE: Final = 30.0


class Stream:
    """The handler."""

    def __init__(self, context: Context) -> None:
        self._live = context.board.live
        self._clock = context.clock
        # Numbers begin anew with each process, so an id has to say of which process it is.
        self._process = f"{context.clock.wall_ms():x}"
        self._open = 0

    def routes(self) -> list[web.RouteDef]:
        """The path and its handler; HEAD would have nothing to show."""
        return [web.get(STREAM_PATH, self.stream, allow_head=False)]

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Write what happens until the listener leaves, the relay ends, or `LONGEST` is over."""
        wants = read_wants(dict(request.query), len(request.query))
        if self._open >= LISTENERS:
            sentence = f"{LISTENERS} listeners are the most at a time; come back later"
            raise ApiError(503, "too_many_listeners", sentence, {"retry-after": "10"})
        self._open += 1
        try:
            with self._live.subscribe(wants) as listener:
                return await self._serve(request, listener)
        finally:
            self._open -= 1

    async def _serve(self, request: web.Request, listener: Listener) -> web.StreamResponse:
        began = self._clock.mono()
        response = web.StreamResponse(headers={"x-accel-buffering": "no"})
        response.content_type, response.charset = "text/event-stream", "utf-8"
        try:
            await response.prepare(request)
            await self._write(response, self._opening(request.headers.get("last-event-id")))
            while self._clock.mono() - began < LONGEST:
                text = await self._next(request, listener)
                if text is None:
                    break
                await self._write(response, text)
            await response.write_eof()
        except (ConnectionError, TimeoutError):
            pass  # it has left, or takes nothing: either way there is nobody to tell
        return response

    def _opening(self, last_id: str | None) -> str:
        missed = "" if last_id is None else self._since(last_id)
        return f"retry: {RETRY_MS}\nid: {self._id(self._live.number)}\n\n{missed}"

    def _since(self, last_id: str) -> str:
        """What to tell a listener that comes back; nothing when it has missed nothing."""
        found = re.fullmatch(r"([0-9a-f]{1,16})-([0-9]{1,18})", last_id)
        known = found is not None and found[1] == self._process and int(found[2]) <= self._live.number
        count = self._live.number - int(found[2]) if found is not None and known else None
        if count == 0:
            return ""
        return self._told(Happening(self._live.number, MISSED, {"count": count}))

    async def _next(self, request: web.Request, listener: Listener) -> str | None:
        """The text of the next happening, or of a heartbeat; None when there is nobody to tell, or nothing more."""
        silent_since = self._clock.mono()
        while request.transport is not None:
            try:
                async with asyncio.timeout(_LOOK):
                    happening = await listener.next()
            except TimeoutError:
                if self._clock.mono() - silent_since < HEARTBEAT:
                    continue
                return self._heartbeat(listener)
            return None if happening is None else self._told(happening)
        return None

    def _heartbeat(self, listener: Listener) -> str:
        """With an id, so that what this listener did not want to hear does not count as missed."""
        seen = "" if listener.behind else f"id: {self._id(self._live.number)}\n"
        return f": still here\n{seen}\n"

    def _told(self, happening: Happening) -> str:
        return f"id: {self._id(happening.number)}\nevent: {happening.kind}\ndata: {encoded(dict(happening.data))}\n\n"

    def _id(self, number: int) -> str:
        return f"{self._process}-{number}"

    async def _write(self, response: web.StreamResponse, text: str) -> None:
        async with asyncio.timeout(_WRITE_PATIENCE):
            await response.write(text.encode())


def read_wants(asked: dict[str, str], count: int) -> Wants:
    """Which happenings the query parameters ask for.

    Args:
        asked: the parameters.
        count: how many there were, repeated ones included.

    Raises:
        ApiError: one is unknown, repeated or cannot be used.
    """
    if count != len(asked) or not set(asked) <= {"kinds", "target"}:
        raise ApiError(400, "bad_query", "possible query parameters: kinds, target; each at most once")
    kinds = frozenset(asked["kinds"].split(",")) if "kinds" in asked else frozenset(KINDS)
    if not kinds <= frozenset(KINDS):
        raise ApiError(400, "bad_kinds", f"`kinds` must be some of {', '.join(KINDS)}, with commas between them")
    target = asked.get("target")
    if target is not None and not re.fullmatch(TARGET_FORM, target):
        raise ApiError(400, "bad_target", "`target` must be a target's name")

    def wants(happening: Happening) -> bool:
        return happening.kind in kinds and (target is None or _about(happening) == target)

    return wants


def _about(happening: Happening) -> Any:
    """The target that it is about, None for one that is about none."""
    return happening.data.get("name" if happening.kind == "target" else "target")
