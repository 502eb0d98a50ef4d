"""What happens right now, for whoever listens: nothing is kept, nobody is waited for.

Rooms publish after a commit, from the event loop; a listener that does not keep up loses the oldest of what
waits for it and is told how many. What must not be lost is in the store and is read from there.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

WAITING: Final = 1000
"""Happenings that may wait for one listener."""
MISSED: Final = "missed"
"""The kind by which a listener is told that some were dropped; its `count` says how many."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that has just happened.

    Attributes:
        number: counts all happenings of this process, heard or not, from 1.
        kind: `event`, `attempt`, `target`, `upstream`, `notice`; `missed` comes from here.
        data: what is told of it; must not be changed afterwards.
    """

    number: int
    kind: str
    data: Mapping[str, Any]


Wants = Callable[[Happening], bool]


class Listener:
    """What waits for one listener; `with` it, so that it is forgotten at the end."""

    def __init__(self, wants: Wants, leave: Callable[["Listener"], None]) -> None:
        self._wants = wants
        self._leave = leave
        self._waiting: deque[Happening] = deque()
        self._missed = 0
        self._stirred = asyncio.Event()
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(self)

    @property
    def behind(self) -> bool:
        """Whether something waits here."""
        return bool(self._waiting)

    def tell(self, happening: Happening) -> None:
        """Let it wait here, at the cost of the oldest one when there is no room."""
        if self._ended or not self._wants(happening):
            return
        if len(self._waiting) >= WAITING:
            self._waiting.popleft()
            self._missed += 1
        self._waiting.append(happening)
        self._stirred.set()

    def end(self) -> None:
        """Nothing more comes; what waits may still be taken."""
        self._ended = True
        self._stirred.set()

    async def next(self) -> Happening | None:
        """The next one, as soon as there is one; None when there will be none any more."""
        while not self._waiting:
            if self._ended:
                return None
            self._stirred.clear()
            await self._stirred.wait()
        if self._missed:
            # What was dropped was older than all that waits, so this is the place to say so.
            missed, self._missed = self._missed, 0
            return Happening(self._waiting[0].number - 1, MISSED, {"count": missed})
        return self._waiting.popleft()


class Live:
    """Where rooms say what happens."""

    def __init__(self) -> None:
        self._number = 0
        self._listeners: dict[Listener, None] = {}
        self._ended = False

    @property
    def number(self) -> int:
        """The last happening's number, 0 before the first."""
        return self._number

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def publish(self, kind: str, tell: Callable[[], Mapping[str, Any]]) -> None:
        """Tell everybody who wants to know; only after a commit, and only from the event loop.

        Mostly nobody listens: `tell` is only asked for what there is to be told when somebody does.
        """
        self._number += 1
        if self._listeners:
            happening = Happening(self._number, kind, tell())
            for listener in self._listeners:
                listener.tell(happening)

    def subscribe(self, wants: Wants = lambda _happening: True) -> Listener:
        """Hear from now on what `wants` says yes to; it must be quick and never raise."""
        listener = Listener(wants, self._forget)
        if self._ended:
            listener.end()
        self._listeners[listener] = None
        return listener

    def end(self) -> None:
        """Tell every listener that nothing more comes."""
        self._ended = True
        for listener in self._listeners:
            listener.end()

    def _forget(self, listener: Listener) -> None:
        self._listeners.pop(listener, None)
