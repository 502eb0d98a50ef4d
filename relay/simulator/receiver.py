"""A webhook receiver that believes nothing it cannot verify, and can misbehave on request.

It checks Standard Webhooks `v1` signatures with code of its own: sharing the relay's signer would
hide a mistake in it.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import structlog
from aiohttp import web

from relay.clock import Clock
from relay.log_names import Log

_log = structlog.get_logger()

TOLERANCE_SECONDS: Final = 300
_BODY_BYTES: Final = 1_000_000
_KEPT_BYTES: Final = 256_000_000
_DIGITS_MAX: Final = 12
_READ_SECONDS: Final = 30.0
_HOLD_SECONDS_MAX: Final = 120.0
_SHUTDOWN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request that reached the receiver.

    Attributes:
        number: position among all arrivals, from 1.
        target: the path it was posted to, without the leading slash: one receiver can be several targets.
        webhook_id: `webhook-id`, empty when missing.
        attempt: `relay-attempt`, None when missing.
        body: the bytes as they came.
        houdini_id: the order it speaks of, None when it speaks of none.
        type: event type; of a raw body the message's `type`.
        sequence: `relay.orderSequence`, None where the format has none.
        status: `relay.status`, or the order's `statusLabel`.
        origin: `relay.origin`, None where the format has none.
        problem: why the signature was not believed, None when it was.
        answer: the HTTP status it was answered with.
    """

    number: int
    target: str
    webhook_id: str
    attempt: int | None
    body: bytes
    houdini_id: str | None
    type: str | None
    sequence: int | None
    status: str | None
    origin: str | None
    problem: str | None
    answer: int

    @property
    def acknowledged(self) -> bool:
        """Whether it was verified and answered with 2xx."""
        return self.problem is None and 200 <= self.answer < 300


@dataclass(slots=True)
class Misbehaviour:
    """How the receiver treats deliveries that are in order; the values here are those of a good one.

    Attributes:
        fail_rate: share of deliveries answered with `status`, 0 to 1.
        status: the HTTP status of a failure.
        delay: seconds before each answer.
        fail_until: every delivery fails until this monotonic time.
        retry_after: `Retry-After` of a failure, None for none.
    """

    fail_rate: float = 0.0
    status: int = 500
    delay: float = 0.0
    fail_until: float = 0.0
    retry_after: int | None = None


def signature_problem(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float) -> str | None:
    """Why a request is not to be believed; None when one of its `v1` signatures holds.

    Args:
        headers: the request's, looked up in lower case.
        body: the bytes as they came.
        secrets: `whsec_...`, any of which may have signed.
        now: unix seconds.
    """
    identity, sent_at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not identity:
        return "webhook-id is missing"
    seconds = _natural(sent_at)
    if seconds is None:
        return "webhook-timestamp is missing or no number"
    if abs(now - seconds) > TOLERANCE_SECONDS:
        return "webhook-timestamp is more than five minutes off"
    signed = b".".join((identity.encode("latin-1", "replace"), sent_at.encode(), body))
    given = headers.get("webhook-signature", "").encode("latin-1", "replace").split(b" ")
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        expected = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
        if any(hmac.compare_digest(expected, candidate) for candidate in given):
            return None
    return "no signature holds"


class Receiver:
    """Answers any POST at any path; keeps what came in, up to a bound.

    Attributes:
        arrivals: what came in, oldest first.
        forgotten: how many arrivals were let go to stay within the bound.
        misbehaviour: change it at any time.
        port: where it listens, known after `start`.
    """

    def __init__(
        self,
        secrets: Sequence[str],
        *,
        clock: Clock,
        rng: Random,
        on_arrival: Callable[[Arrival], None] | None = None,
        kept_bytes: int = _KEPT_BYTES,
    ) -> None:
        """Prepare to verify.

        Args:
            secrets: `whsec_...`, any of which may sign.
            clock: judges timestamps.
            rng: decides which deliveries fail.
            on_arrival: told of each arrival once it has been answered.
            kept_bytes: bound on the bodies kept.

        Raises:
            ValueError: no secret, or one that is not `whsec_` and base64.
        """
        if not secrets:
            raise ValueError("a receiver needs at least one secret")
        for secret in secrets:
            _check_secret(secret)
        self._secrets = tuple(secrets)
        self._clock = clock
        self._rng = rng
        self._on_arrival = on_arrival
        self._room = kept_bytes
        self._runner: web.AppRunner | None = None
        self.arrivals: deque[Arrival] = deque()
        self.forgotten = 0
        self.misbehaviour = Misbehaviour()
        self.port = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one.

        Raises:
            OSError: the address cannot be had.
        """
        app = web.Application(client_max_size=_BODY_BYTES)
        app.router.add_post("/{target:.*}", self._receive)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.port = self._runner.addresses[0][1]
        _log.info(Log.RECEIVER_STARTED, host=host, port=self.port)

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                body = await request.read()
        except TimeoutError:
            return web.Response(status=408, text="the body took too long")
        headers = {name.lower(): value for name, value in request.headers.items()}
        problem = signature_problem(headers, body, self._secrets, self._clock.wall_ms() / 1000)
        answer = self._answer_to(problem)
        if self.misbehaviour.delay:
            await asyncio.sleep(min(self.misbehaviour.delay, _HOLD_SECONDS_MAX))
        response = web.Response(status=answer, text="ok" if answer < 300 else problem or "told to fail")
        if answer >= 300 and self.misbehaviour.retry_after is not None:
            response.headers["Retry-After"] = str(self.misbehaviour.retry_after)
        arrival = self._describe(request.match_info["target"], headers, body, problem, answer)
        self._keep(arrival)
        if self._on_arrival is not None:
            self._on_arrival(arrival)
        return response

    def _answer_to(self, problem: str | None) -> int:
        if problem is not None:
            return 401
        wrong = self.misbehaviour
        failing = self._clock.mono() < wrong.fail_until or self._rng.random() < wrong.fail_rate
        return wrong.status if failing else 200

    def _describe(
        self, target: str, headers: Mapping[str, str], body: bytes, problem: str | None, answer: int
    ) -> Arrival:
        message = _members(body)
        order, place = _object(message.get("data")), _object(message.get("relay"))
        return Arrival(
            number=self.forgotten + len(self.arrivals) + 1,
            target=target,
            webhook_id=headers.get("webhook-id", ""),
            attempt=_natural(headers.get("relay-attempt", "")),
            body=body,
            houdini_id=_text(order.get("houdiniId")),
            type=_text(message.get("type")),
            sequence=place["orderSequence"] if type(place.get("orderSequence")) is int else None,
            status=_text(place.get("status")) or _text(order.get("statusLabel")),
            origin=_text(place.get("origin")),
            problem=problem,
            answer=answer,
        )

    def _keep(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)
        self._room -= len(arrival.body)
        while self._room < 0:
            self._room += len(self.arrivals.popleft().body)
            self.forgotten += 1


def _check_secret(secret: str) -> None:
    encoded = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if encoded == secret or not key:
        raise ValueError("a secret must be whsec_ followed by base64")


def _natural(text: str) -> int | None:
    fits = len(text) <= _DIGITS_MAX and text.isascii() and text.isdigit()
    return int(text) if fits else None


def _members(body: bytes) -> dict[str, Any]:
    try:
        return _object(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
