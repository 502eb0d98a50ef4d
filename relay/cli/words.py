"""Sentences for a terminal of eighty columns; whatever comes from outside is made printable."""

import textwrap
from typing import Final

from relay.admin.figures import about, ago, day_and_time, exactly, size, span, when

__all__ = ["WIDTH", "about", "ago", "day_and_time", "exactly", "printable", "size", "span", "when", "wrapped"]

WIDTH: Final = 80


def printable(text: object) -> str:
    """One line without control characters, whoever wrote it."""
    return "".join(char if char.isprintable() else "?" for char in str(text))


def wrapped(first: str, text: object, *, indent: int | None = None) -> str:
    """`first` and the text behind it, broken at eighty columns under one another."""
    margin = " " * (len(first) if indent is None else indent)
    lines = textwrap.wrap(
        printable(text), WIDTH, initial_indent=first, subsequent_indent=margin, break_on_hyphens=False
    )
    return "\n".join(lines) or first.rstrip()
