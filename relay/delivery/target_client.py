"""A target as the engine sees it: a delivery in, an `Attempt` out, never an exception.

Brings together what an attempt needs - secrets, signature, credentials, connection - and keeps all of it
within the target's one deadline.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from msgspec.structs import replace

from relay.clock import Clock
from relay.config import TargetSettings
from relay.delivery.credentials import fixed_headers, read_from_files
from relay.delivery.failures import error_text
from relay.delivery.lookup import Lookup
from relay.delivery.request import Fixed, PostRequest, build_request, fixed_part
from relay.delivery.route import Route, route_of
from relay.delivery.sender import Sender
from relay.delivery.signer import Signer, hidden_forms
from relay.delivery.token_request import AuthFailed, TokenRequest
from relay.delivery.tokens import TokenSource
from relay.errors import RelayError
from relay.log import Sampler
from relay.log_names import Log
from relay.model import Attempt, Delivery, FailureKind, Outcome
from relay.tracing import OFF, Tracing

_UNAUTHORIZED: Final = 401
_WORTH_SENDING: Final = 0.1
"""Seconds of the deadline below which nothing is sent any more."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Line:
    """What was read and opened; `fixed` is None where every attempt has to read it anew."""

    signer: Signer
    sender: Sender
    fixed: Fixed | None


def connect(
    target: TargetSettings, lookup: Lookup, clock: Clock, version: str, *, partner_id: str, tracing: Tracing = OFF
) -> "TargetClient":
    """A client for this target; nothing is read or dialled before its first attempt.

    Args:
        target: its settings.
        lookup: resolves names, shared by all targets; not closed here.
        clock: the time.
        version: of this program, for `user-agent`.
        partner_id: the upstream's id of us, which CloudEvents name as their source.
        tracing: names attempts to receivers that trace.
    """
    oauth2 = None if target.auth is None else target.auth.oauth2
    tokens = (
        None
        if oauth2 is None
        else TokenSource(target.name, TokenRequest(target, oauth2, lookup, clock, version).fetch, clock)
    )
    return TargetClient(target, lookup, clock, version, partner_id, tokens, tracing)


