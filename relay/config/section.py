"""What all sections of the configuration have in common, and the kinds of lists and mappings they hold."""

import re
from collections.abc import Callable, Collection
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic import model_validator as pydantic_model_validator

from relay.config.leaves import Leaf, text
from relay.config.problems import Suffix, faults
from relay.config.secret_leaves import header_value_fault, secret_value
from relay.config.tree import Scalar
from relay.secret import Secret

_MAX_HEADERS: Final = 50
_HOP_BY_HOP: Final = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_PROXY: Final = frozenset({"proxy-authenticate", "proxy-authorization", "proxy-connection"})
TARGET_RESERVED: Final = (
    _HOP_BY_HOP
    | _PROXY
    | {"accept", "accept-encoding", "content-encoding", "content-type", "date", "range", "relay-attempt", "user-agent"}
)
REST_RESERVED: Final = _HOP_BY_HOP | {"authorization"}


class Section(BaseModel):
    """A mapping of settings: immutable, no unknown keys, errors without values."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    @pydantic_model_validator(mode="before")
    @classmethod
    def _empty_means_defaults(cls, value: Any) -> Any:
        return empty_if_null(value)


def empty_if_null(value: Any) -> Any:
    """A mapping whose lines are all commented out reads as null and means an empty one."""
    return {} if isinstance(value, Scalar) and value.is_null else value


def none_if_null(value: Any) -> Any:
    """The file's null as None."""
    return None if isinstance(value, Scalar) and value.is_null else value


def sized(low: int, high: int, message: str) -> AfterValidator:
    """A list or mapping with `low` to `high` entries, else `message`."""

    def check(value: Any) -> Any:
        if not low <= len(value) <= high:
            raise ValueError(message)
        return value

    return AfterValidator(check)


def header_name(reserved: Collection[str]) -> Leaf:
    """The name of a header that is not ours to send."""

    def fault(name: str) -> str | None:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", name):
            return "a header's name has letters, digits and '-' only"
        if name.lower() in reserved or name.lower().startswith("webhook-"):
            return "this header is set by houdini-relay itself; leave it out"
        return None

    return text("a header's name", fault)


def _no_name_twice(headers: dict[str, Secret]) -> dict[str, Secret]:
    seen: set[str] = set()
    found: list[tuple[Suffix, str]] = []
    for name in headers:
        if name.lower() in seen:
            found.append(((name,), "this header was given before in other letters; keep one of them"))
        seen.add(name.lower())
    if found:
        raise faults(found)
    return headers


HeaderValue: TypeAlias = Annotated[Secret, secret_value(header_value_fault, "a header's value (secret)")]
_SIZE: Final = sized(0, _MAX_HEADERS, f"at most {_MAX_HEADERS} headers")
_ONCE: Final = AfterValidator(_no_name_twice)
_NULLABLE: Final = BeforeValidator(empty_if_null)

TargetHeaders: TypeAlias = Annotated[
    dict[Annotated[str, header_name(TARGET_RESERVED)], HeaderValue], _NULLABLE, _SIZE, _ONCE
]
RestHeaders: TypeAlias = Annotated[
    dict[Annotated[str, header_name(REST_RESERVED)], HeaderValue], _NULLABLE, _SIZE, _ONCE
]


def each(kind: str, read: Callable[[object], object], items: Collection[object]) -> tuple[Any, ...]:
    """Read every item of a list; all items at fault are reported together, with their index."""
    values: list[object] = []
    found: list[tuple[Suffix, str]] = []
    for index, item in enumerate(items):
        try:
            value = read(item)
        except ValueError as error:
            found.append(((index,), str(error)))
            continue
        if value in values:
            found.append(((index,), f"this {kind} was given before; keep one of them"))
        values.append(value)
    if found:
        raise faults(found)
    return tuple(values)
