"""Reading server-sent events, as the command line does with `GET /api/v1/stream`. Pure."""

import json
from dataclasses import dataclass
from typing import Any, Final

MOST_LINES: Final = 64
"""Lines of one event beyond which it is none of ours."""


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that the stream tells.

    Attributes:
        id: what to send as `Last-Event-ID` to go on after it.
        kind: `attempt`, `missed`, ...; empty for what only tells an id or that the stream lives.
        data: the document of this kind; None where the kind is empty.
    """

    id: str
    kind: str
    data: Any


class StreamReader:
    """Makes events out of lines."""

    def __init__(self) -> None:
        self._id = ""
        self._fields: dict[str, str] = {}
        self._lines = 0

    def read(self, line: str) -> Told | None:
        """Take the next line; what it completes, None while nothing.

        Raises:
            ValueError: this is no stream of ours.
        """
        if line:
            self._lines += 1
            if self._lines > MOST_LINES:
                raise ValueError("too many lines in one event")
            name, _, value = line.partition(":")
            self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields, self._lines = self._fields, {}, 0
        self._id = fields.get("id", self._id)
        if "data" not in fields:
            return Told(self._id, "", None)
        try:
            data = json.loads(fields["data"])
        except RecursionError as error:
            raise ValueError(str(error)) from None
        if not isinstance(data, dict):
            raise ValueError("an event's data is no object")
        return Told(self._id, fields.get("event", ""), data)
