"""Sentences for a terminal of eighty columns; whatever comes from outside is made printable."""

import textwrap
from datetime import UTC, datetime
from typing import Final

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


def span(seconds: float) -> str:
    """How long, in the two largest units: `3 s`, `2 min 5 s`, `1 d 4 h`."""
    left = max(0, round(seconds))
    if left < 60:
        return f"{left} s"
    for unit, size, below, small in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if left >= size:
            rest = left % size // small
            return f"{left // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{left} s"


def ago(moment: str | None, now: str) -> str | None:
    """How long before `now` this was, None when it never was (both ISO 8601)."""
    if moment is None:
        return None
    return span((_parse(now) - _parse(moment)).total_seconds())


def day_and_time(moment: str) -> str:
    """`2026-11-22 07:04:50` (UTC)."""
    return f"{_parse(moment):%Y-%m-%d %H:%M:%S}"


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _parse(moment: str) -> datetime:
    parsed = datetime.fromisoformat(moment)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
