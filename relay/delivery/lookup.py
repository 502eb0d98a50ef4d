"""Host names -> addresses, in threads of our own.

The operating system's look-up can neither be cancelled nor given a deadline. So its threads are nobody's to
wait for (daemon threads: neither the loop nor the interpreter joins them), and a name that hangs holds one
thread, not the loop's default executor.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections import deque
from typing import Final

from relay.clock import Clock
from relay.config.addresses import Address
from relay.delivery.failures import AttemptFailed, os_words
from relay.model import FailureKind

ANSWER_LIFE_S: Final = 10.0
"""Seconds for which an answer is used again."""
THREADS: Final = 32
"""Look-ups at the same time."""
WAITING_CAP: Final = 1024
"""Names that may wait for a thread, and answers that are kept."""
ADDRESS_CAP: Final = 16
"""Addresses of one name that are looked at."""

Addresses = tuple[Address, ...]
_Result = Addresses | OSError | ValueError


class Lookup:
    """Looks names up, one look-up per name at a time, and keeps answers for a moment; shared by all targets."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answers: dict[str, tuple[float, Addresses]] = {}
        self._under_way: dict[str, asyncio.Future[_Result]] = {}
        self._waiting: deque[str] = deque()
        self._threads = 0
        self._closed = False

    async def resolve(self, host: str, port: int) -> Addresses:
        """The addresses of a name, at least one, in the order in which to try them.

        Args:
            host: a name or a literal address, without brackets.
            port: what will be dialled; a name's addresses do not depend on it.

        Raises:
            AttemptFailed: kind `dns`.
        """
        known = self._answers.get(host)
        if known is not None and self._clock.mono() - known[0] < ANSWER_LIFE_S:
            return known[1]
        if self._closed:
            raise AttemptFailed(FailureKind.DNS, "names are no longer looked up, the relay stops")
        future = self._under_way.get(host)
        if future is None:
            if len(self._waiting) >= WAITING_CAP:
                raise AttemptFailed(FailureKind.DNS, "too many names wait to be looked up")
            future = self._under_way[host] = asyncio.get_running_loop().create_future()
            self._waiting.append(host)
            self._start_waiting()
        # Others may wait for the same look-up; only this caller's wait may be cancelled.
        result = await asyncio.shield(future)
        if isinstance(result, tuple):
            return result
        detail = os_words(result) if isinstance(result, OSError) else "the name cannot be looked up"
        raise AttemptFailed(FailureKind.DNS, detail)

    def close(self) -> None:
        """Take no more names. Threads that hang are left to themselves."""
        self._closed = True
        self._waiting.clear()
        for future in self._under_way.values():
            if not future.done():
                future.set_result(OSError(-1, "the relay stops"))
        self._under_way.clear()

    def _start_waiting(self) -> None:
        while self._waiting and self._threads < THREADS:
            host = self._waiting.popleft()
            self._threads += 1
            arguments = (asyncio.get_running_loop(), host)
            try:
                threading.Thread(target=self._look_up, args=arguments, name="lookup", daemon=True).start()
            except RuntimeError:
                self._settle(host, OSError(-1, "no thread can be started"))

    def _look_up(self, loop: asyncio.AbstractEventLoop, host: str) -> None:
        """In a thread of its own."""
        result: _Result
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            unique = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
            result = tuple(ipaddress.ip_address(text) for text in list(unique)[:ADDRESS_CAP])
        except (OSError, ValueError) as error:
            result = error
        # The loop may have been closed while this thread hung.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._arrived, host, result)

    def _arrived(self, host: str, result: _Result) -> None:
        self._settle(host, result)
        self._start_waiting()

    def _settle(self, host: str, result: _Result) -> None:
        self._threads -= 1
        if isinstance(result, tuple):
            self._keep(host, result)
        future = self._under_way.pop(host, None)
        if future is not None and not future.done():
            future.set_result(result or OSError(-1, "the name has no address"))

    def _keep(self, host: str, addresses: Addresses) -> None:
        self._answers.pop(host, None)
        if addresses:
            self._answers[host] = (self._clock.mono(), addresses)
        while len(self._answers) > WAITING_CAP:
            del self._answers[next(iter(self._answers))]
