"""A value that is used and never shown. Pure but for the reading that it is given."""

from collections.abc import Callable
from typing import Any, Self


class Secret:
    """A value that must never be shown; `reveal()` reads it anew, so a rotated file is picked up."""

    __slots__ = ("_read", "_where")

    def __init__(self, read: Callable[[], str], where: str = "value") -> None:
        self._read = read
        self._where = where

    @classmethod
    def of(cls, value: str) -> Self:
        """A secret whose value is known already."""
        return cls(lambda: value)

    @property
    def where(self) -> str:
        """Where it comes from, for messages: `value`, `file /run/secrets/x`, `credential x`."""
        return self._where

    def reveal(self) -> str:
        """The value itself.

        Raises:
            SecretUnreadable: its file or credential cannot be read now.
        """
        return self._read()

    def __repr__(self) -> str:
        return f"Secret({self._where})"

    def __str__(self) -> str:
        return "[redacted]"

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a secret cannot be pickled")
