"""One attempt over the wire: a request in, an `Attempt` out, never an exception.

Nothing else in the relay sends webhooks. The status decides what an attempt was worth, as soon as the head of the
answer is complete; the body that follows is only kept for people to look at. A request is never sent twice here:
what becomes of an attempt that failed is for the scheduler, which repeats it under the same webhook id.
"""

import asyncio
import functools
import re
from collections.abc import Iterable
from typing import Final

import structlog

from relay.clock import Clock
from relay.delivery import retry
from relay.delivery.answer import Answer
from relay.delivery.connection import Connection
from relay.delivery.dialing import Dialer, Progress
from relay.delivery.failures import AttemptFailed, error_text, printable
from relay.delivery.lookup import Lookup
from relay.delivery.pool import Pool
from relay.delivery.request import PostRequest
from relay.delivery.route import Route
from relay.delivery.said import KEPT
from relay.log import Sampler, spellings
from relay.log_names import Log
from relay.model import Attempt, FailureKind, Outcome

BODY_GRACE_S: Final = 2.0
"""Seconds the body may take once the status is known."""

_HEADER_CAP: Final = 256
_SHORTEST_HIDDEN: Final = 8
_REDACTED: Final = b"[redacted]"
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OURS: Final = frozenset(
    {"accept", "host", "user-agent", "proxy-authorization", "content-length", "transfer-encoding"}
    | {"connection", "expect", "te", "trailer", "upgrade"}
)
"""Headers that this module writes, or that would change what the bytes after the head mean."""

log = structlog.get_logger()


class Sender:
    """Posts to one target over connections of its own."""

    def __init__(self, route: Route, lookup: Lookup, clock: Clock, version: str, hidden: tuple[str, ...] = ()) -> None:
        """Prepare; nothing is dialled yet.

        Args:
            route: how the target is reached.
            lookup: resolves names.
            clock: the time.
            version: of this program, for `user-agent`.
            hidden: secret values that are never sent, and must not be kept if the receiver knows them.
        """
        self._clock = clock
        user_agent = f"houdini-relay/{version}"
        self._pool = Pool(Dialer(route, lookup, clock, user_agent).dial, clock)
        self._hidden = route.hidden + hidden
        self._host, self._defects = route.host_header, Sampler()
        lines = [f"POST {route.request_target} HTTP/1.1", f"host: {route.host_header}", f"user-agent: {user_agent}"]
        if route.proxy is not None and not route.tunnelled and route.proxy_authorization is not None:
            lines.append(f"proxy-authorization: {route.proxy_authorization}")
        self._head = "\r\n".join([*lines, "accept: */*\r\n"])

    def _unexpected(self, fault: Exception) -> AttemptFailed:
        name = type(fault).__name__
        if (suppressed := self._defects.admit(self._clock.mono())) is not None:
            log.error(Log.ATTEMPT_FAILED_UNEXPECTEDLY, host=self._host, error=name, suppressed=suppressed)
        return AttemptFailed(FailureKind.REQUEST, f"unexpected {name}")

    async def close(self) -> None:
        """Close every connection, waiting a bounded time for them to end."""
        await self._pool.close()

    async def post(self, request: PostRequest) -> Attempt:
        """Send it once and say what came of it. Raises nothing but `CancelledError`."""
        at_ms, began = self._clock.wall_ms(), self._clock.mono()
        progress = Progress(began + request.timeout)
        answer: Answer | None = None
        failure = AttemptFailed(FailureKind.PROTOCOL, "no answer")
        connection: Connection | None = None
        sent = head_at = began
        try:
            wire = self._wire(request)
            connection = self._pool.take_idle()
            if connection is None:
                async with asyncio.timeout(request.timeout):
                    connection = await self._pool.dial(progress)
            progress.phase = "waiting for the status line"
            sent = self._clock.mono()
            await connection.exchange(wire, progress.deadline - sent, BODY_GRACE_S)
        except AttemptFailed as failed:
            failure = failed
        except TimeoutError:
            failure = _too_late(request.timeout, progress, connection)
        except Exception as fault:
            failure = self._unexpected(fault)
        finally:
            if connection is not None:
                answer, head_at = connection.answer, connection.head_at
                self._pool.give_back(connection)
        if answer is None:
            return self._failed(at_ms, began, progress, failure)
        progress.first_byte_ms = (head_at - sent) * 1000
        hidden = request.hidden + self._hidden
        return Attempt(
            at_ms,
            (self._clock.mono() - began) * 1000,
            retry.classify(answer.status),
            answer.status,
            response_body=_hide(bytes(answer.body), hidden)[:KEPT],
            headers=_shown(answer.headers, hidden),
            timings=progress.timings(),
        )

    def _failed(self, at_ms: int, began: float, progress: Progress, failure: AttemptFailed) -> Attempt:
        forbidden = failure.kind is FailureKind.FORBIDDEN
        return Attempt(
            at_ms,
            (self._clock.mono() - began) * 1000,
            Outcome.FORBIDDEN if forbidden else Outcome.RETRY,
            kind=failure.kind,
            error=error_text(failure.kind, failure.detail),
            timings=progress.timings(),
        )

    def _wire(self, request: PostRequest) -> bytes:
        """The request as it goes out, in one piece.

        Raises:
            AttemptFailed: a header cannot be sent.
        """
        lines = []
        try:
            for name, value in request.headers:
                if not value.isprintable():
                    raise ValueError("a header's value has a character that no header can carry")
                lines.append(f"{_checked(name)}: {value}\r\n")
            head = f"{self._head}{''.join(lines)}content-length: {len(request.body)}\r\n\r\n".encode()
        except (ValueError, TypeError, AttributeError) as error:
            # The text of any other error could quote the value.
            words = str(error) if type(error) is ValueError else type(error).__name__
            raise AttemptFailed(FailureKind.REQUEST, f"a header cannot be sent ({words})") from None
        return head + request.body


@functools.lru_cache(maxsize=1024)
def _checked(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError("a header's name has a character that no name can have")
    if name.lower() in _OURS:
        raise ValueError(f"{name.lower()} is written by the sender")
    return name


def _too_late(timeout: float, progress: Progress, connection: Connection | None) -> AttemptFailed:
    phase = progress.phase
    if connection is not None and connection.stuck_sending:
        phase = "sending the request, which the receiver does not read"
    return AttemptFailed(FailureKind.TIMEOUT, f"no answer within {timeout:g} s: {phase}")


def _shown(headers: dict[bytes, bytes], hidden: Iterable[str]) -> dict[str, str]:
    if not headers:
        return {}
    return {
        name.decode("ascii"): printable(_hide(value, hidden).decode("latin-1"), _HEADER_CAP)
        for name, value in headers.items()
    }


def _hide(text: bytes, hidden: Iterable[str]) -> bytes:
    """The text without secrets that the receiver echoed; very short values would only riddle it with holes."""
    if len(text) < _SHORTEST_HIDDEN:
        return text
    for spelling in _spelled(tuple(hidden)):
        text = text.replace(spelling, _REDACTED)
    return text


@functools.lru_cache(maxsize=1024)
def _spelled(hidden: tuple[str, ...]) -> tuple[bytes, ...]:
    """What to look for, the longest first."""
    long = [secret for secret in hidden if len(secret) >= _SHORTEST_HIDDEN]
    found = {spelling.encode(errors="replace") for secret in long for spelling in spellings(secret)}
    return tuple(sorted(found, key=len, reverse=True))
