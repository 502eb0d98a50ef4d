"""Can it be reached? Every host that a target needs is looked up, judged and connected to; nothing is posted."""

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass, replace
from typing import Final

from relay.clock import Clock
from relay.config import TargetSettings
from relay.config.urls import Url, parse_url
from relay.delivery.dialing import Dialer, Progress
from relay.delivery.failures import AttemptFailed, error_text
from relay.delivery.guard import Rules
from relay.delivery.lookup import Lookup
from relay.delivery.route import Hop, Route, route_of
from relay.delivery.token_request import tls_context
from relay.errors import RelayError
from relay.model import FailureKind
from relay.secret import Secret

_PORTS: Final = {"https": 443, "wss": 443, "http": 80, "ws": 80}
_ADVICE: Final = {
    FailureKind.DNS: "correct the name in its URL, or see why this machine cannot look it up",
    FailureKind.CONNECT: "start what should listen there, or correct host and port; a firewall may be between",
    FailureKind.PROXY: "see the proxy's own log: it was reached and did not let us through",
    FailureKind.TLS: "renew its certificate, or trust who issued it: tls.ca_file for a target, the system for upstream",
    FailureKind.RESET: "see what closes connections there: a firewall, a proxy, or TLS where none is spoken",
    FailureKind.TIMEOUT: "see whether a firewall drops what this machine sends, and whether host and port are right",
}
"""Where the problem does not say itself what to do."""
_ANYWHERE: Final = Rules(False, (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of trying one host.

    Attributes:
        what: `target`, `token server`, `upstream WebSocket` or `upstream REST`.
        host: its name; the proxy's where there is one, since that is what is dialled.
        addresses: what the name was resolved to; empty when it was not.
        problem: `kind: detail`, as an attempt would say it; None when the connection stood.
        advice: what to do about it, None where the problem says it itself.
    """

    what: str
    host: str
    addresses: tuple[str, ...]
    problem: str | None
    advice: str | None = None


class Trials:
    """Tries hosts, each within `timeout` seconds."""

    def __init__(self, lookup: Lookup, clock: Clock, version: str, timeout: float) -> None:
        self._lookup = lookup
        self._clock = clock
        self._user_agent = f"houdini-relay/{version}"
        self._timeout = timeout

    async def target(self, target: TargetSettings) -> list[Trial]:
        """The target, through its proxy if it has one, and its token server. Never raises but when cancelled."""
        found = [await self._read_and_dial("target", target)]
        oauth2 = None if target.auth is None else target.auth.oauth2
        if oauth2 is not None:
            there = target.model_copy(update={"url": Secret.of(oauth2.token_url)})
            found.append(await self._read_and_dial("token server", there, token_server=True))
        return found

    async def upstream(self, what: str, url: str) -> Trial:
        """A host of the upstream, which may have any address. Never raises but when cancelled.

        Args:
            what: which of them, `WebSocket` or `REST`.
            url: as configured.
        """
        parsed = parse_url(url, tuple(_PORTS))
        tls = await asyncio.to_thread(ssl.create_default_context) if _is_secure(parsed) else None
        hop = Hop(parsed.host, parsed.port or _PORTS[parsed.scheme], tls, _ANYWHERE)
        return await self._dial(f"upstream {what}", Route(hop, hop.authority, "/"))

    async def _read_and_dial(self, what: str, target: TargetSettings, *, token_server: bool = False) -> Trial:
        try:
            route = await asyncio.to_thread(_token_route if token_server else route_of, target)
        except RelayError as error:
            return Trial(what, "", (), error_text(FailureKind.REQUEST, str(error)))
        return await self._dial(what, route)

    async def _dial(self, what: str, route: Route) -> Trial:
        dialled = route.proxy or route.receiver
        progress = Progress(self._clock.mono() + self._timeout)
        addresses: tuple[str, ...] = ()
        problem: str | None = None
        kind: FailureKind | None = None
        try:
            async with asyncio.timeout(self._timeout):
                addresses = tuple(map(str, await self._lookup.resolve(dialled.host, dialled.port)))
                connection = await Dialer(route, self._lookup, self._clock, self._user_agent).dial(progress)
                connection.abort()
        except AttemptFailed as failure:
            kind, problem = failure.kind, error_text(failure.kind, failure.detail)
        except TimeoutError:
            kind = FailureKind.TIMEOUT
            problem = error_text(kind, f"no answer within {self._timeout:g} s: {progress.phase}")
        return Trial(what, dialled.host, addresses, problem, None if kind is None else _ADVICE.get(kind))


def _token_route(target: TargetSettings) -> Route:
    """As `token_request` goes: its own idea of whom to trust, and never our client certificate."""
    route = route_of(target)
    tls = None if route.receiver.tls is None else tls_context(target)
    return replace(route, receiver=replace(route.receiver, tls=tls))


def _is_secure(url: Url) -> bool:
    return url.scheme in ("https", "wss")
