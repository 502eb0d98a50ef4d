"""Around every request: a deadline, and the one error shape for whatever goes wrong."""

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from relay.admin.answers import ApiError, error_answer
from relay.admin.auth import BODY_CAP
from relay.errors import StoreError, UpstreamError

REQUEST_DEADLINE: Final = 30.0
"""Seconds for a whole request, its body included."""

_SENTENCES: Final[Mapping[int, tuple[str, str]]] = {
    400: ("bad_request", "this is not a request that can be understood"),
    404: ("not_found", "there is nothing at this path"),
    405: ("method_not_allowed", "this path does not take that method; see the Allow header"),
    413: ("too_large", f"a body has at most {BODY_CAP} bytes"),
    417: ("expectation_failed", "the Expect header asks for something unknown"),
}

_log = structlog.get_logger()


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever is raised into an answer; what is not understood is logged, never shown."""
    try:
        return await handler(request)
    except ApiError as error:
        return error_answer(error)
    except web.HTTPException as error:
        return error_answer(_from_http(error))
    except StoreError as error:
        return error_answer(ApiError(503, "store_unavailable", f"store: {error}"))
    except UpstreamError as error:
        return error_answer(ApiError(502, "upstream_unavailable", str(error)))
    except Exception:
        _log.exception("admin_request_failed", method=request.method, path=request.path)
        return error_answer(ApiError(500, "internal_error", "an error of our own; the log has the details"))


def deadline(longer: Mapping[str, float]) -> Middleware:
    """A middleware that ends requests after `REQUEST_DEADLINE`; `longer` has the paths that get more."""

    @web.middleware
    async def in_time(request: web.Request, handler: Handler) -> web.StreamResponse:
        seconds = longer.get(request.path, REQUEST_DEADLINE)
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
