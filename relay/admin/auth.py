"""Who may ask what: host names, origins, the token, and how often it may be guessed.

Loopback is no boundary for a browser: any page can post to 127.0.0.1, and a name it controls can be made to
point there. So the `Host` must be one of ours, an `Origin` must be our own, and whatever changes something
must say that it is JSON, which no form can, or be a form of the dashboard that carries its browser's secret.
"""

import asyncio
import hmac
import ipaddress
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from relay.admin.answers import ApiError
from relay.admin.sessions import COOKIE, Sessions
from relay.clock import Clock
from relay.config import AdminSettings
from relay.config.addresses import is_loopback_host
from relay.config.urls import Url, parse_host, parse_url
from relay.errors import SecretUnreadable
from relay.log import Sampler
from relay.log_names import Log
from relay.secret import Secret

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""What probes and scrapers ask: no token, any host name."""
API: Final = "/api/"
"""What lies below is for programs; everything else that is no probe is a page, or what belongs to one."""
SIGN_IN_PATH: Final = "/login"
STATIC_PATH: Final = "/static/{name}"
FORM_SECRET: Final = "form_secret"  # noqa: S105 - the name of a field
"""The field that every form of the dashboard carries."""
BODY_CAP: Final = 64 * 1024
LOGIN_FAILURES: Final = 10
"""Wrong tokens that one address may send at once; after that one in `LOGIN_RECOVERY` seconds."""
LOGIN_RECOVERY: Final = 6.0
REMEMBERED_ADDRESSES: Final = 1024
_UNGUARDED: Final = frozenset({*OPEN_PATHS, SIGN_IN_PATH, STATIC_PATH})
"""What is answered to people who are not signed in."""
_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"

_log = structlog.get_logger()


class FailedLogins:
    """Wrong tokens per address, forgotten with time and in number; IPv6 counts by /64. Pure."""

    def __init__(self) -> None:
        self._recovered_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Seconds until this address may try again, 0 when it may now (`now` is monotonic)."""
        at = self._recovered_at.get(_network_of(address), now)
        return max(0.0, at - now - (LOGIN_FAILURES - 1) * LOGIN_RECOVERY)

    def note(self, address: str, now: float) -> None:
        """A wrong token came from there."""
        key = _network_of(address)
        self._recovered_at[key] = max(self._recovered_at.get(key, now), now) + LOGIN_RECOVERY
        self._recovered_at.move_to_end(key)
        if len(self._recovered_at) > REMEMBERED_ADDRESSES:
            self._recovered_at.popitem(last=False)


class Gatekeeper:
    """Decides for every request before anything else looks at it."""

    def __init__(self, settings: AdminSettings, clock: Clock, sessions: Sessions) -> None:
        self._sessions = sessions
        self._failures = FailedLogins()
        self._clock = clock
        self._token_unreadable = False
        self._login_failures = Sampler()
        self.reconfigure(settings)

    def reconfigure(self, settings: AdminSettings) -> None:
        """Decide by these settings from the next request on."""
        own = [settings.listen[0]] if settings.listen is not None else []
        self._hosts = frozenset(parse_host(_bracketed(name)) for name in (*own, *settings.allowed_hosts))
        self._token = settings.token

    @property
    def middleware(self) -> Middleware:
        """To be put before the handlers."""

        @web.middleware
        async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
            check_origin(request)
            resource = request.match_info.route.resource
            path = "" if resource is None else resource.canonical
            if path not in OPEN_PATHS:
                check_host(request.headers.getall(hdrs.HOST, ()), self._hosts)
            if path not in _UNGUARDED:
                await self._check_token(request)
            check_body(request)
            if _is_for_form(request):
                await self._check_form(request)
            return await handler(request)

        return admit

    @property
    def wants_token(self) -> bool:
        """Whether one has to sign in."""
        return self._token is not None

    async def sign_in(self, request: web.Request, given: str) -> str:
        """A new id for the browser of somebody who gives the token.

        Raises:
            ApiError: it is another one, or too many wrong ones have come from there.
        """
        expected = "" if self._token is None else await self._read_token(self._token)
        sent = given.encode("utf-8", "surrogatepass")
        self._judge(request, right=self._token is None or hmac.compare_digest(sent, expected.encode()))
        return self._sessions.sign_in(expected, self._clock.mono())

    async def _check_token(self, request: web.Request) -> None:
        if self._token is None:
            return
        expected = await self._read_token(self._token)
        given = request.headers.getall(hdrs.AUTHORIZATION, ())
        if given:
            self._judge(request, right=token_matches(given, expected))
        elif not self._sessions.is_signed_in(browser_of(request), expected, self._clock.mono()):
            raise _unauthorized("this needs the header `authorization: Bearer <admin.token>`")

    def _judge(self, request: web.Request, *, right: bool) -> None:
        # Nothing is awaited in here, so that many guesses at once count like many in a row.
        address, now = request.remote or "", self._clock.mono()
        wait = self._failures.wait(address, now)
        if wait > 0:
            headers = {"retry-after": str(int(wait) + 1)}
            raise ApiError(429, "too_many_failures", "too many wrong tokens from this address; wait a little", headers)
        if not right:
            self._failures.note(address, now)
            suppressed = self._login_failures.admit(now)
            if suppressed is not None:
                _log.warning(Log.ADMIN_LOGIN_FAILED, address=address, suppressed=suppressed)
            raise _unauthorized("this is not the token in `admin.token`")

    async def _check_form(self, request: web.Request) -> None:
        browser = browser_of(request)
        try:
            given = (await request.post()).get(FORM_SECRET)
        except ValueError:
            raise ApiError(400, "bad_form", "this form is not UTF-8") from None
        if not browser or not isinstance(given, str) or not self._sessions.fits(browser, given):
            sentence = "this page is out of date, or its cookie was not kept; go back, load it again and repeat"
            raise ApiError(403, "stale_page", sentence)

    async def _read_token(self, token: Secret) -> str:
        try:
            # Read anew each time, so that a rotated file counts at once; it may lie on a slow disk.
            value = await asyncio.to_thread(token.reveal)
        except SecretUnreadable as error:
            if not self._token_unreadable:
                _log.error(Log.ADMIN_TOKEN_UNREADABLE, error=str(error))
            self._token_unreadable = True
            raise ApiError(503, "token_unreadable", "admin.token cannot be read now; the log says why") from None
        self._token_unreadable = False
        return value


