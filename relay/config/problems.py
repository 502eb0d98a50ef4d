"""What is wrong with a configuration: where it stands, and what to write instead. Never a value from the file."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic_core import PydanticCustomError

from relay.errors import ConfigError

MAX_REPORTED: Final = 100
"""Lines in one report; a hostile file could hold a problem in every byte."""

Suffix = tuple[str | int, ...]
"""Steps from the judged value down to the part that is wrong."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to put right.

    Attributes:
        file: the file's name as the user gave it.
        line: counted from 1; 0 when the file as a whole is meant.
        column: counted from 1; 0 when the file as a whole is meant.
        path: the setting, as in `targets[0].url`; empty when no setting can be named.
        message: what is wrong, and what to write instead.
    """

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class InvalidConfig(ConfigError):
    """The configuration cannot be used.

    Attributes:
        problems: everything that is wrong, in the order of the file.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(in_order(problems))
        lines = [str(problem) for problem in self.problems[:MAX_REPORTED]]
        hidden = len(self.problems) - len(lines)
        if hidden:
            lines.append(f"{self.problems[0].file}: and {hidden} more")
        super().__init__("\n".join(lines))


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Each problem once, by position; one setting of `defaults` is judged once per target."""
    return sorted(dict.fromkeys(problems), key=lambda problem: (problem.line, problem.column))


def faults(found: Sequence[tuple[Suffix, str]]) -> PydanticCustomError:
    """Several problems inside one value, for a validator to raise."""
    return PydanticCustomError("faults", "faults", {"faults": tuple(found)})


def guess(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be."""
    close = difflib.get_close_matches(word[:80].lower(), list(known), n=1, cutoff=0.6)
    return close[0] if close else None
