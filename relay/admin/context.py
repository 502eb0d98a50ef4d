"""What the admin room is handed by the daemon."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from relay.admin.audit import AuditSource
from relay.board import Board
from relay.clock import Clock
from relay.config import AdminSettings, TargetSettings
from relay.metrics import Metrics
from relay.store.base import Store


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that handlers use.

    Attributes:
        targets: the targets as configured now.
        want_sweep: asks for a sweep, with the reason for the log.
        audit_source: the upstream as the audit asks it.
        resume_target: lets a parked or paused target be sent to again; False when it was neither.
    """

    settings: AdminSettings
    version: str
    targets: Callable[[], Sequence[TargetSettings]]
    store: Store
    board: Board
    metrics: Metrics
    clock: Clock
    want_sweep: Callable[[str], None]
    audit_source: AuditSource
    resume_target: Callable[[str], Awaitable[bool]]
