"""`${VAR}` and `${VAR:-default}` inside a value."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?")

MALFORMED: Final = "write ${NAME} or ${NAME:-default}, or $${ for the two characters ${"


@dataclass(frozen=True, slots=True)
class Interpolated:
    """A value with its variables put in.

    Attributes:
        missing: variables that are not set.
        flaw: why it cannot be read.
        empty: variables that are set and hold nothing.
    """

    text: str
    missing: tuple[str, ...] = ()
    flaw: str | None = None
    empty: tuple[str, ...] = ()


def interpolate(text: str, environ: Mapping[str, str]) -> Interpolated:
    """Put variables in, once: what a variable holds is not looked through again.

    A default counts when the variable is unset or empty, as in a shell.
    """
    pieces: list[str] = []
    missing: list[str] = []
    empty: list[str] = []
    flaw: str | None = None
    end = 0
    for found in _REFERENCE.finditer(text):
        pieces.append(text[end : found.start()])
        end = found.end()
        name, default = found["name"], found["default"]
        if name is None:
            if found.group() == "${":
                flaw = MALFORMED
            pieces.append("${")
            continue
        value = environ.get(name)
        if default is not None:
            value = value or default
        if value is None:
            missing.append(name)
        elif not value and default is None:
            empty.append(name)
        elif any("\ud800" <= character <= "\udfff" for character in value):
            flaw = f"the environment variable {name} does not hold valid UTF-8"
        pieces.append(value or "")
    pieces.append(text[end:])
    return Interpolated("".join(pieces), tuple(dict.fromkeys(missing)), flaw, tuple(dict.fromkeys(empty)))


def not_set(missing: tuple[str, ...]) -> str:
    """The message for variables that are not set."""
    if len(missing) == 1:
        return f"the environment variable {missing[0]} is not set; export it before starting"
    return f"the environment variables {', '.join(missing)} are not set"


def holds_nothing(empty: tuple[str, ...]) -> str:
    """The message for a value that is empty because these variables are."""
    if len(empty) == 1:
        return f"the environment variable {empty[0]} is set, but empty; give it a value"
    return f"the environment variables {', '.join(empty)} are set, but empty"
