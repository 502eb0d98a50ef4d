"""JSON on several lines without reading it: every digit, escape and key stays as it came. Pure."""

import re
from typing import Final

DEEPEST: Final = 16
"""Levels that are indented; what lies deeper stays on one line, or hostile nesting would grow without bound."""
_STEP: Final = "  "
_TOKENS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\]:,]|[^\s"{}\[\]:,]++', re.DOTALL)


def indented(text: str, longest: int) -> str:
    """The same JSON, indented.

    Args:
        text: well-formed JSON.
        longest: characters after which it is cut.
    """
    parts: list[str] = []
    length, depth, just_opened = 0, 0, False
    for part in _TOKENS.findall(text):
        before, after = "", ""
        if part in ("}", "]"):
            depth -= 1
            before = "" if just_opened else _line(depth + 1, depth)
        elif just_opened:
            before = _line(depth, depth)
        just_opened = part in ("{", "[")
        depth += just_opened
        if part == ",":
            after = _line(depth, depth) or " "
        elif part == ":":
            after = " "
        parts.append(before + part + after)
        length += len(parts[-1])
        if length > longest:
            return "".join(parts)[:longest] + "\n\u2026"
    return "".join(parts)


def _line(inside: int, depth: int) -> str:
    """A new line for what stands at `depth`, nothing when its surroundings (`inside`) are too deep to have lines."""
    return "" if inside > DEEPEST else "\n" + _STEP * depth
