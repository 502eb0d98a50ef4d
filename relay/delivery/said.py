"""What an attempt failed with, in one line for people: why there was no answer, or what the answer says. Pure.

Receivers are hostile: their line is bounded, printable, and never ends in half a word, because half a secret would
not be recognised as one where secrets are blanked.
"""

import re
from typing import Final

from relay.delivery.failures import printable
from relay.model import Attempt

LINE_CAP: Final = 120
"""Characters of what a receiver answered."""

_LAST_WORD: Final = re.compile(r"""[^\s"'(){}\[\]<>,;]*\Z""")


def why_failed(attempt: Attempt) -> str:
    """As in `timeout: no answer within 15 s`, `status 500` or `status 500: database is locked`."""
    if attempt.error is not None:
        return attempt.error
    line = first_line(attempt.response_body)
    return f"status {attempt.status_code}: {line}" if line else f"status {attempt.status_code}"


def first_line(body: bytes) -> str:
    """The first line of an answer that has words; none of markup, which begins with anything but its message."""
    text = body.decode("utf-8", "backslashreplace").lstrip("\ufeff \t\r\n")
    if text.startswith("<"):
        return ""
    line = next((line for line in text.splitlines() if any(map(str.isalnum, line))), "")
    line = printable(" ".join(line.split()), len(body) * 4)
    if len(line) <= LINE_CAP:
        return line
    kept = _LAST_WORD.sub("", line[: LINE_CAP - 4]).rstrip()
    return f"{kept} ..." if kept else ""
