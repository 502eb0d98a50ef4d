"""What stands around the upstream room in its tests: settings, an intake that only records, a store in memory."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from relay.board import UpstreamBoard, UpstreamState
from relay.clock import Clock
from relay.config.settings import BackfillSettings, HeartbeatSettings, ReconnectSettings, UpstreamSettings
from relay.metrics import Metrics
from relay.model import Snapshot
from relay.secret import Secret
from relay.store.values import Gap, IngestPlan, OpenOrder, Question
from relay.upstream.session import Surroundings


def settings(
    websocket_url: str = "ws://127.0.0.1:9/v2/ws", rest_url: str = "http://127.0.0.1:9/v2", **over: Any
) -> UpstreamSettings:
    values: dict[str, Any] = {
        "websocket_url": websocket_url,
        "rest_url": rest_url,
        "partner_id": "partner",
        "secret": Secret.of("s3cret"),
        "orders": "all",
        "heartbeat": HeartbeatSettings(),
        "handshake_timeout": 5.0,
        "reconnect": ReconnectSettings(),
        "auth_retry": 300.0,
        "backfill": backfill_settings(),
        "rest_headers": {},
    }
    return UpstreamSettings.model_construct(**{**values, **over})


def backfill_settings(**over: Any) -> BackfillSettings:
    values: dict[str, Any] = {"first_start": "emit", "interval": 0.0, "page_size": 100, "requests_per_minute": 6000}
    return BackfillSettings.model_construct(**{**values, **over})


class RecordingIntake:
    """Keeps snapshots in the order they came."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.snapshots: list[Snapshot] = []
        self.room = room
        self.joins = 0
        self.overflowed = asyncio.Event()
        self.arrived = asyncio.Condition()
        self.explode_at: int | None = None
        self.confirmed: list[Snapshot] = []
        self.touched_at: float | None = None

    def confirm(self, snapshot: Snapshot) -> None:
        self.confirmed.append(snapshot)

    def touch_all(self, now: float) -> None:
        self.touched_at = now

    def offer(self, snapshot: Snapshot) -> bool:
        if self.explode_at is not None and len(self.snapshots) + 1 == self.explode_at:
            self.explode_at = None
            raise KeyError("a bug in a handler")
        if len(self.snapshots) >= self.room:
            return False
        self.snapshots.append(snapshot)
        return True

    async def put(self, snapshots: Sequence[Snapshot]) -> None:
        self.snapshots.extend(snapshots)

    async def join(self) -> None:
        self.joins += 1

    @property
    def ids(self) -> list[str]:
        return [snapshot.houdini_id for snapshot in self.snapshots]


class MemoryStore:
    """What the upstream room keeps in the store, without its promises; where those matter a real one is used."""

    def __init__(self) -> None:
        self.meta: dict[str, str] = {}
        self.questions: dict[str, int] = {}
        self.ended: list[str] = []
        self.fails: Exception | None = None
        self.gap_rows: list[Gap] = []
        self.events: list[str] = []

    async def ingest(self, houdini_ids: Sequence[str], plan: Any) -> IngestPlan:
        planned: IngestPlan = plan({})
        self.events += [one.event.type for one in planned.events]
        return planned

    async def begin_gap(self, from_ms: int, cause: str) -> None:
        if not self.gap_rows or self.gap_rows[0].to_ms is not None:
            self.gap_rows.insert(0, Gap(len(self.gap_rows) + 1, from_ms, None, cause, None, None))

    async def end_gap(self, to_ms: int) -> Gap | None:
        if not self.gap_rows or self.gap_rows[0].to_ms is not None:
            return None
        self.gap_rows[0] = replace(self.gap_rows[0], to_ms=max(to_ms, self.gap_rows[0].from_ms))
        return self.gap_rows[0]

    async def close_gaps(self, swept_ms: int, closed_by: str) -> int:
        return 0

    async def gaps(self, limit: int, at_least_ms: int = 0) -> Sequence[Gap]:
        return [gap for gap in self.gap_rows if gap.to_ms is None or gap.to_ms - gap.from_ms >= at_least_ms][:limit]

    async def open_orders(self, limit: int) -> Sequence[OpenOrder]:
        return []

    async def note_hidden(self, houdini_id: str, now_ms: int, spacing_ms: int, limit: int) -> bool:
        return False

    async def ended_orders(self, houdini_ids: Sequence[str], terminal_before_ms: int) -> set[str]:
        return set()

    async def aged_out_orders(self, houdini_ids: Sequence[str]) -> set[str]:
        return set()

    async def due_questions(self, now_ms: int, limit: int) -> Sequence[Question]:
        due = [(at, key) for key, at in self.questions.items() if at <= now_ms]
        return [Question(key, 0, b"{}", False, 0, at) for at, key in sorted(due)[:limit]]

    async def postpone_question(self, houdini_id: str, ask_at_ms: int) -> int:
        self.questions[houdini_id] = ask_at_ms
        return 1

    async def end_question(self, houdini_id: str) -> None:
        self.ended.append(houdini_id)
        del self.questions[houdini_id]

    async def count_questions(self) -> int:
        return len(self.questions)

    async def meta_get(self, key: str) -> str | None:
        if self.fails is not None:
            raise self.fails
        return self.meta.get(key)

    async def meta_set(self, key: str, value: str) -> None:
        self.meta[key] = value


class Watch:
    """The surroundings of a session, with everything it tells recorded."""

    def __init__(self, clock: Clock, room: int = 1_000_000) -> None:
        self.intake = RecordingIntake(room)
        self.board = UpstreamBoard()
        self.metrics = Metrics("test")
        self.states: list[UpstreamState] = []
        self.sweeps: list[str] = []
        self.around = Surroundings(self.intake, self.board, self.metrics, clock, self.states.append, self.sweeps.append)

    def count(self, kind: str) -> float:
        return self.metrics.registry.get_sample_value("houdini_relay_upstream_messages_total", {"type": kind}) or 0.0


def as_json(snapshot: Snapshot) -> Any:
    return json.loads(snapshot.body)
