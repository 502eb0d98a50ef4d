"""How the admin server answers: JSON without secrets, one shape for every error."""

from typing import Any, Final

from aiohttp import web

from relay.log import clean

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
    """Text that was redacted by a rule of its own: a URL without a key in it is a known secret as a whole."""

    __slots__ = ()


def json_answer(document: Any, status: int = 200) -> web.Response:
    """A JSON answer in which every known secret is blanked and every text is printable."""
    return web.json_response(_cleaned(document), status=status)


def error_answer(error: ApiError) -> web.Response:
    """`{"error": {"code", "message"}}`."""
    document = {"error": {"code": error.code, "message": clean(error.message)}}
    return web.json_response(document, status=error.status, headers=error.headers)


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cleaned(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(item) for item in value]
    return value if isinstance(value, Shown) else clean(value)


async def add_safe_headers(_request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Headers of every answer; a handler's own values are kept, the server's name aside."""
    for name, value in _SAFE_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["server"] = SERVER_NAME
