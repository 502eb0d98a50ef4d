"""OAuth 2 client credentials: one access token per target, fetched when it is needed and kept in memory.

Whoever needs a token while one is being fetched waits for that one. A token server that fails is left alone
for a few seconds, however many attempts would like to ask it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from relay.clock import Clock
from relay.delivery.token_answer import Token
from relay.delivery.token_request import AuthFailed

FAILURE_MEMORY: Final = 5.0
"""Seconds for which a failure to get a token answers everybody who asks."""
REPLACE_PAUSE: Final = 10.0
"""Seconds between two fetches for the reason that the target refused the token."""


class TokenSource:
    """The access token of one target.

    Args:
        name: the target's.
        request: gets a new token or raises AuthFailed.
        clock: the time.
    """

    def __init__(self, name: str, request: Callable[[], Coroutine[Any, Any, Token]], clock: Clock) -> None:
        self._name = name
        self._request = request
        self._clock = clock
        self._token: Token | None = None
        self._fetching: asyncio.Task[Token] | None = None
        self._failure: AuthFailed | None = None
        self._silent_until = 0.0
        self._replaced_at: float | None = None

    async def token(self) -> str:
        """A token that is good for now, from memory or fetched.

        Raises:
            AuthFailed: none can be had.
        """
        if self._token is not None and self._clock.mono() < self._token.good_until:
            return self._token.value
        if self._fetching is None:
            self._fail_if_just_failed()
            self._fetching = asyncio.create_task(self._request(), name=f"token-{self._name}")
            self._fetching.add_done_callback(self._fetched)
        # Who gives up waiting must not take the token away from the others.
        return (await asyncio.shield(self._fetching)).value

    async def replace(self, refused: str) -> str | None:
        """Another token in place of one that the target answered with 401; None when it is too early to ask again.

        Raises:
            AuthFailed: none can be had.
        """
        if self._token is not None and self._token.value == refused:
            now = self._clock.mono()
            if self._replaced_at is not None and now - self._replaced_at < REPLACE_PAUSE:
                return None
            self._replaced_at = now
            self._token = None
        fresh = await self.token()
        return None if fresh == refused else fresh

    async def close(self) -> None:
        """Give up a fetch under way."""
        fetching = self._fetching
        if fetching is not None:
            fetching.cancel()
            await asyncio.wait([fetching])

    def _fail_if_just_failed(self) -> None:
        if self._failure is not None and self._clock.mono() < self._silent_until:
            raise AuthFailed(str(self._failure), forbidden=self._failure.forbidden)

    def _fetched(self, task: asyncio.Task[Token]) -> None:
        self._fetching = None
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._token, self._failure = task.result(), None
        elif isinstance(error, AuthFailed):
            self._failure, self._silent_until = error, self._clock.mono() + FAILURE_MEMORY
