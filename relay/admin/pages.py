"""How the dashboard answers: pages of templates that escape every value, its own files, and errors for people.

Templates are handed the documents of the API. What came from receivers or the upstream is hostile: it is cleaned and
cut as in JSON answers, escaped by Jinja2, and what the browser may load and run is nailed down by the headers.
"""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote, urlencode

from aiohttp import hdrs, web
from jinja2 import Environment, PackageLoader, StrictUndefined

from relay.admin import figures, wording
from relay.admin.answers import ApiError, JsonText, Shown, error_answer
from relay.admin.auth import API, OPEN_PATHS, SIGN_IN_PATH, STATIC_PATH, browser_of
from relay.admin.pretty import indented
from relay.admin.sessions import COOKIE, LIFETIME, Sessions
from relay.admin.sparkline import bars
from relay.clock import Clock
from relay.log import clean

_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # With `no-referrer` browsers send `Origin: null` with forms, which could not be told from a foreign page's.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_KINDS: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_ID_LENGTH: Final = 43
_LONGEST_BODY: Final = 64 * 1024
"""Characters of a body that a page shows; the API has all of it."""


class Pages:
    """Templates and files, read once; making one reads the disk, so it is made outside the event loop."""

    def __init__(self, sessions: Sessions, clock: Clock, version: str, *, signs_in: Callable[[], bool]) -> None:
        self._sessions = sessions
        self._clock = clock
        self._environment = _environment()
        self._always = {"version": version, "signs_in": signs_in}
        folder = files("relay.admin") / "static"
        self._files = {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}

    def routes(self) -> list[web.RouteDef]:
        """The files that pages use."""
        return [web.get(STATIC_PATH, self.static)]

    async def static(self, request: web.Request) -> web.Response:
        """One of the files."""
        name = request.match_info["name"]
        if name not in self._files:
            raise ApiError(404, "not_found", "there is nothing at this path")
        kind = _KINDS[name.rpartition(".")[2]]
        return web.Response(body=self._files[name], content_type=kind, charset="utf-8")

    def page(self, request: web.Request, template: str, http_status: int = 200, **values: Any) -> web.Response:
        """A page; a browser without a cookie gets one, so that the page's forms fit it."""
        browser = browser_of(request)
        fresh = len(browser) != _ID_LENGTH
        if fresh:
            browser = self._sessions.new_id()
        values |= {"form_secret": self._sessions.form_secret(browser), "now_ms": self._clock.wall_ms()}
        response = self._rendered(template, http_status, values)
        if fresh:
            self.keep(request, response, browser)
        return response

    def keep(self, request: web.Request, response: web.StreamResponse, browser: str) -> None:
        """Have the browser keep its id; over TLS only where it says itself that it came over TLS."""
        secure = request.secure or request.headers.get(hdrs.ORIGIN, "").startswith("https://")
        response.set_cookie(
            COOKIE, browser, path="/", max_age=int(LIFETIME), httponly=True, samesite="Strict", secure=secure
        )

    def error(self, request: web.Request, error: ApiError) -> web.StreamResponse:
        """A page for people, the way to sign in for those who have to, and the one shape of JSON for programs."""
        if not wants_page(request):
            return error_answer(error)
        if error.status == 401 and hdrs.AUTHORIZATION not in request.headers:
            return see_other(sign_in_url(request))
        response = self._rendered("error.html", error.status, {"error": error, "back": back_from(request.path)})
        response.headers.update({name: value for name, value in error.headers.items() if name != "www-authenticate"})
        return response

    def _rendered(self, template: str, status: int, values: dict[str, Any]) -> web.Response:
        text = self._environment.get_template(template).render(self._always | values)
        # What was cut in the middle of a character pair of UTF-16 cannot be encoded; nobody can read it either.
        body = text.encode("utf-8", "replace")
        return web.Response(body=body, status=status, content_type="text/html", charset="utf-8", headers=_HEADERS)


def wants_page(request: web.Request) -> bool:
    """Whether a browser asks for something that people look at."""
    if request.path.startswith(API) or request.path in OPEN_PATHS:
        return False
    return "text/html" in request.headers.get(hdrs.ACCEPT, "")


def see_other(location: str) -> web.Response:
    """Go on there with a GET."""
    return web.Response(status=303, headers={hdrs.LOCATION: location})


def sign_in_url(request: web.Request) -> str:
    """The page for signing in, which leads back to what was asked for."""
    wanted = request.raw_path if request.method in (hdrs.METH_GET, hdrs.METH_HEAD) else back_from(request.path)
    return SIGN_IN_PATH if wanted == "/" else f"{SIGN_IN_PATH}?{urlencode({'next': wanted})}"


def own_path(text: str) -> str:
    """The text if it is a path of this server and nothing else, `/` otherwise."""
    plain = all("!" <= char <= "~" for char in text) and "\\" not in text
    return text if plain and text.startswith("/") and not text.startswith("//") and len(text) < 2048 else "/"


def back_from(path: str) -> str:
    """The page that a path belongs to: `/targets/shop` of `/targets/shop/pause`."""
    parts = path.split("/")
    known = len(parts) == 4 and parts[1] in ("targets", "deliveries")
    return own_path(f"/{parts[1]}/{quote(parts[2], safe='')}") if known else "/"


@cache
def _environment() -> Environment:
    """With every template compiled, which takes a good part of a second on a small machine."""
    environment = Environment(
        loader=PackageLoader("relay.admin", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_fit,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "about": figures.about,
        "span": figures.span,
        "day_and_time": figures.day_and_time,
        "size": figures.size,
        "when": figures.when,
        "duration": wording.duration,
        "tone": wording.tone,
        "held": wording.HELD.__getitem__,
        "word": wording.word,
        "segment": lambda text: quote(str(text), safe=""),
        "query": lambda asked: urlencode({name: value for name, value in asked.items() if value is not None}),
        "indented": _indented,
        "bars": bars,
    }
    for name in environment.list_templates():
        environment.get_template(name)
    return environment


def _fit(value: Any) -> Any:
    """What a page shows of a value, before it is escaped: no secret, nothing overlong, nothing unprintable."""
    if value is None:
        return "\u2013"
    return value if hasattr(value, "__html__") or isinstance(value, (Shown, int)) else clean(value)


def _indented(data: Shown | JsonText | None) -> Shown:
    """A body on several lines, every character of its values as it came; cut where it is too long for a page."""
    if data is None:
        return Shown("")
    text = indented(data, _LONGEST_BODY) if isinstance(data, JsonText) else str(data)
    return Shown("".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text))
