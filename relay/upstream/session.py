"""One epoch of the WebSocket: dial, converse, read, close. Moves bytes and watches the time, decides nothing.

Three tasks live as long as the connection: the reader (never waits for anything but the next frame), the
conversation about subscriptions, and the application ping. The first that ends ends the epoch.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final, NoReturn, Protocol

import aiohttp
import structlog

from relay.board import UpstreamBoard, UpstreamState
from relay.clock import Clock
from relay.config.settings import UpstreamSettings
from relay.log_names import Log
from relay.metrics import Metrics
from relay.model import Origin, Snapshot
from relay.upstream.dial import Socket, dial, hang_up, why_it_ended
from relay.upstream.endings import EndKind, EpochEnd, EpochOver
from relay.upstream.protocol import (
    BadMessage,
    BadOrder,
    Message,
    OrderUpdate,
    Pong,
    Subscribed,
    UnknownMessage,
    Unsubscribed,
    UpstreamErrorMessage,
    Welcome,
    parse_message,
    parse_order,
    snapshot,
)
from relay.upstream.subscription import PING, Effect, Stage, SubscriptionState
from relay.upstream.together import until_first_ends
from relay.upstream.watches import StrangeWatch

_MAX_ODDITIES: Final = 20
_LABELS: Final[dict[type, str]] = {
    Welcome: "welcome",
    Subscribed: "subscribed",
    Unsubscribed: "unsubscribed",
    OrderUpdate: "order_update",
    Pong: "pong",
    UpstreamErrorMessage: "error",
    BadMessage: "invalid",
}
_SAID_UNASKED: Final = (OrderUpdate, BadMessage, UnknownMessage)

log = structlog.get_logger()


class FrameSink(Protocol):
    """Where snapshots of frames go; the intake's side that never waits."""

    def offer(self, snapshot: Snapshot) -> bool:
        """Take it, or return False when full: the snapshot is dropped and a sweep is wanted."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an epoch needs of the process it lives in."""

    intake: FrameSink
    board: UpstreamBoard
    metrics: Metrics
    clock: Clock
    set_state: Callable[[UpstreamState], None]
    want_sweep: Callable[[str], None]
    strange: StrangeWatch = field(default_factory=StrangeWatch)


