"""What an attempt failed with, in one line for people: why there was no answer, or what the answer says. Pure.

Receivers are hostile: their line is bounded, printable, and never ends in half a word, because half a secret would
not be recognised as one where secrets are blanked. That holds for a body that was itself cut, too.
"""

import re
from typing import Final

from relay.delivery.failures import printable
from relay.model import Attempt

LINE_CAP: Final = 120
"""Characters of what a receiver answered."""

KEPT: Final = 4 * 1024
"""Bytes of an answer's body that are kept with its attempt."""

_MARKUP: Final = re.compile(r"[^<\w]*<")
_LAST_WORD: Final = re.compile(r"""[^\s"'(){}\[\]<>,;]*\Z""")


def why_failed(attempt: Attempt) -> str:
    """As in `timeout: no answer within 15 s`, `status 500` or `status 500: database is locked`."""
    if attempt.error is not None:
        return attempt.error
    line = first_line(attempt.response_body)
    return f"status {attempt.status_code}: {line}" if line else f"status {attempt.status_code}"


def first_line(body: bytes) -> str:
    """The first line of an answer that has words; none if that is markup, which begins with anything but its message.

    Args:
        body: of the answer, at most `KEPT` bytes of it; as many are taken for a part of a longer one.
    """
    lines = body.decode("utf-8", "backslashreplace").splitlines()
    place = next((place for place, line in enumerate(lines) if any(map(str.isalnum, line))), None)
    if place is None or _MARKUP.match(lines[place]):
        return ""
    words = " ".join(lines[place].split())
    cut = len(words) > LINE_CAP or (len(body) >= KEPT and place == len(lines) - 1)
    line = printable(words[: LINE_CAP + 1], LINE_CAP * 8)
    if not cut and len(line) <= LINE_CAP:
        return line
    kept = _LAST_WORD.sub("", line[: LINE_CAP - 4]).rstrip()
    return f"{kept} ..." if kept else ""
