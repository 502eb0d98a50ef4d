"""One connection: a request's bytes out, one answer in, and whether it can be used again."""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from relay.delivery.answer import Answer, AnswerReader, NotAnAnswer
from relay.delivery.failures import AttemptFailed, lost
from relay.model import FailureKind


class Connection(asyncio.Protocol):
    """A TCP connection, with or without TLS, that carries one exchange at a time.

    Attributes:
        lost: whether it is gone.
        encrypted: whether TLS is spoken on it.
        stuck_sending: whether the last exchange was cut short while part of the request waited to be taken.
        head_at: monotonic time at which the head of the last answer was complete.
    """

    def __init__(self, sock: socket.socket, mono: Callable[[], float]) -> None:
        self._sock = sock
        self._mono = mono
        # The one that owns the socket, and the one that is written to: with TLS they differ.
        self._raw: asyncio.Transport | None = None
        self._transport: asyncio.Transport | None = None
        self._reader = AnswerReader()
        self._waiter: asyncio.Future[None] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._body_grace_s = 0.0
        self._on_lost: Callable[[Connection], None] | None = None
        self.lost = False
        self.encrypted = False
        self.stuck_sending = False
        self.head_at = 0.0

    @property
    def answer(self) -> Answer | None:
        """That of the present or last exchange, None until its head is complete."""
        return self._reader.answer

    async def exchange(self, request: bytes, timeout_s: float, body_grace_s: float) -> None:
        """Send a request and read its answer: `answer` is set once its head is complete.

        The body may take `body_grace_s` seconds more; whatever is wrong with it ends the exchange without error,
        because the head has decided.

        Raises:
            AttemptFailed: the connection broke, or what came is no answer; kinds `reset`, `tls`, `protocol`.
            TimeoutError: it took longer than `timeout_s` seconds.
        """
        self._reader.begin()
        self._body_grace_s = body_grace_s
        # A timer of its own costs a fifth of `asyncio.timeout`, which has to cancel a task.
        limit = asyncio.get_running_loop().call_later(timeout_s, self._give_up)
        try:
            await self._ask(request)
        finally:
            limit.cancel()

    async def ask_for_tunnel(self, request: bytes) -> int:
        """Send a CONNECT request and read the head of its answer: its status. After a 2xx the tunnel begins.

        Raises:
            AttemptFailed: as for `exchange`; or something followed that head at once, which nobody asked for.
        """
        self._reader.begin(head_only=True)
        await self._ask(request)
        answer = self._reader.answer
        return 0 if answer is None else answer.status

    async def _ask(self, request: bytes) -> None:
        transport = self.transport
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            transport.write(request)
            await self._waiter
        except asyncio.CancelledError:
            self.stuck_sending = self._unsent()
            raise
        finally:
            self._waiter = None
            if self._grace is not None:
                self._grace.cancel()
                self._grace = None

    def _give_up(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self.stuck_sending = self._unsent()
            self._waiter.set_exception(TimeoutError())

    def retire(self) -> bool:
        """After an exchange, also one that was cut short: whether this can carry another one; else it is closed."""
        if self._reader.reusable and self._is_open() and not self._unsent():
            # What has been dealt with can never be taken for the next one's.
            self._reader.answer = None
            return True
        self.abort()
        return False

    def undisturbed(self) -> bool:
        """Whether it is open and nothing lies on it, not even in the kernel, that the event loop has yet to read.

        An answer that nobody asked for would otherwise be taken for the answer to the next request: a delivery
        that nobody received would count as delivered.
        """
        if not self._is_open():
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @property
    def transport(self) -> asyncio.Transport:
        """What it writes to.

        Raises:
            AttemptFailed: it is closed.
        """
        if self._transport is None or not self._is_open():
            raise AttemptFailed(FailureKind.RESET, "connection closed before the request was sent")
        return self._transport

    def secured(self, transport: asyncio.Transport) -> None:
        """TLS has been agreed on: this is what is written to from now on."""
        self._transport = transport
        # The old one may have read the head of a proxy's answer, and wait for its body.
        self._reader.forget()
        self._reader = AnswerReader()
        self.encrypted = True

    def when_lost(self, tell: "Callable[[Connection], None]") -> None:
        """Have this called once when the connection is gone, which it may be already."""
        if self.lost:
            tell(self)
        else:
            self._on_lost = tell

    def abort(self) -> None:
        """Close it at once, without waiting for anything to be written or agreed."""
        self._reader.reusable = False
        if self._raw is not None:
            self._raw.abort()

    def _is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _unsent(self) -> bool:
        transports = (self._transport, self._raw)
        return any(transport is not None and transport.get_write_buffer_size() > 0 for transport in transports)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        self._raw = self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came, asked for or not."""
        waiter, reader = self._waiter, self._reader
        if waiter is None or waiter.done():
            self.abort()
            return
        waited_for_head = reader.answer is None
        try:
            reader.feed(data)
        except NotAnAnswer as flaw:
            self._unusable(waiter, str(flaw))
            return
        if reader.answer is not None and waited_for_head:
            self.head_at = self._mono()
        if reader.over:
            waiter.set_result(None)
        elif reader.answer is not None and self._grace is None:
            self._grace = asyncio.get_running_loop().call_later(self._body_grace_s, self._end_body)

    def _unusable(self, waiter: "asyncio.Future[None]", why: str) -> None:
        self.abort()
        if self._reader.answer is None:
            waiter.set_exception(AttemptFailed(FailureKind.PROTOCOL, f"the answer is not usable HTTP ({why})"))
        else:
            self._end_body()

    def _end_body(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def eof_received(self) -> None:
        """The other end sends no more; nothing can follow on this connection."""
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self.lost = True
        self._reader.reusable = False
        self._reader.forget()
        self._transport = self._raw = None
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            if self._reader.answer is None:
                waiter.set_exception(lost(exc, answer_began=self._reader.wire_bytes > 0))
            else:
                waiter.set_result(None)
        if self._on_lost is not None:
            self._on_lost(self)
            self._on_lost = None
