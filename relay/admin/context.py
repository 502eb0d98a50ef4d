"""What the admin room is handed by the daemon."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.admin.audit import AuditSource
from relay.board import Board
from relay.clock import Clock
from relay.config import AdminSettings, TargetSettings
from relay.metrics import Metrics
from relay.model import Attempt
from relay.standing import Resume
from relay.store.base import Store
from relay.vitals import Vitals


class Control(Protocol):
    """What a person may ask of the engine about a configured target."""

    async def pause(self, target: str) -> bool:
        """Keep its deliveries without sending them; False when a person has paused it already."""
        ...

    async def resume(self, target: str) -> Resume:
        """Send to it again when it was parked, or paused by a person, or probe it; the configuration's pause stands."""
        ...

    async def test(self, target: str) -> Attempt:
        """Make one attempt of a `relay.test` event now, past everything, changing nothing."""
        ...

    def wake(self, target: str) -> None:
        """Look at it now."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that handlers use.

    Attributes:
        targets: the targets as configured now.
        want_sweep: asks for a sweep, with the reason for the log, wherever the upstream's connection is.
        audit_source: the upstream as the audit asks it.
        control: the engine, as far as a person may steer it.
        public_keys: target -> the public keys it signs with; reads secrets, which may lie in files, and raises
            SecretUnreadable when one cannot be read.
        vitals: whether this process is alive.
    """

    settings: AdminSettings
    version: str
    targets: Callable[[], Sequence[TargetSettings]]
    store: Store
    board: Board
    metrics: Metrics
    clock: Clock
    want_sweep: Callable[[str], Awaitable[None]]
    audit_source: AuditSource
    control: Control
    public_keys: Callable[[], Mapping[str, Sequence[str]]]
    vitals: Vitals