def token_matches(given: Sequence[str], expected: str) -> bool:
    """Whether the one `Authorization` header is `Bearer` with this token, compared in constant time."""
    if len(given) != 1:
        return False
    scheme, _, token = given[0].partition(" ")
    sent = token.strip(" ").encode("utf-8", "surrogateescape")
    return hmac.compare_digest(sent, expected.encode()) and scheme.lower() == "bearer"


def check_host(given: Sequence[str], allowed: Collection[str]) -> None:
    """Let through requests for a loopback name or one of `allowed`, whatever the port.

    Raises:
        ApiError: it is for somebody else, or for nobody.
    """
    try:
        url = parse_url(f"http://{given[0] if len(given) == 1 else ''}", ("http",))
    except ValueError:
        url = None
    if url is None or url.has_userinfo or url.path or url.query is not None:
        raise ApiError(400, "bad_host", "the Host header is missing, repeated or malformed")
    if url.host not in allowed and not is_loopback_host(url.host):
        raise ApiError(403, "host_not_allowed", "this server does not answer to that Host; see admin.allowed_hosts")


def check_origin(request: web.Request) -> None:
    """Let through requests of no page, or of a page of ours.

    Raises:
        ApiError: a page of another origin asks.
    """
    given = request.headers.getall(hdrs.ORIGIN, ())
    if not given:
        return
    hosts = request.headers.getall(hdrs.HOST, ())
    if len(given) != 1 or len(hosts) != 1 or not is_own_origin(given[0], hosts[0]):
        raise ApiError(403, "foreign_origin", "pages of other origins may not ask")


def is_own_origin(origin: str, host: str) -> bool:
    """Whether an `Origin` names the same host and port as the `Host` header (TLS may end in front of us)."""
    try:
        page = parse_url(origin, ("http", "https"))
        own = parse_url(f"{page.scheme}://{host}", (page.scheme,))
    except ValueError:
        return False
    bare = not page.path and page.query is None and not page.has_userinfo
    return bare and page.host == own.host and _port(page) == _port(own)


def check_body(request: web.Request) -> None:
    """Let through what changes nothing, and JSON of a bearable size.

    Raises:
        ApiError: it is neither, nor a form where the dashboard takes one.
    """
    if (request.content_length or 0) > BODY_CAP:
        raise ApiError(413, "too_large", f"a body has at most {BODY_CAP} bytes")
    # What no route takes is answered as such (404, 405) rather than by what its body is.
    if request.match_info.http_exception is not None or request.method != hdrs.METH_POST:
        return
    wanted = _FORM if _is_for_form(request) else _JSON
    charset = (request.charset or "utf-8").lower()
    if request.content_type != wanted or charset != "utf-8" or hdrs.CONTENT_ENCODING in request.headers:
        raise ApiError(415, "not_json" if wanted == _JSON else "not_a_form", f"send `content-type: {wanted}`")


def browser_of(request: web.Request) -> str:
    """The id in the request's cookie, empty when there is none."""
    return request.cookies.get(COOKIE, "")


def _is_for_form(request: web.Request) -> bool:
    """Whether what is asked takes forms of the dashboard."""
    resource = request.match_info.route.resource
    return request.method == hdrs.METH_POST and resource is not None and not resource.canonical.startswith(API)


def _unauthorized(message: str) -> ApiError:
    return ApiError(401, "unauthorized", message, {"www-authenticate": 'Bearer realm="houdini-relay"'})


def _port(url: Url) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _network_of(address: str) -> str:
    """An address as it is counted: a host of IPv4, a network of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)
