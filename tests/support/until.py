"""Waiting for a fact instead of for a time."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable


async def until(fact: Callable[[], object | Awaitable[object]], seconds: float = 10.0, *, pause: float = 0.005) -> None:
    """Return once `fact()` is true, looking every `pause` seconds; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            answer = fact()
            if await answer if isawaitable(answer) else answer:
                return
            await asyncio.sleep(pause)
