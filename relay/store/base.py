"""What the rooms may ask of the durable middle: few named verbs, no driver.

Both stores keep these promises. Nothing is observable before its commit. A lane (one order at one target)
has exactly one `ready` delivery, its oldest unfinished one; finishing it promotes the next in the same
transaction. Claims exclude one another and a crash gives them back.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from relay.model import Delivery, KnownOrder
from relay.standing import Permits, Resume, Standing
from relay.store.reads import Reads
from relay.store.values import (
    Backlog,
    Change,
    Claim,
    Death,
    DeliveryOfOrder,
    Expiry,
    Gap,
    IngestPlan,
    Instance,
    Judge,
    LiveInstance,
    OpenOrder,
    Planner,
    Pruned,
    Question,
    Settlement,
    TargetEntry,
)

LEAD_TTL: Final = 15.0
"""Seconds after which a lead that was not renewed ends, and an instance that was not heard of counts as gone."""
LEAD_RENEWAL: Final = 5.0
"""Seconds between two renewals; instances that do not lead ask twice as often."""


class Store(Reads, Protocol):
    """The verbs. All raise StoreError when the store cannot be used.

    On a store that several instances share, StoreUnavailable says that it could not be reached in time; it is not
    broken, and the same may be asked again. `now_ms` and every other moment that goes in is wall time that all
    instances agree on, see `shared_ms`; how long a claim or a lead lasts goes by the store's own clock alone.
    """

    async def open(self, targets: Collection[TargetEntry]) -> None:
        """Open or create it, migrate it, and `configure` these targets."""
        ...

    async def configure(self, targets: Collection[TargetEntry]) -> None:
        """Make these the configured targets; the others' deliveries are kept and they become orphans.

        While another instance leads, its configuration holds, and this only says what this instance asks about.

        A target whose `reach` has changed, that is paused no longer, or that came back has all its lane
        heads due at once and, if its breaker is open, a probe.
        """
        ...

    async def close(self) -> None:
        """Finish what was asked, then close; asking afterwards raises StoreError."""
        ...

    async def check_alive(self) -> None:
        """Return once the store has answered a trivial question."""
        ...

    async def failed(self) -> str:
        """Return, with the reason, only if a commit fails: the process must then end and start anew."""
        ...

    def on_due(self, wake: Callable[[Collection[str]], None]) -> None:
        """Call `wake` with target names, on the event loop, after a commit that made deliveries due."""
        ...

    def on_superseded(self, tell: Callable[[Mapping[str, int]], None]) -> None:
        """Call `tell` with target -> how many, on the event loop, after a commit that superseded deliveries."""
        ...

    def on_dead(self, tell: Callable[[Sequence[Death]], None]) -> None:
        """Call `tell` on the event loop, after a commit that ended deliveries dead."""
        ...

    async def ingest(self, houdini_ids: Collection[str], plan: Planner) -> IngestPlan:
        """Read these orders' projections, plan, and write the plan, in one transaction.

        Raises:
            NotLeader: it is about orders, and this instance does not lead; nothing was written. Notices may be
                written by any instance.
        """
        ...

    async def claim(self, target: str, permits: Permits, now_ms: int) -> Claim:
        """Take due lane heads of a target for an attempt each, as many as its standing permits.

        A permit to probe takes the longest due one, whether or not it is due yet; while it is given, only
        `look_again_ms` says when to ask again. A caller that is cancelled holds no claim.
        """
        ...

    async def settle(self, settlements: Sequence[Settlement], judge: Judge, now_ms: int) -> Mapping[str, Standing]:
        """Write outcomes and what they mean for their targets, promote lanes' next deliveries, give claims back.

        Success is accepted whoever holds the claim, and even if the delivery was cancelled or given up
        meanwhile: the receiver has it. Other outcomes of a delivery that has ended are ignored and not judged.
        What fails at a target whose breaker was open before is due at once, whatever its `due_ms` says.
        Returns the standing of every target that was judged.
        """
        ...

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give claims back without an outcome (a cancelled attempt)."""
        ...

    async def shift_due(self, target: str, by_ms: int, after_ms: int) -> None:
        """The wall clock was set back: move what waits for a time after `after_ms` along with it.

        That is lane heads, the next probe and the end of throttling.
        """
        ...

    async def clamp_due(self, target: str, latest_ms: int) -> None:
        """Nothing may be due, probed or throttled later than this: a clock was wrong when that was written."""
        ...

    async def pause(self, target: str, now_ms: int) -> bool:
        """Keep deliveries without sending them, because a person says so; False when it is paused so already."""
        ...

    async def resume(self, target: str, now_ms: int) -> Resume:
        """Let a target be sent to again that was parked, or paused by a person; probe an open breaker at once.

        Returns what it found, never `paused_by_config`.
        """
        ...

    async def forget(self, target: str, limit: int, now_ms: int) -> int:
        """Cancel up to `limit` deliveries of an orphaned target; returns how many (0: nothing is left)."""
        ...

    async def retry_now(self, delivery_id: int, now_ms: int) -> Change:
        """Make a waiting delivery due now, ahead of all others, past the breaker; a `Retry-After` is kept to."""
        ...

    async def cancel(self, delivery_id: int, now_ms: int) -> Change:
        """End a waiting delivery because a person says so, and promote the next of its lane."""
        ...

    async def expire(self, target: str, made_before_ms: int, after: int, limit: int, now_ms: int) -> Expiry:
        """End deliveries among the `limit` oldest open ones after id `after` that `has_expired` says have expired."""
        ...

    async def expire_notices(self, target: str, made_before_ms: int, limit: int, now_ms: int) -> int:
        """End up to `limit` of a target's notices made before that moment, tried or not, none that is in flight.

        A stopped target's, too; an orphan's are kept. Returns how many ended.
        """
        ...

    async def trim(self, target: str, keep: int, limit: int, now_ms: int) -> int:
        """End up to `limit` of the oldest deliveries beyond the newest `keep` (`overflow`), none that is in flight."""
        ...

    async def prune(self, before_ms: int, place: int, limit: int) -> Pruned:
        """Remove what ended before that moment; looks at `limit` rows from the opaque `place` on (0: the start).

        Orders are remembered for at least 7 days after they were last believed, with their last event.
        """
        ...

    async def backlog(self) -> Mapping[str, Backlog]:
        """What every configured target, and every orphan that holds deliveries, still has to get; costs no scan."""
        ...

    async def known_orders(self, houdini_ids: Collection[str]) -> Mapping[str, KnownOrder]:
        """The projections of those of these orders that are known."""
        ...

    async def order_deliveries(self, houdini_ids: Collection[str]) -> Sequence[DeliveryOfOrder]:
        """Every delivery of these orders' events, in the order of events, targets and replays."""
        ...

    async def replay(self, target: str, webhook_ids: Sequence[str], now_ms: int) -> int:
        """Make a new delivery of these events at the tail of their lanes; returns how many were made."""
        ...

    async def open_orders(self, limit: int) -> Sequence[OpenOrder]:
        """Known orders that are neither in a terminal status nor aged out, oldest first."""
        ...

    async def note_hidden(self, houdini_id: str, now_ms: int, spacing_ms: int, limit: int) -> bool:
        """Count a definitive 404 for a known order; True once it has aged out.

        Only answers at least `spacing_ms` apart count; `limit` of them in a row age an order out. Seeing
        it again starts the count anew.
        """
        ...

    async def ended_orders(self, houdini_ids: Collection[str], terminal_before_ms: int) -> set[str]:
        """Those of these orders that were terminal before that moment and still are."""
        ...

    async def aged_out_orders(self, houdini_ids: Collection[str]) -> set[str]:
        """Those of these orders that have aged out."""
        ...

    async def begin_gap(self, from_ms: int, cause: str) -> None:
        """Record that there is no subscription; while a gap is open this does nothing."""
        ...

    async def end_gap(self, to_ms: int) -> Gap | None:
        """Record that there is a subscription again; returns the gap that ended, if one was open."""
        ...

    async def close_gaps(self, swept_ms: int, closed_by: str) -> int:
        """Record that a sweep has covered every ended gap; returns how many it closed."""
        ...

    async def gaps(self, limit: int, at_least_ms: int = 0) -> Sequence[Gap]:
        """Gaps of at least this length, open ones included, newest first."""
        ...

    async def due_questions(self, now_ms: int, limit: int) -> Sequence[Question]:
        """Questions that may be asked now, longest due first."""
        ...

    async def postpone_question(self, houdini_id: str, ask_at_ms: int) -> int:
        """Ask again later; returns how often it was asked without a definite answer."""
        ...

    async def end_question(self, houdini_id: str) -> None:
        """Forget an order's question."""
        ...

    async def count_questions(self) -> int:
        """How many questions are open."""
        ...

    async def lead(self, instance: Instance) -> int | None:
        """Say that this instance lives, and take the lead if nobody has it; the epoch, None while another leads.

        Epochs only ever grow, and one belongs to one instance. A lead that is not renewed ends by itself after
        `LEAD_TTL` seconds. On a store that only one process can use there is but one answer.
        """
        ...

    async def renew(self) -> bool:
        """Say that this instance lives, and keep the lead; False once it does not lead, whatever the reason."""
        ...

    async def resign(self) -> None:
        """Give the lead back at once and tell the others; does nothing if this instance does not lead."""
        ...

    def on_vacant(self, tell: Callable[[], None]) -> None:
        """Call `tell` on the event loop when another instance gave the lead back. A hint: it may be lost."""
        ...

    async def instances(self) -> Sequence[LiveInstance]:
        """Every instance that was heard of in the last `LEAD_TTL` seconds, the longest running first."""
        ...

    async def shared_ms(self) -> int | None:
        """The wall time that all instances go by; None where one process has the store for itself.

        May be asked before `open`, which goes by it.
        """
        ...

    async def backup(self, path: Path) -> None:
        """Write a consistent copy to a new file while running; it is opened like any store."""
        ...

    async def check(self) -> Sequence[str]:
        """Every invariant that does not hold, a sentence each; empty when all is well."""
        ...

    async def meta_get(self, key: str) -> str | None:
        """A remembered value, None when there is none."""
        ...

    async def meta_set(self, key: str, value: str) -> None:
        """Remember a value."""
        ...

    async def size_bytes(self) -> int:
        """How much room its files take."""
        ...
