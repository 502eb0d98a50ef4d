"""How things stand, as far as a notice may have to tell of it. Pure values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from relay.standing import Standing


@dataclass(frozen=True, slots=True)
class Upstream:
    """How the connection to the upstream stands.

    Attributes:
        subscribed: whether a live, acknowledged subscription exists.
        lost_ms: wall time since when there is none.
        tried: seconds for which this process has been without one.
        refused_ms: wall time since when the credentials are refused, None while they are not.
        error: why there is no subscription.
    """

    subscribed: bool
    lost_ms: int = 0
    tried: float = 0.0
    refused_ms: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A target and what waits for it.

    Attributes:
        pending: deliveries not ended.
        oldest_order_ms: when the oldest of them that is an order's was made, None when there is none.
    """

    standing: Standing
    pending: int
    oldest_order_ms: int | None


@dataclass(frozen=True, slots=True)
class Disk:
    """How much room the store has."""

    low: bool = False
    full: bool = False
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A changed configuration that is not applied, and why."""

    since_ms: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deaths:
    """Orders' deliveries to one target that ended dead, collected for a while.

    Attributes:
        since_ms: wall time of the first.
        reasons: why -> how many.
        first: the first ones' webhook ids.
    """

    target: str
    since_ms: int
    reasons: Mapping[str, int]
    first: Sequence[str]


@dataclass(frozen=True, slots=True)
class Facts:
    """How things stand.

    Attributes:
        now_ms: wall time.
        running: seconds since this process began to look.
        upstream: None while it is not known, or left on purpose: what was told of it stays as it is.
        refusal: None while the configuration is the one that was asked for.
        deaths: what has ended dead and was not told.
    """

    now_ms: int
    running: float
    upstream: Upstream | None = None
    targets: Mapping[str, Target] = field(default_factory=dict)
    disk: Disk = Disk()
    refusal: Refusal | None = None
    deaths: Sequence[Deaths] = ()
