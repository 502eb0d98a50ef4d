"""What one client wants to hear, and the answers to what it says. Pure.

Where the documentation is silent, this server: refuses `houdiniIds` that is not a list of strings
(`[]` and `null` included) as INVALID_MESSAGE, and stays in all mode when ids are subscribed in it.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from relay.simulator.faults import AllMarker

_MARKERS: Final[dict[AllMarker, dict[str, Any]]] = {
    AllMarker.ALL: {"houdiniIds": "all"},
    AllMarker.STAR: {"houdiniIds": "*"},
    AllMarker.NULL: {"houdiniIds": None},
    AllMarker.EMPTY: {"houdiniIds": []},
    AllMarker.ABSENT: {},
}
_INVALID: Final = {
    "type": "error",
    "code": "INVALID_MESSAGE",
    "message": "Message is not valid JSON or missing type field",
}

Reply = dict[str, Any]


@dataclass(slots=True)
class Subscription:
    """All orders, some, or none (the start of every connection).

    Attributes:
        everything: whether all of the partner's orders are wanted.
        ids: the orders wanted when not everything is.
    """

    everything: bool = False
    ids: set[str] = field(default_factory=set)

    def wants(self, houdini_id: str) -> bool:
        """Whether a change of this order is pushed."""
        return self.everything or houdini_id in self.ids

    def answer(self, text: str | bytes, marker: AllMarker = AllMarker.ALL) -> Reply:
        """Take in one message of the client; answers the server's reply to it."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return _INVALID
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            return _INVALID
        match message["type"]:
            case "ping":
                return {"type": "pong"}
            case "subscribe" | "unsubscribe" as verb:
                return self._change(verb, message, marker)
            case _:
                return {"type": "error", "code": "UNKNOWN_MESSAGE_TYPE", "message": "Unknown message type"}

    def _change(self, verb: str, message: dict[str, Any], marker: AllMarker) -> Reply:
        if "houdiniIds" not in message:
            self.everything = verb == "subscribe"
            self.ids.clear()
            return {"type": f"{verb}d", **_MARKERS[marker]}
        ids = message["houdiniIds"]
        if not isinstance(ids, list) or not ids or not all(isinstance(item, str) for item in ids):
            return _INVALID
        if verb == "subscribe":
            self.ids.update(() if self.everything else ids)
        else:
            self.everything = False
            self.ids.difference_update(ids)
        return {"type": f"{verb}d", "houdiniIds": ids}
