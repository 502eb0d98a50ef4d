"""How the admin server answers: JSON without secrets, one shape for every error."""

import json
from typing import Any, Final

from aiohttp import web

from relay.log import clean, redact

SERVER_NAME: Final = "houdini-relay"
"""The `server` header of every answer, by which the command line knows whom it is talking to."""

_SAFE_HEADERS: Final = {
    "server": SERVER_NAME,
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class ApiError(Exception):
    """A request that cannot be served, said in the one error shape.

    Attributes:
        status: the HTTP status.
        code: one word for machines, as in `not_found`.
        message: a sentence for the caller; holds nothing that the caller sent.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


class Shown(str):
    """Text that was made fit to be shown by a rule of its own, as a URL without the key in it."""

    __slots__ = ()


class JsonText(str):
    """JSON that goes into an answer as it stands."""

    __slots__ = ()


def outside_text(text: bytes) -> Shown:
    """What a stranger answered, whole: secrets blanked, all that could steer a terminal escaped, lines kept."""
    shown = redact(text.decode("utf-8", "backslashreplace"))
    return Shown("".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in shown))


def embedded(body: bytes) -> JsonText | Shown:
    """A stored JSON text, to stand in an answer byte for byte; as a string where it cannot stand there so."""
    try:
        text = redact(body.decode())
        json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return outside_text(body)
    return JsonText(text)


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def encoded(document: Any) -> str:
    """The document as JSON text, every known secret blanked and every text printable."""
    if isinstance(document, JsonText):
        return str(document)
    if isinstance(document, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {encoded(item)}" for key, item in document.items()) + "}"
    if isinstance(document, (list, tuple)):
        return "[" + ", ".join(map(encoded, document)) + "]"
    return json.dumps(document if isinstance(document, Shown) else clean(document))


def json_answer(document: Any, status: int = 200) -> web.Response:
    """An answer in JSON, as `encoded` writes it."""
    return web.Response(text=encoded(document), status=status, content_type="application/json")


def error_answer(error: ApiError) -> web.Response:
    """`{"error": {"code", "message"}}`."""
    document = {"error": {"code": error.code, "message": clean(error.message)}}
    return web.json_response(document, status=error.status, headers=error.headers)


async def add_safe_headers(_request: web.BaseRequest, response: web.StreamResponse) -> None:
    """`set_safe_headers`, as aiohttp's signal wants it."""
    set_safe_headers(response)


def set_safe_headers(response: web.StreamResponse) -> None:
    """Headers of every answer; a handler's own values are kept, the server's name aside."""
    for name, value in _SAFE_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["server"] = SERVER_NAME