class TargetClient:
    """Makes attempts at one target; shares nothing with other targets but the look-up."""

    def __init__(
        self,
        target: TargetSettings,
        lookup: Lookup,
        clock: Clock,
        version: str,
        partner_id: str,
        tokens: TokenSource | None,
        tracing: Tracing = OFF,
    ) -> None:
        self._target = target
        self._lookup = lookup
        self._clock = clock
        self._version = version
        self._partner_id = partner_id
        self._tokens = tokens
        self._tracing = tracing
        self._in_files = read_from_files(target)
        self._opening = asyncio.Lock()
        self._line: _Line | None = None
        self._defects = Sampler()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def attempt(self, delivery: Delivery) -> Attempt:
        """Send it once and say what came of it. Raises nothing but `CancelledError`."""
        self._under_way += 1
        self._idle.clear()
        try:
            return await self._try(delivery)
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._idle.set()

    async def prepare(self) -> None:
        """Read secrets and certificates now rather than for the first attempt.

        Raises:
            RelayError: one of them cannot be used.
        """
        await self._opened()

    async def retire(self) -> None:
        """Close once the attempts under way have ended; nothing is attempted any more."""
        await self._idle.wait()
        await self.close()

    async def _try(self, delivery: Delivery) -> Attempt:
        at_ms, began = self._clock.wall_ms(), self._clock.mono()
        try:
            attempt = await self._attempt(delivery, began + self._target.timeout)
        except AuthFailed as error:
            kind, outcome = FailureKind.AUTH, Outcome.RETRY
            if error.forbidden:
                kind, outcome = FailureKind.FORBIDDEN, Outcome.FORBIDDEN
            attempt = _failed(kind, str(error), outcome)
        except TimeoutError:
            attempt = _failed(FailureKind.TIMEOUT, f"nothing could be sent within {self._target.timeout:g} s")
        except RelayError as error:
            attempt = _failed(FailureKind.REQUEST, str(error))
        except Exception as error:
            # Even a bug may not leave a delivery claimed for ever: it is a failed attempt, and loud.
            self._say_defect(delivery)
            attempt = _failed(FailureKind.REQUEST, f"unexpected {type(error).__name__}")
        return replace(attempt, at_ms=at_ms, duration_ms=(self._clock.mono() - began) * 1000)

    def _say_defect(self, delivery: Delivery) -> None:
        suppressed = self._defects.admit(self._clock.mono())
        if suppressed is not None:
            names = {"target": self._target.name, "webhook_id": delivery.event.webhook_id}
            log.exception(Log.ATTEMPT_FAILED_UNEXPECTEDLY, **names, suppressed=suppressed)

    async def close(self) -> None:
        """Close the connections and give up a token that is being fetched."""
        if self._tokens is not None:
            await self._tokens.close()
        line, self._line = self._line, None
        if line is not None:
            await line.sender.close()

    async def _attempt(self, delivery: Delivery, deadline: float) -> Attempt:
        line = self._line
        if line is None:
            async with asyncio.timeout(self._left(deadline)):
                line = await self._opened()
        if line.fixed is not None:
            return await self._post(line.sender, self._build(delivery, line.signer, line.fixed), deadline)
        async with asyncio.timeout(self._left(deadline)):
            token = None if self._tokens is None else await self._tokens.token()
            request = await self._request(delivery, line.signer, token)
        attempt = await self._post(line.sender, request, deadline)
        if attempt.status_code != _UNAUTHORIZED or self._tokens is None or token is None:
            return attempt
        async with asyncio.timeout(self._left(deadline)):
            fresh = await self._tokens.replace(token)
            if fresh is None:
                return attempt
            request = await self._request(delivery, line.signer, fresh)
        return await self._post(line.sender, request, deadline)

    async def _opened(self) -> _Line:
        async with self._opening:
            if self._line is None:
                secrets, route = await asyncio.to_thread(self._read_settings)
                lasts = self._tokens is None and not self._in_files
                fixed = self._read_fixed(None) if lasts else None
                sender = Sender(route, self._lookup, self._clock, self._version, hidden_forms(secrets))
                self._line = _Line(Signer(secrets), sender, fixed)
            return self._line

    def _read_settings(self) -> tuple[list[str], Route]:
        """Secrets and certificates may lie in files."""
        return [secret.reveal() for secret in self._target.secrets], route_of(self._target)

    async def _request(self, delivery: Delivery, signer: Signer, token: str | None) -> PostRequest:
        if self._in_files:
            return self._build(delivery, signer, await asyncio.to_thread(self._read_fixed, token))
        return self._build(delivery, signer, self._read_fixed(token))

    def _read_fixed(self, token: str | None) -> Fixed:
        auth: Mapping[str, str] = fixed_headers(self._target) if token is None else {"authorization": f"Bearer {token}"}
        return fixed_part(self._target, auth)

    def _build(self, delivery: Delivery, signer: Signer, fixed: Fixed) -> PostRequest:
        now_ms = self._clock.wall_ms()
        traceparent = self._tracing.traceparent(delivery)
        return build_request(delivery, fixed, signer, now_ms, partner_id=self._partner_id, traceparent=traceparent)

    async def _post(self, sender: Sender, request: PostRequest, deadline: float) -> Attempt:
        left = self._left(deadline)
        if left < _WORTH_SENDING:
            raise TimeoutError
        # To the tenth, so that a message about it reads `15 s`.
        return await sender.post(replace(request, timeout=round(left, 1)))

    def _left(self, deadline: float) -> float:
        return deadline - self._clock.mono()


def _failed(kind: FailureKind, detail: str, outcome: Outcome = Outcome.RETRY) -> Attempt:
    return Attempt(0, 0.0, outcome, kind=kind, error=error_text(kind, detail))
