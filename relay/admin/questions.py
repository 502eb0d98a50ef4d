"""What callers may send: JSON bodies as typed values, and moments as people write them."""

import re
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Final, Literal, TypeVar

import msgspec
from aiohttp import web

from relay.admin.answers import ApiError

LONGEST_PATH: Final = 4096
AUDIT_WINDOW: Final = 48 * 3600
"""Seconds of the past that REST shows: an audit of more would call complete what nobody has compared."""
_TYPING: Final = 60
"""Seconds by which a moment at the window's edge may have gone by since somebody worked it out."""
_TOO_LONG_AGO: Final = (
    "since: the upstream's REST shows orders of the last 48 h only, so older ones cannot be compared; write 48h or less"
)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class NoQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a POST that has nothing to say."""


class AuditQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /api/v1/audit`.

    Attributes:
        since: how far back, as in `24h`, or a moment in ISO 8601; at most `AUDIT_WINDOW`.
        target: only what this target lacks; None for all.
        repair: whether what is missing is to be delivered.
    """

    since: str = "24h"
    target: str | None = None
    repair: bool = False

    def since_ms(self, now_ms: int) -> int:
        """From when, in wall milliseconds.

        Raises:
            ApiError: it is no moment, or lies before what REST shows.
        """
        try:
            found = moment_ms(self.since, now_ms)
        except ValueError as error:
            raise ApiError(400, "bad_since", f"since: {error}") from None
        if found < now_ms - (AUDIT_WINDOW + _TYPING) * 1000:
            raise ApiError(400, "bad_since", _TOO_LONG_AGO)
        return found


class BackupQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /api/v1/store/backup`: `path` is that of a new file, absolute."""

    path: str

    def checked(self) -> PurePosixPath:
        """The path.

        Raises:
            ApiError: it is no absolute path.
        """
        path = PurePosixPath(self.path)
        if not path.is_absolute() or len(self.path) > LONGEST_PATH or not self.path.isprintable():
            raise ApiError(400, "bad_path", "`path` must be the absolute path of a new file")
        return path


class ReplayQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /api/v1/replay`.

    Attributes:
        target: whose deliveries.
        since: events seen since, as in `24h` or ISO 8601; None for all.
        until: events seen before.
        status: how the last delivery has ended.
        order: a houdiniId; None for all.
        dry_run: whether only to count.
    """

    target: str
    since: str | None = None
    until: str | None = None
    status: Literal["dead", "delivered", "superseded", "cancelled", "any"] = "dead"
    order: str | None = None
    dry_run: bool = False


Q = TypeVar("Q", bound=msgspec.Struct)


async def read_question(request: web.Request, kind: type[Q]) -> Q:
    """The body as one of the above; no body at all means all defaults.

    Raises:
        ApiError: it is no JSON, or not of this shape; says where.
    """
    body = await request.read()
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        # Its texts name fields and types, never values; unknown keys are quoted, so they are left out.
        detail = re.sub(r"unknown field `.*`", "unknown field", str(error), flags=re.DOTALL)
        raise ApiError(400, "bad_body", f"the body does not fit: {detail}") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ApiError(400, "bad_body", "the body is not JSON") from None


def path_id(text: str) -> int | None:
    """A delivery's id out of a path, None when it can be none."""
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,17}", text) else None


def period(since: str | None, until: str | None, now_ms: int) -> tuple[int | None, int | None]:
    """From when and until when, in wall milliseconds.

    Raises:
        ApiError: one of them is no moment, or the first is not before the second.
    """
    found: list[int | None] = []
    for name, text in (("since", since), ("until", until)):
        try:
            found.append(None if text is None else moment_ms(text, now_ms))
        except ValueError as error:
            raise ApiError(400, f"bad_{name}", f"{name}: {error}") from None
    since_ms, until_ms = found
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise ApiError(400, "bad_since", "`since` must lie before `until`")
    return since_ms, until_ms


def moment_ms(text: str, now_ms: int) -> int:
    """`24h`, `90m`, `2d` ago or an ISO 8601 moment (UTC where it names no zone), as wall milliseconds.

    Raises:
        ValueError: it is neither, or lies in the future; the message says what to write.
    """
    ago = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if ago is not None:
        return max(0, now_ms - int(ago[1]) * _SECONDS[ago[2]] * 1000)
    try:
        moment = datetime.fromisoformat(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        found = int(aware.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ValueError("write how long ago, as in 24h, or a moment, as in 2026-11-22T07:00:00Z") from None
    if found > now_ms:
        raise ValueError("this moment lies in the future")
    return max(0, found)