class Session:
    """One life of the connection; `run` may be awaited once.

    Attributes:
        subscribed: set as soon as the first subscription is acknowledged.
        server_date_ms: the server's own time at the upgrade, None when it named none.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        wanted: frozenset[str] | None,
        http: aiohttp.ClientSession,
        around: Surroundings,
    ) -> None:
        self.subscribed = asyncio.Event()
        self.server_date_ms: int | None = None
        self._settings = settings
        self._http = http
        self._around = around
        self._clock = around.clock
        self._messages = cache(around.metrics.upstream_messages.labels)
        self._state = SubscriptionState(wanted)
        self._changed = asyncio.Event()
        self._resweep: str | None = None
        self._last_message = 0.0
        self._oddities: set[str] = set()

    async def run(self) -> EpochEnd:
        """Live until the connection ends, for whatever reason; a cancellation closes politely and passes."""
        started = self._clock.mono()
        try:
            over = await self._live()
        except EpochOver as refused:
            over = refused
        lasted = self._clock.mono() - started
        alive_ms = self._gone_since(over.kind)
        return EpochEnd(over.kind, over.detail, self.subscribed.is_set(), lasted, over.retry_after, alive_ms)

    def _gone_since(self, kind: EndKind) -> int | None:
        """A silent peer has been gone for some time when that is noticed; so has one that we slept through."""
        last_ms = self._around.board.last_message_ms
        if last_ms is None or not self.subscribed.is_set():
            return None
        beat = self._settings.heartbeat
        quiet_for = (self._clock.wall_ms() - last_ms) / 1000
        return last_ms if kind is EndKind.SILENT or quiet_for > beat.interval + beat.timeout else None

    def want(self, wanted: frozenset[str] | None, *, sweep: bool = True) -> None:
        """Change the watched orders (None: all) without dropping the connection, then sweep unless told not to."""
        if wanted == self._state.wanted:
            return
        self._state.want(wanted)
        if sweep:
            self._resweep = "orders changed"
        self._changed.set()

    async def _live(self) -> EpochOver:
        self._around.set_state(UpstreamState.CONNECTING)
        line = await dial(self._settings, self._http, self._clock)
        self.server_date_ms = line.server_date_ms
        self._around.set_state(UpstreamState.CONNECTED)
        self._last_message = self._clock.mono()
        # Hanging up comes before the reader is cancelled: aiohttp does not wait for the peer's close frame once
        # a `receive` was cancelled, and closing over unread data would reset the connection and lose our own.
        _, errors = await until_first_ends(
            lambda: hang_up(line),
            reader=self._read(line.socket),
            conversation=self._converse(line.socket),
            ping=self._ping(line.socket),
        )
        return _judge(errors)

    async def _read(self, socket: Socket) -> NoReturn:
        while True:
            frame = await socket.receive()
            if frame.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                raise why_it_ended(socket, frame.type, frame.data, frame.extra)
            self._take(frame.data)

    def _take(self, data: str | bytes) -> None:
        now_ms = self._clock.wall_ms()
        self._last_message = self._clock.mono()
        self._around.board.last_message_ms = now_ms
        self._around.metrics.upstream_last_message.set(now_ms / 1000)
        message = parse_message(data)
        self._messages(_LABELS.get(type(message), "other")).inc()
        if isinstance(message, _SAID_UNASKED):
            self._watch_for_strangers(isinstance(message, OrderUpdate))
        match message:
            case OrderUpdate(order):
                self._take_order(order, now_ms)
            case BadMessage(reason):
                self._odd("bad_message", reason, "unreadable frame")
            case UnknownMessage(name):
                self._odd(f"unknown_type:{name}", name)
            case _:
                self._take_control(message)

    def _watch_for_strangers(self, understood: bool) -> None:
        if self._around.strange.feed(understood, self._last_message):
            detail = "most of what the upstream pushes is not understood; only sweeps bring changes"
            log.error(Log.UPSTREAM_SPEAKS_OTHERWISE, detail=detail)

    def _take_order(self, body: bytes, now_ms: int) -> None:
        try:
            order = parse_order(body)
        except BadOrder as error:
            self._odd("bad_order", str(error), "unreadable order")
            return
        seen = snapshot(order, body, origin=Origin.WEBSOCKET, seen_ms=now_ms, asked_at=self._last_message)
        if not self._around.intake.offer(seen):
            self._around.metrics.intake_dropped.inc()
            self._around.want_sweep("intake overflow")

    def _take_control(self, message: Message) -> None:
        match self._state.on_message(message):
            case Effect.AUTH_FAILED:
                raise EpochOver(EndKind.AUTH, "the upstream refused the credentials (AUTH_FAILED)")
            case Effect.GIVE_UP:
                raise EpochOver(EndKind.UNSUBSCRIBED, "the upstream keeps ending the subscription by itself")
            case Effect.DROPPED:
                self._odd("unsubscribed", "the upstream ended the subscription by itself")
                self._resweep = "subscription dropped"
                self._around.set_state(UpstreamState.WELCOMED)
            case Effect.COMPLAINT if isinstance(message, UpstreamErrorMessage):
                self._odd(f"complaint:{message.code}", f"{message.code}: {message.text}", "complaint")
        self._changed.set()

    def _odd(self, kind: str, detail: str, sweep_because: str | None = None) -> None:
        """Log the first of its kind in this epoch; what it may have cost is repaired by a sweep."""
        first = kind not in self._oddities and len(self._oddities) < _MAX_ODDITIES
        if first:
            self._oddities.add(kind)
            log.warning(Log.UPSTREAM_ODDITY, kind=kind, detail=detail)
        if sweep_because is not None or first:
            self._around.want_sweep(sweep_because or kind)

    async def _converse(self, socket: Socket) -> NoReturn:
        if not await self._until(lambda: self._state.stage is not Stage.CONNECTED):
            raise EpochOver(EndKind.TIMEOUT, "connected, but no welcome came in time")
        self._around.set_state(UpstreamState.WELCOMED)
        while True:
            text = self._state.next_message()
            if text is None:
                self._announce()
                await self._changed.wait()
                self._changed.clear()
            else:
                await self._send(socket, text)
                await self._acknowledged()

    async def _acknowledged(self) -> None:
        if await self._until(lambda: not self._state.waiting):
            return
        if not self._state.give_up_waiting():
            raise EpochOver(EndKind.TIMEOUT, "subscribed, but no acknowledgement came in time")
        count = len(self._state.unconfirmed)
        self._odd("unconfirmed", f"{count} of the wanted orders were not acknowledged; sweeps cover them")

    def _announce(self) -> None:
        if self._state.stage is not Stage.SUBSCRIBED:
            return
        self._around.set_state(UpstreamState.SUBSCRIBED)
        if self.subscribed.is_set() and self._resweep is not None:
            self._around.want_sweep(self._resweep)
        self._resweep = None
        self.subscribed.set()

    async def _until(self, reached: Callable[[], bool]) -> bool:
        """Wait for the conversation to reach a point; False when it did not within `handshake_timeout`."""
        try:
            async with asyncio.timeout(self._settings.handshake_timeout):
                while not reached():
                    await self._changed.wait()
                    self._changed.clear()
        except TimeoutError:
            return reached()
        return True

    async def _ping(self, socket: Socket) -> NoReturn:
        beat = self._settings.heartbeat
        while True:
            await self._clock.sleep(max(beat.interval - beat.timeout, beat.interval / 2))
            asked = self._clock.mono()
            await self._send(socket, PING)
            await self._clock.sleep(beat.timeout)
            if self._last_message < asked:
                raise EpochOver(EndKind.SILENT, f"no message within {beat.timeout:g} s of our ping")

    async def _send(self, socket: Socket, text: str) -> None:
        try:
            async with asyncio.timeout(self._settings.heartbeat.timeout):
                await socket.send_str(text)
        except TimeoutError:
            raise EpochOver(EndKind.SILENT, "the upstream does not read what we send") from None
        except (aiohttp.ClientError, ConnectionError):
            # The connection is gone; the reader knows why (a close code, a reset) and ends the epoch with it.
            log.debug(Log.UPSTREAM_SEND_FAILED)


def _judge(errors: Sequence[Exception]) -> EpochOver:
    """The one reason among what the tasks raised: a bug before all, then refused credentials, then the first."""
    reasons = [error for error in errors if isinstance(error, EpochOver)]
    bugs = [error for error in errors if not isinstance(error, EpochOver)]
    for bug in bugs:
        log.error(Log.UPSTREAM_EPOCH_CRASHED, exc_info=bug)
        return EpochOver(EndKind.CRASHED, f"an error of our own: {type(bug).__name__}")
    nameless = EpochOver(EndKind.CRASHED, "an error of our own: the epoch's tasks ended without a reason")
    return min(reasons, key=lambda reason: reason.kind is not EndKind.AUTH, default=nameless)
