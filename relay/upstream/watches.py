"""What only shows over time: a protocol that has changed its words. Pure."""

from typing import Final

STRANGE_WINDOW: Final = 300.0
"""Seconds over which pushed messages are counted."""

_FEWEST: Final = 5


class StrangeWatch:
    """Whether most of what the upstream pushes is not understood: then something was renamed."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._pushed = self._strange = 0
        self._said = False

    def feed(self, understood: bool, now: float) -> bool:
        """Count a pushed message; True once when a window's majority was not understood."""
        if self._since is None:
            self._since = now
        self._pushed += 1
        self._strange += not understood
        if now - self._since < STRANGE_WINDOW:
            return False
        alarming = self._pushed >= _FEWEST and self._strange * 2 > self._pushed
        news = alarming and not self._said
        self._since, self._pushed, self._strange, self._said = None, 0, 0, alarming
        return news
