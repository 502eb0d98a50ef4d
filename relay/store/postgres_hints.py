"""What instances tell one another through the database: hints that save a nap. Polling is the truth.

Behind a pooler in transaction mode none arrives, and nothing is lost but the time until the next look.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any, Final

import msgspec

from relay.errors import StoreError
from relay.store.postgres_link import Link

CHANNEL: Final = "houdini_relay"
_AGAIN: Final = 5.0
"""Seconds before listening is tried again."""
_MOST_BYTES: Final = 7_000
"""PostgreSQL carries 8,000; what is longer says that something is due, not what."""
_GRACE: Final = 2.0


class _Hint(msgspec.Struct, omit_defaults=True):
    sender: str
    due: list[str] = []
    anything: bool = False
    vacant: bool = False


class Hints:
    """Sends and hears them; one sender at a time, so that what comes meanwhile goes out together."""

    def __init__(
        self,
        link: Link,
        own_id: str,
        hear_due: Callable[[Collection[str] | None], None],
        hear_vacant: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """Prepare.

        Args:
            link: the database.
            own_id: whose hints are not heard.
            hear_due: is told names of targets that may have something due; None for any.
            hear_vacant: is told that the lead was given back.
            sleep: waits.
        """
        self._link = link
        self._own_id = own_id
        self._hear_due = hear_due
        self._hear_vacant = hear_vacant
        self._sleep = sleep
        self._due: set[str] = set()
        self._arrived = asyncio.Event()
        self._deaf = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to listen and to send."""
        self._tasks = [
            asyncio.create_task(self._listen(), name="hints-heard"),
            asyncio.create_task(self._send(), name="hints-sent"),
        ]

    async def stop(self) -> None:
        """End both."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def say_due(self, targets: Collection[str]) -> None:
        """Tell the others, soon, that deliveries of these targets are due."""
        self._due |= set(targets)
        self._arrived.set()

    async def say_vacant(self) -> None:
        """Tell the others that the lead was given back."""
        await self._notify(_Hint(self._own_id, vacant=True))

    async def _send(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            due, self._due = sorted(self._due), set()
            await self._notify(_Hint(self._own_id, due=due))

    async def _notify(self, hint: _Hint) -> None:
        payload = msgspec.json.encode(hint)
        if len(payload) > _MOST_BYTES:
            payload = msgspec.json.encode(_Hint(self._own_id, anything=True))
        bound = {"channel": CHANNEL, "payload": payload.decode()}
        with suppress(StoreError):  # they look by themselves
            await self._link.run(lambda session: session.row("notify", bound))

    async def _listen(self) -> None:
        while True:
            with suppress(StoreError):
                await self._listen_once()
            await self._sleep(_AGAIN)

    async def _listen_once(self) -> None:
        """Listen until the connection ends."""
        connection = await self._link.connect()
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _connection: ended.set())
        try:
            async with asyncio.timeout(_GRACE):
                await connection.add_listener(CHANNEL, self._hear)
            if self._deaf:
                self._hear_due(None)  # whatever was said meanwhile
            self._deaf = False
            await ended.wait()
            self._deaf = True
        except Exception as error:
            raise StoreError("listening ended") from error
        finally:
            connection.terminate()

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        try:
            hint = msgspec.json.decode(str(payload), type=_Hint)
        except msgspec.DecodeError:
            return  # somebody else's
        if hint.sender == self._own_id:
            return
        if hint.vacant:
            self._hear_vacant()
        if hint.due or hint.anything:
            self._hear_due(None if hint.anything else hint.due)
