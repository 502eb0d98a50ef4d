"""Switches for every way in which the stand-in upstream can misbehave."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final


class RestFault(StrEnum):
    """How the next REST answers go wrong."""

    NONE = "none"
    STATUS = "status"
    THROTTLED = "throttled"
    HTML = "html"
    EMPTY = "empty"
    HANG = "hang"


class ThrottleShape(StrEnum):
    """The forms in which a 429 says how long to wait."""

    META = "meta"
    EXTENSIONS = "extensions"
    GRAPHQL = "graphql"
    SENTENCE = "sentence"


class AllMarker(StrEnum):
    """What `subscribed` carries as `houdiniIds` in all mode: not documented, so each form is possible."""

    ALL = "all"
    STAR = "star"
    NULL = "null"
    EMPTY = "empty"
    ABSENT = "absent"


class Action(StrEnum):
    """What can be done to every open socket, once.

    `drop` resets the connections without a close frame, `close` closes with `close_code`; the others
    send a frame that no documented server would send.
    """

    DROP = "drop"
    CLOSE = "close"
    GARBAGE = "garbage"
    OVERSIZED = "oversized"
    BINARY = "binary"
    UNKNOWN_TYPE = "unknown_type"
    BAD_ORDER = "bad_order"


RESET: Final = 0
"""As `refuse_status`: reset the connection instead of answering."""


@dataclass(slots=True)
class Faults:
    """The switches; the values here are those of a well-behaved upstream.

    Attributes:
        refuse_count: how many of the next upgrades are refused, -1 for all of them.
        refuse_status: the HTTP status they get; `RESET` resets the connection.
        no_welcome: never send `welcome`.
        no_subscribed: take subscriptions without confirming them.
        mute: send no application message at all; protocol pings are still answered.
        no_pong: leave the application's pings unanswered.
        close_code: what `Action.CLOSE` closes with.
        drop_every: leave out every n-th push, 0 for none.
        double_pushes: send every push twice.
        reorder: hold every second push back until the next one has gone, or for half a second.
        binary_pushes: send pushes as binary frames.
        all_marker: what `subscribed` carries in all mode.
        rest_lag_seconds: REST shows the world as it was this long ago.
        rest_fault: how REST answers go wrong.
        rest_fault_count: how many of the next answers do, -1 for all of them.
        rest_status: the HTTP status of `RestFault.STATUS`.
        throttle_shape: the form of a 429.
        retry_after: seconds that a 429 asks for.
        retry_after_header: whether a 429 carries `Retry-After` too.
        rate_limit: REST requests allowed within a minute, 0 for any number.
        ignore_sort: ignore `sortBy` and `sortOrder`, as for a parameter nobody knows.
    """

    refuse_count: int = 0
    refuse_status: int = 503
    no_welcome: bool = False
    no_subscribed: bool = False
    mute: bool = False
    no_pong: bool = False
    close_code: int = 1012
    drop_every: int = 0
    double_pushes: bool = False
    reorder: bool = False
    binary_pushes: bool = False
    all_marker: AllMarker = AllMarker.ALL
    rest_lag_seconds: float = 0.0
    rest_fault: RestFault = RestFault.NONE
    rest_fault_count: int = -1
    rest_status: int = 500
    throttle_shape: ThrottleShape = ThrottleShape.META
    retry_after: int = 45
    retry_after_header: bool = False
    rate_limit: int = 0
    ignore_sort: bool = False

    def update(self, changes: Mapping[str, Any]) -> None:
        """Set several switches, or none of them if one is wrong.

        Raises:
            ValueError: a name that is no switch, or a value of the wrong type; says which.
        """
        checked = {name: self._checked(name, value) for name, value in changes.items()}
        for name, value in checked.items():
            setattr(self, name, value)

    def _checked(self, name: str, value: object) -> object:
        if name not in {switch.name for switch in fields(self)}:
            raise ValueError(f"no such switch: {name}")
        present = getattr(self, name)
        if isinstance(present, StrEnum):
            return type(present)(str(value))
        if isinstance(present, float) and type(value) in (int, float):
            return value
        if type(value) is not type(present):
            raise ValueError(f"{name}: {type(present).__name__} expected")
        return value

    def take_refusal(self) -> int | None:
        """The status this upgrade is refused with; None to let it pass. Counts down."""
        if self.refuse_count == 0:
            return None
        self.refuse_count -= self.refuse_count > 0
        return self.refuse_status

    def take_rest_fault(self) -> RestFault:
        """How this REST answer goes wrong. Counts down."""
        if self.rest_fault is RestFault.NONE or self.rest_fault_count == 0:
            return RestFault.NONE
        self.rest_fault_count -= self.rest_fault_count > 0
        return self.rest_fault
