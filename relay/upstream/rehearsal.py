"""Would it work? The upstream is signed in to once, as a relay would, and left again; nothing is kept."""

import asyncio
from dataclasses import dataclass
from typing import Final

from relay.board import UpstreamBoard, UpstreamState
from relay.clock import Clock
from relay.config.settings import UpstreamSettings
from relay.errors import BadCredentials, RelayError
from relay.metrics import Metrics
from relay.model import Snapshot
from relay.upstream.dial import close_session, open_rest_session, open_socket_session
from relay.upstream.endings import EndKind, EpochEnd
from relay.upstream.orders_api import OrdersApi
from relay.upstream.session import Session, Surroundings
from relay.upstream.together import until_first_ends

_CREDENTIALS: Final = "check upstream.partner_id and upstream.secret"
_AT_MOST: Final = 30.0
"""Seconds for the one question over REST, whatever `requests_per_minute` would allow."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of signing in.

    Attributes:
        what: `WebSocket`, `credentials`, `subscription` or `REST`.
        found: what came of it, a sentence that names the step.
        ok: whether a relay could go on from there.
    """

    what: str
    found: str
    ok: bool


_ACCEPTED: Final = Step("credentials", "credentials accepted by the WebSocket", ok=True)


class _Nowhere:
    def offer(self, snapshot: Snapshot) -> bool:
        """Orders that are pushed meanwhile are no business of a rehearsal."""
        return True


async def rehearse(settings: UpstreamSettings, clock: Clock, version: str) -> list[Step]:
    """Every step up to the first that fails, and REST."""
    socket, rest = await asyncio.gather(_sign_in(settings, clock, version), _read_one(settings, clock, version))
    return [*socket, rest]


async def _sign_in(settings: UpstreamSettings, clock: Clock, version: str) -> list[Step]:
    states: list[UpstreamState] = []
    around = Surroundings(_Nowhere(), UpstreamBoard(), Metrics(version), clock, states.append, lambda _reason: None)
    wanted = None if settings.orders == "all" else frozenset(settings.orders)
    http = open_socket_session(version)
    try:
        session = Session(settings, wanted, http, around)
        ends, errors = await until_first_ends(session=session.run(), subscribed=_subscribed(session))
    finally:
        await close_session(http)
    if errors:  # an error of our own: what the upstream does ends a session with a word about it
        raise errors[0]
    if session.subscribed.is_set():
        which = "all orders" if wanted is None else f"{len(wanted)} order(s)"
        return [_ACCEPTED, Step("subscription", f"subscription to {which} acknowledged", ok=True)]
    end = next(end for end in ends if end is not None)
    if end.kind is EndKind.AUTH:
        return [Step("credentials", f"{end.detail}; {_CREDENTIALS}", ok=False)]
    if UpstreamState.CONNECTED in states:
        return [Step("WebSocket", "WebSocket opened", ok=True), Step("subscription", end.detail, ok=False)]
    return [Step("WebSocket", f"WebSocket: {end.detail}", ok=False)]


async def _subscribed(session: Session) -> EpochEnd | None:
    await session.subscribed.wait()
    return None


async def _read_one(settings: UpstreamSettings, clock: Clock, version: str) -> Step:
    api = OrdersApi(settings, lambda: open_rest_session(version), clock, Metrics(version))
    try:
        async with asyncio.timeout(_AT_MOST):
            page = await api.list_page(page=1, pageSize=1)
    except BadCredentials as error:
        return Step("REST", f"{error}; {_CREDENTIALS}", ok=False)
    except RelayError as error:
        return Step("REST", str(error), ok=False)
    except TimeoutError:
        return Step("REST", f"REST: no answer within {_AT_MOST:.0f} s", ok=False)
    finally:
        await api.close()
    known = "REST lists orders" if page.total is None else f"REST lists {page.total} order(s), the last 48 h"
    return Step("REST", known, ok=True)
