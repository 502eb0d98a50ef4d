"""Tasks that live and end together.

Not `asyncio.TaskGroup`: when a task of a group fails, Python 3.11 and 3.12 leave the parent's count of
cancellations raised (`Task.cancelling()`), and a later group in the same parent then mistakes it for a
cancellation from outside. An epoch ends by a failing task every time, and the supervisor lives through all.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def _no_farewell() -> None:
    return


async def until_first_ends(
    farewell: Callable[[], Awaitable[None]] = _no_farewell, **work: Coroutine[Any, Any, T]
) -> tuple[list[T], list[Exception]]:
    """Run these side by side, each given with its name, until one ends; returns when all have.

    `farewell` is awaited before the others are cancelled, also when a cancellation comes from outside (which
    then reaches all of them and passes on). Returns what they returned and what they raised, the first to end
    first.
    """
    tasks = [asyncio.create_task(one, name=f"upstream-{name}") for name, one in work.items()]
    first: set[asyncio.Task[T]] = set()
    try:
        first, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        try:
            await farewell()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    ended = [task for task in sorted(tasks, key=lambda task: task not in first) if not task.cancelled()]
    errors = [error for task in ended if isinstance(error := task.exception(), Exception)]
    return [task.result() for task in ended if task.exception() is None], errors
