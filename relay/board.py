"""What is true right now and lives in memory: each room writes its part, the admin room reads it."""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum

from relay.live import Live
from relay.recent import Recent


class UpstreamState(StrEnum):
    """Where the connection to the upstream stands."""

    WAITING = "waiting"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    WELCOMED = "welcomed"
    SUBSCRIBED = "subscribed"
    AUTH_FAILED = "auth_failed"
    FOLLOWING = "following"
    STOPPED = "stopped"


@dataclass(slots=True)
class UpstreamBoard:
    """The upstream room's part.

    Attributes:
        state: stage of the present epoch.
        epoch: number of the present or last life of the connection, from 1.
        since_ms: wall time of the last change of `state`.
        last_message_ms: wall time of the last application message, None before the first.
        last_error: why the last epoch ended, or what went wrong over REST since, a sentence.
        sweep_problem: why sweeps do not get on at the moment; None while they do.
        sweep_problem_since: monotonic time since which there has been such a problem without a break.
        first_sweep_done: whether this epoch's first sweep has ended well (readiness).
        in_sync: whether the trailing sweep has too.
        questions_open: disbelieved frames that REST is still to be asked about.
        unconfirmed: frames that went backward and that REST could never confirm, since the process began.
    """

    state: UpstreamState = UpstreamState.WAITING
    epoch: int = 0
    since_ms: int = 0
    last_message_ms: int | None = None
    last_error: str | None = None
    sweep_problem: str | None = None
    sweep_problem_since: float | None = None
    first_sweep_done: bool = False
    in_sync: bool = False
    questions_open: int = 0
    unconfirmed: int = 0

    def sweeps_stuck(self, problem: str, now: float) -> None:
        """Sweeps do not get on, for this reason."""
        self.last_error = self.sweep_problem = problem
        self.sweep_problem_since = now if self.sweep_problem_since is None else self.sweep_problem_since

    def sweeps_get_on(self) -> None:
        """REST answers again."""
        self.sweep_problem = self.sweep_problem_since = None

    @property
    def subscribed(self) -> bool:
        """Whether a live, acknowledged subscription exists."""
        return self.state is UpstreamState.SUBSCRIBED


@dataclass(slots=True)
class LeadBoard:
    """Who holds the connection to the upstream, as this instance saw it last.

    Attributes:
        shared: whether other instances may use the store, too.
        instance: this instance's id.
        epoch: of this instance's present term as leader; None while it does not lead.
        leader: where the leader runs, as far as is known; None when nobody leads.
        instances: how many share what targets may be sent, this one included.
        store_away: why the store cannot be reached, a sentence; None while it can.
    """

    shared: bool = False
    instance: str = ""
    epoch: int | None = None
    leader: str | None = None
    instances: int = 1
    store_away: str | None = None

    @property
    def leads(self) -> bool:
        """Whether this instance does."""
        return self.epoch is not None

    @property
    def follows(self) -> bool:
        """Whether another instance does, or may; never where the store is not shared."""
        return self.shared and self.epoch is None


@dataclass(slots=True)
class TargetBoard:
    """What the scheduler knows of one target beside its standing, which the store keeps.

    Attributes:
        in_flight: attempts under way.
        probing: whether one of them is a probe of an open breaker.
        last_started: monotonic time at which the last attempt began, or the target's loop; None before both.
    """

    in_flight: int = 0
    probing: bool = False
    last_started: float | None = None


class Gate:
    """Whether more may be accepted from the upstream; shut while it could not be stored.

    Attributes:
        reason: why it is shut, a sentence; None while it is open.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._opened = asyncio.Event()
        self._opened.set()
        self._shut = asyncio.Event()

    def shut(self, reason: str) -> None:
        """Accept nothing more."""
        self.reason = reason
        self._opened.clear()
        self._shut.set()

    def open(self) -> None:
        """Accept again."""
        self.reason = None
        self._shut.clear()
        self._opened.set()

    async def until_open(self) -> None:
        """Return once it is open."""
        await self._opened.wait()

    async def until_shut(self) -> None:
        """Return once it is shut."""
        await self._shut.wait()


class Reload(StrEnum):
    """What came of a reload."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


@dataclass(slots=True)
class ConfigBoard:
    """The configuration that holds, and the last time another one was asked for.

    Attributes:
        generation: how many configurations this process has had, the present one included.
        since_ms: wall time since when the present one holds.
        reloaded_ms: wall time of the last reload, None before the first.
        result: what came of it.
        refusal: why it was refused, a sentence for each problem; empty unless it was.
        path: where its file lies, absolute; empty where there is none.
    """

    generation: int = 1
    since_ms: int = 0
    reloaded_ms: int | None = None
    result: Reload | None = None
    refusal: tuple[str, ...] = ()
    path: str = ""


@dataclass(slots=True)
class Board:
    """All of it."""

    gate: Gate = field(default_factory=Gate)
    upstream: UpstreamBoard = field(default_factory=UpstreamBoard)
    lead: LeadBoard = field(default_factory=LeadBoard)
    targets: dict[str, TargetBoard] = field(default_factory=dict)
    live: Live = field(default_factory=Live)
    recent: Recent = field(default_factory=Recent)
    config: ConfigBoard = field(default_factory=ConfigBoard)
    store_failure: str | None = None
    stopping: bool = False
