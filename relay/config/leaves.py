"""Kinds of single values: how each is written in the file, read, bounded and shown.

A leaf stands in a setting's type, as in `Annotated[float, duration(1, 600)]`. It reads what the file holds
(`Scalar`) and accepts values of Python, so that settings can be made in code too. Its `ValueError`s become
lines of the report and therefore never quote the value.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from relay.config.interpolate import holds_nothing, not_set
from relay.config.problems import guess
from relay.config.tree import Scalar


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is being read.

    Attributes:
        environ: the environment variables.
        require_secrets: whether a secret that cannot be read now is a problem.
    """

    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    require_secrets: bool = True


Shape = Mapping[str, Any]
"""A JSON Schema (draft 2020-12) of what may be written, so that an editor can tell; `read` judges much more."""

STRING: Final[Shape] = {"type": "string"}


@dataclass(frozen=True, slots=True)
class Leaf:
    """One kind of single value.

    Attributes:
        words: how to write it, for the reference and for messages.
        read: the setting's value; raises ValueError saying what to write instead.
        show: a value as one would write it in the file.
        shape: what may be written where no environment variable stands for it.
    """

    words: str
    read: Callable[[object, Reading], object]
    show: Callable[[Any], str] = str
    shape: Shape = field(default_factory=lambda: STRING)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def run(value: object, info: ValidationInfo) -> object:
            return self.read(value, info.context if isinstance(info.context, Reading) else Reading())

        return core_schema.with_info_plain_validator_function(
            run, serialization=core_schema.plain_serializer_function_ser_schema(self.show, when_used="json-unless-none")
        )


def text_of(value: object, expected: str) -> str:
    """The characters of a value that must be single and not null.

    Raises:
        ValueError: it is not; `expected` says what to write.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, Scalar):
        raise ValueError(f"expected {expected}")
    if value.flaw is not None:
        raise ValueError(value.flaw)
    if value.missing:
        raise ValueError(not_set(value.missing))
    if value.is_null:
        raise ValueError(holds_nothing(value.empty) if value.empty else f"expected {expected}, not null")
    return value.text


def blamed(value: object, problem: str) -> str:
    """What is wrong with a text, or the variables that have left it empty."""
    emptied = value.empty if isinstance(value, Scalar) and not value.text else ()
    return holds_nothing(emptied) if emptied else problem


def text(words: str, fault: Callable[[str], str | None]) -> Leaf:
    """Characters, judged by `fault` (what is wrong, or None)."""

    def read(value: object, reading: Reading) -> str:
        characters = text_of(value, words)
        problem = fault(characters)
        if problem is not None:
            raise ValueError(blamed(value, problem))
        return characters

    return Leaf(words, read)


def late(leaf: Leaf) -> Leaf:
    """A text that commands which do not use it do without: empty while its variable is not set."""

    def read(value: object, reading: Reading) -> object:
        if isinstance(value, Scalar) and value.missing and value.flaw is None and not reading.require_secrets:
            return ""
        return leaf.read(value, reading)

    return replace(leaf, read=read)


def word(*choices: str) -> Leaf:
    """One of a few words."""
    expected = "one of " + ", ".join(choices)

    def read(value: object, reading: Reading) -> str:
        given = text_of(value, expected)
        if given not in choices:
            close = guess(given, choices)
            raise ValueError(f"expected {expected}" + (f'; did you mean "{close}"?' if close else ""))
        return given

    return Leaf(expected, read, shape={"enum": list(choices)})


_TRUTH: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def flag() -> Leaf:
    """true or false; the older `yes` and `on` are refused, since half the world reads them as text."""

    def read(value: object, reading: Reading) -> bool:
        if isinstance(value, bool):
            return value
        given = text_of(value, "true or false")
        if given not in _TRUTH:
            raise ValueError("expected true or false")
        return _TRUTH[given]

    return Leaf("true or false", read, lambda value: "true" if value else "false", {"type": "boolean"})


def whole(low: int, high: int) -> Leaf:
    """A whole number from `low` to `high`."""
    words = f"a whole number from {low} to {high}"

    def read(value: object, reading: Reading) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        else:
            given = text_of(value, words)
            if not re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", given):
                raise ValueError(f"expected {words}, in decimal digits only")
            number = int(given)
        if not low <= number <= high:
            raise ValueError(f"expected {words}")
        return number

    return Leaf(words, read, shape={"type": "integer", "minimum": low, "maximum": high})


def fraction(low: float, high: float) -> Leaf:
    """A decimal number from `low` to `high`."""
    words = f"a number from {low:g} to {high:g}"

    def read(value: object, reading: Reading) -> float:
        given = str(value) if isinstance(value, (int, float)) else text_of(value, words)
        if re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{1,20})?", given) and low <= float(given) <= high:
            return float(given)
        raise ValueError(f"expected {words}")

    shape = {"type": "number", "minimum": low, "maximum": high}
    return Leaf(words, read, lambda value: f"{value:g}", shape)


_DURATION: Final = "([0-9]{1,12})(ms|s|m|h|d)"
_SECONDS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def show_duration(seconds: float) -> str:
    """Seconds in the largest unit that divides them, to the millisecond, as in `5m`."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    whole_units = (unit for unit, length in _SECONDS.items() if milliseconds % round(length * 1000) == 0)
    unit = next(whole_units)
    return f"{milliseconds // round(_SECONDS[unit] * 1000)}{unit}"


def duration(low: float, high: float, *, zero: bool = False) -> Leaf:
    """A duration, in seconds once read, from `low` to `high` seconds, or 0 where `zero` says so."""
    words = f"a duration from {show_duration(low)} to {show_duration(high)}" + (", or 0s" if zero else "")

    def read(value: object, reading: Reading) -> float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            seconds = float(value)
        else:
            found = re.fullmatch(_DURATION, text_of(value, words))
            if found is None:
                raise ValueError(f"expected {words}; a whole number and a unit, as in 500ms 5s 10m 2h 7d")
            seconds = int(found[1]) * _SECONDS[found[2]]
        if (seconds == 0 and zero) or low <= seconds <= high:
            return seconds
        raise ValueError(f"expected {words}")

    return Leaf(words, read, show_duration, {"type": "string", "pattern": f"^{_DURATION}$"})


_RATE: Final = "([1-9][0-9]{0,6})/([smh])"
_RATE_PER: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_MAX_RATE: Final = 1_000_000


def rate() -> Leaf:
    """How many of something in a time; per second once read."""
    words = f"a rate from 1/h to {_MAX_RATE}/s, as in 50/s, 300/m or 1000/h"

    def read(value: object, reading: Reading) -> float:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= _MAX_RATE:
            return float(value)
        found = re.fullmatch(_RATE, text_of(value, words))
        if found is None or int(found[1]) > _MAX_RATE:
            raise ValueError(f"expected {words}")
        return int(found[1]) / _RATE_PER[found[2]]

    return Leaf(words, read, lambda value: f"{value:g}/s", {"type": "string", "pattern": f"^{_RATE}$"})


def or_null(leaf: Leaf) -> Leaf:
    """What another leaf reads, or null (None)."""

    def read(value: object, reading: Reading) -> object:
        if value is None or (isinstance(value, Scalar) and value.is_null):
            return None
        return leaf.read(value, reading)

    shape = {"anyOf": [leaf.shape, {"type": "null"}]}
    return Leaf(f"{leaf.words}, or null", read, lambda value: "null" if value is None else leaf.show(value), shape)
