"""Gathers the facts that `status` judges: one document for the API, the command line and the dashboard."""

import asyncio
from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter

from relay.admin.context import Context
from relay.admin.gap_shapes import WINDOW
from relay.admin.health import limits_of
from relay.admin.status import DEAD_EXAMINED, GAPS_SHOWN, Facts, TargetFacts, status_document
from relay.recent import Hour
from relay.store.base import Store
from relay.store.values import Gap


async def read_overview(context: Context) -> dict[str, Any]:
    """The answer of `GET /api/v1/status`.

    Raises:
        StoreError: the store cannot be used.
    """
    # Redacting a URL reads it anew, and it may lie in a file.
    targets = await asyncio.to_thread(
        lambda: [
            TargetFacts(one.name, one.url_redacted, limits_of(one, context.board.lead.instances))
            for one in context.targets()
        ]
    )
    facts = Facts(
        version=context.version,
        board=context.board,
        targets=targets,
        backlog=await context.store.backlog(),
        dead=await context.store.dead_letters(DEAD_EXAMINED),
        sweeps=_count(context.metrics.sweeps, "result"),
        gaps=await _gaps(context.store),
        instances=await context.store.instances(),
        size_bytes=await context.store.size_bytes(),
        now=context.clock.mono(),
        now_ms=context.clock.wall_ms(),
    )
    document = status_document(facts)
    for target in document["targets"]:
        target["last_hour"] = _hour_shape(context.board.recent.hour(target["name"], facts.now))
    return document


def _hour_shape(hour: Hour) -> dict[str, Any]:
    return {
        "delivered": list(hour.delivered),
        "failed": list(hour.failed),
        "latency_ms": {"p50": hour.p50_ms, "p95": hour.p95_ms, "p99": hour.p99_ms},
    }


async def _gaps(store: Store) -> Sequence[Gap]:
    """The last ones, and those beyond the window however long ago: these stay visible."""
    recent = await store.gaps(GAPS_SHOWN)
    long = await store.gaps(GAPS_SHOWN, int(WINDOW * 1000))
    known = {gap.id for gap in recent}
    return [*recent, *(gap for gap in long if gap.id not in known)]


def _count(counter: Counter, by: str, **only: str) -> dict[str, int]:
    """A counter's values by one label, of the series that have these labels."""
    found: dict[str, int] = {}
    for family in counter.collect():
        for sample in family.samples:
            matches = all(sample.labels.get(name) == value for name, value in only.items())
            if sample.name.endswith("_total") and matches:
                found[sample.labels[by]] = found.get(sample.labels[by], 0) + int(sample.value)
    return found
