"""Around every request: a deadline, and the one error shape for whatever goes wrong."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from relay.admin.answers import ApiError
from relay.admin.auth import BODY_CAP
from relay.errors import StoreError, UpstreamError
from relay.log import Sampler
from relay.log_names import Log

REQUEST_DEADLINE: Final = 30.0
"""Seconds for a whole request, its body included."""

_SHOWN: Final = 200
"""Characters of what a caller sent that a log line takes."""

_SENTENCES: Final[Mapping[int, tuple[str, str]]] = {
    400: ("bad_request", "this is not a request that can be understood"),
    404: ("not_found", "there is nothing at this path"),
    405: ("method_not_allowed", "this path does not take that method; see the Allow header"),
    413: ("too_large", f"a body has at most {BODY_CAP} bytes"),
    417: ("expectation_failed", "the Expect header asks for something unknown"),
}

_log = structlog.get_logger()


ShowError = Callable[[web.Request, ApiError], web.StreamResponse]


def answer_errors(show: ShowError) -> Middleware:
    """A middleware that turns whatever is raised into an answer; what is not understood is logged, never shown."""
    defects = Sampler()

    @web.middleware
    async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:
            return show(request, _said(error, request, defects))

    return answered


def _said(error: Exception, request: web.Request, defects: Sampler) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, web.HTTPException):
        return _from_http(error)
    if isinstance(error, StoreError):
        return ApiError(503, "store_unavailable", f"store: {error}")
    if isinstance(error, UpstreamError):
        return ApiError(502, "upstream_unavailable", str(error))
    suppressed = defects.admit(asyncio.get_running_loop().time())
    if suppressed is not None:
        names = {"method": request.method[:_SHOWN], "path": request.path[:_SHOWN]}
        _log.error(Log.ADMIN_REQUEST_FAILED, **names, suppressed=suppressed, exc_info=error)
    return ApiError(500, "internal_error", "an error of our own; the log has the details")


def deadline(longer: Mapping[str, float], unlimited: Collection[str] = ()) -> Middleware:
    """A middleware that ends requests after `REQUEST_DEADLINE`.

    Args:
        longer: path -> seconds, for routes that get more.
        unlimited: paths that see to deadlines of their own.
    """

    @web.middleware
    async def in_time(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        if resource is not None and resource.canonical in unlimited:
            return await handler(request)
        seconds = REQUEST_DEADLINE if resource is None else longer.get(resource.canonical, REQUEST_DEADLINE)
        try:
            async with asyncio.timeout(seconds) as limit:
                return await handler(request)
        except TimeoutError:
            if not limit.expired():
                raise
            raise ApiError(504, "timeout", f"this took longer than {seconds:.0f} s and was given up") from None

    return in_time


def _from_http(error: web.HTTPException) -> ApiError:
    code, message = _SENTENCES.get(error.status, ("refused", "this request cannot be served"))
    headers = {"allow": error.headers["Allow"]} if "Allow" in error.headers else None
    return ApiError(error.status, code, message, headers)
