"""The routes: what they answer and what they set going."""

from pathlib import Path
from typing import Any

import pytest
from admin_kit import KEY_IN_URL, AdminRoom, served, target
from structlog.testing import capture_logs
from support.clock import JumpClock
from support.factories import event
from support.stores import again, dead, delivered

from relay.admin import audit as audit_module
from relay.errors import UpstreamError

OLD = 1_795_330_000_000 - 3_600_000


async def test_status_tells_what_is_so(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add(event("order-1", 4), now_ms=room.clock.wall_ms() - 5000)
        await room.store.begin_gap(1_000, "connection reset")
        await room.store.end_gap(35_000)
        status, document, _ = await room.ask("GET", "/api/v1/status")
        assert status == 200
        assert document["fine"] is True
        assert document["version"] == "1.2.3"
        assert [one["name"] for one in document["targets"]] == ["alpha", "beta"]
        assert document["targets"][0]["pending"] == 1
        assert 4 < document["targets"][0]["oldest_age_s"] < 60
        assert document["targets"][0]["url"] == "https://shop.example.com/hooks/[redacted]"
        assert KEY_IN_URL not in str(document)
        assert document["gaps"][0]["seconds"] == 34.0
        assert document["store"]["size_bytes"] > 0


async def test_status_counts_what_is_dead_and_what_the_metrics_count(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add(event("o1", sequence=1), event("o2", sequence=1))
        await room.bench.settle(*[dead(one) for one in await room.bench.claim("alpha")])
        await room.bench.store.replay("alpha", ["evt_o1_1"], 3_000)
        room.metrics.deliveries.labels("alpha", "delivered").inc(5)
        room.metrics.sweeps.labels("ok").inc(2)
        _, document, _ = await room.ask("GET", "/api/v1/status")
        assert [one["dead"] for one in document["targets"]] == [1, 0]
        assert document["upstream"]["sweeps"] == {"ok": 2}


async def test_a_store_that_cannot_be_used_is_said(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.store.close()
        assert await room.post("/api/v1/audit") == (503, error("store_unavailable", "store: the store is not open"))
        assert (await room.ask("GET", "/healthz"))[0] == 503


async def test_backfill_asks_for_a_sweep(tmp_path: Path):
    async with served(tmp_path) as room:
        assert await room.post("/api/v1/backfill") == (202, {"requested": True})
        assert room.sweeps == ["asked for"]


async def test_backup_writes_a_copy_once(tmp_path: Path):
    async with served(tmp_path) as room:
        path = tmp_path / "copy.db"
        status, document = await room.post("/api/v1/store/backup", {"path": str(path)})
        assert (status, document) == (200, {"path": str(path), "bytes": path.stat().st_size})
        status, document = await room.post("/api/v1/store/backup", {"path": str(path)})
        assert (status, document["error"]["code"]) == (409, "backup_failed")


@pytest.mark.parametrize("path", ["copy.db", "", "/x\0y", "/" + "x" * 5000])
async def test_backup_wants_a_whole_path(tmp_path: Path, path: str):
    async with served(tmp_path) as room:
        status, document = await room.post("/api/v1/store/backup", {"path": path})
        assert (status, document["error"]["code"]) == (400, "bad_path")


def error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


class Audited:
    """A room whose orders are all an hour old, and short ways to audit it."""

    def __init__(self, room: AdminRoom) -> None:
        self.room = room

    async def happen(self, houdini_id: str, status: int = 4, *targets: str) -> None:
        await self.room.bench.add(event(houdini_id, status), targets=targets)
        self.room.source.show(houdini_id, status, OLD)

    async def settle_all(self, how: Any = delivered) -> None:
        for name in ("alpha", "beta"):
            claimed = await self.room.bench.claim(name, now_ms=self.room.clock.wall_ms() + 1)
            await self.room.bench.settle(*map(how, claimed))

    async def audit(self, **question: Any) -> dict[str, Any]:
        status, document = await self.room.post("/api/v1/audit", {"since": "48h", **question})
        assert status == 200, document
        return document

    async def found(self, **question: Any) -> list[tuple[str, str | None, str, bool]]:
        differences = (await self.audit(**question))["differences"]
        return [(one["order"], one["target"], one["kind"], one["repaired"]) for one in differences]


@pytest.fixture
async def audited(tmp_path: Path) -> Any:
    clock = JumpClock()
    clock.move(-50 * 3600)  # so that the targets are older than the orders
    async with served(tmp_path, clock=clock) as room:
        clock.move(50 * 3600)
        yield Audited(room)


async def test_a_clean_audit(audited: Audited):
    await audited.happen("order-1", 4, "alpha", "beta")
    await audited.settle_all()
    slept = len(audited.room.clock.slept)
    assert await audited.audit() == {"compared": 1, "differences": [], "settling": 0, "truncated": False}
    assert len(audited.room.clock.slept) == slept


async def test_a_dead_delivery_is_named_and_sent_again(audited: Audited):
    await audited.happen("order-1", 4, "alpha", "beta")
    await audited.settle_all(dead)
    both = [("order-1", "alpha", "dead"), ("order-1", "beta", "dead")]
    assert await audited.found() == [(*one, False) for one in both]
    assert await audited.found(target="beta", repair=True) == [(*both[1], True)]
    await audited.settle_all()
    assert await audited.found() == [(*both[0], False)]
    assert await audited.found(repair=True) == [(*both[0], True)]
    await audited.settle_all()
    assert await audited.found() == []


async def test_an_event_without_a_delivery_is_named_and_made(audited: Audited):
    await audited.happen("order-1", 4, "alpha")
    await audited.settle_all()
    assert await audited.found(repair=True) == [("order-1", "beta", "missing", True)]
    (delivery,) = await audited.room.bench.claim("beta", now_ms=audited.room.clock.wall_ms())
    assert (delivery.event.webhook_id, delivery.manual) == ("evt_order-1_1", True)


async def test_a_new_target_or_wish_owes_nothing_for_older_orders(audited: Audited):
    await audited.happen("order-1", 4, "alpha")
    await audited.settle_all()
    room = audited.room
    room.targets[1] = target("beta", events=["order.finished"])
    await room.admin.stop()
    await room.admin.start()
    assert await audited.found() == []


async def test_what_waits_is_only_a_difference_when_it_still_waits_later(audited: Audited):
    await audited.happen("order-1", 4, "alpha", "beta")
    slow = await audited.audit()
    assert [one["kind"] for one in slow["differences"]] == ["pending", "pending"]
    assert audited.room.clock.slept[-1] > audited.room.source.settling

    async def arrive(_houdini_id: str) -> None:
        await audited.settle_all()

    audited.room.source.on_one = arrive
    assert await audited.audit() == {"compared": 1, "differences": [], "settling": 2, "truncated": False}


async def test_what_waits_cannot_be_repaired(audited: Audited):
    await audited.happen("order-1", 4, "alpha", "beta")
    assert [repaired for *_, repaired in await audited.found(repair=True)] == [False, False]


async def test_a_status_that_stays_different(audited: Audited):
    await audited.happen("order-1", 2, "alpha", "beta")
    await audited.settle_all()
    audited.room.source.show("order-1", 4, OLD)
    (one,) = (await audited.audit())["differences"]
    assert (one["kind"], one["upstream"], one["known"]) == ("status_differs", "FINISHED", "EXCHANGING")


async def test_a_status_that_moved_meanwhile_is_settling(audited: Audited):
    await audited.happen("order-1", 2, "alpha", "beta")
    await audited.settle_all()
    audited.room.source.show("order-1", 4, OLD)

    async def move(_houdini_id: str) -> None:
        await audited.room.bench.add(event("order-1", 3, sequence=2), targets=())

    audited.room.source.on_one = move
    report = await audited.audit()
    assert [one["kind"] for one in report["differences"]] == []
    assert report["settling"] == 1


async def test_what_somebody_repaired_meanwhile_is_not_repaired_twice(audited: Audited):
    room = audited.room
    await audited.happen("order-1", 4, "alpha", "beta")
    await room.bench.settle(*map(dead, await room.bench.claim("alpha", now_ms=room.clock.wall_ms())))

    async def replay(_houdini_id: str) -> None:
        await room.store.replay("alpha", ["evt_order-1_1"], room.clock.wall_ms())

    room.source.on_one = replay
    report = await audited.audit(repair=True)
    assert [(one["target"], one["kind"]) for one in report["differences"]] == [("beta", "pending")]
    assert report["settling"] == 1
    assert len(await room.store.order_deliveries(["order-1"])) == 3


async def test_an_event_that_cannot_be_found_is_not_said_to_be_repaired(audited: Audited):
    await audited.happen("order-1", 4)
    audited.room.source.last_webhook_id = lambda _known: "evt_nowhere"  # type: ignore[method-assign] # a pruned event
    assert await audited.found(target="alpha", repair=True) == [("order-1", "alpha", "missing", False)]


async def test_it_stops_looking_when_there_is_too_much(audited: Audited, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(audit_module, "MOST_DIFFERENCES", 3)
    for number in range(6):
        await audited.happen(f"order-{number}", 4)
    report = await audited.audit(target="alpha")
    assert (report["truncated"], report["compared"], len(report["differences"])) == (True, 3, 3)


async def test_many_suspects_are_read_in_one_go(audited: Audited):
    for number in range(25):
        await audited.happen(f"order-{number}", 4, "alpha")
    assert len(await audited.found(target="alpha")) == 25
    assert audited.room.source.windows == 2


async def test_a_young_unknown_order_is_looked_at_twice(audited: Audited):
    room = audited.room
    room.source.show("order-1", 4, room.clock.wall_ms())
    assert await audited.found() == [("order-1", None, "unknown_order", False)]

    async def arrive(_houdini_id: str) -> None:
        await room.bench.add(event("order-1", 4), targets=())

    room.source.show("order-1", 4, room.clock.wall_ms())
    room.source.on_one = arrive
    assert (await audited.audit())["settling"] == 1


async def test_an_unknown_order_is_repaired_when_the_ledger_has_it(audited: Audited):
    room = audited.room
    room.source.show("order-1", 4, OLD)
    assert await audited.found(repair=True) == [("order-1", None, "unknown_order", False)]

    async def ingest(orders: Any) -> None:
        for one in orders:
            await room.bench.add(event(one.houdini_id, one.status), targets=("alpha", "beta"))

    room.source.ingest = ingest  # type: ignore[method-assign] # what the real one does through the intake
    assert await audited.found(repair=True) == [("order-1", None, "unknown_order", True)]
    known = await room.store.known_orders(["order-1"])
    assert known["order-1"].frame_is_event


async def test_questions_that_cannot_be_answered(audited: Audited):
    room = audited.room
    status, document = await room.post("/api/v1/audit", {"target": "gamma"})
    assert (status, document["error"]["code"]) == (404, "no_such_target")
    status, document = await room.post("/api/v1/audit", {"since": "yesterday"})
    assert (status, document["error"]["code"]) == (400, "bad_since")
    status, document = await room.post("/api/v1/audit", {"since": "49h"})
    assert (status, document["error"]["code"]) == (400, "bad_since")
    assert "write 48h or less" in document["error"]["message"]
    room.source.error = UpstreamError("REST: the upstream answered 500")
    assert await room.post("/api/v1/audit") == (502, error("upstream_unavailable", "REST: the upstream answered 500"))
    room.source.error, room.source.reason = None, "it is still reading"
    assert await room.post("/api/v1/audit") == (409, error("not_ready", "it is still reading"))


async def test_an_audit_that_begins_is_said_to_end(audited: Audited):
    """And one that is refused is not said to begin."""
    room = audited.room
    with capture_logs() as lines:
        await room.post("/api/v1/audit")
        room.source.error = UpstreamError("REST: the upstream answered 500")
        await room.post("/api/v1/audit")
        room.source.error, room.source.reason = None, "it is still reading"
        await room.post("/api/v1/audit")
    said = [line["event"] for line in lines if str(line["event"]).startswith("audit_")]
    assert said == ["audit_began", "audit_ended", "audit_began", "audit_broken_off"]
    assert [line["error"] for line in lines if line["event"] == "audit_broken_off"] == [
        "REST: the upstream answered 500"
    ]


async def test_one_audit_at_a_time(audited: Audited):
    room = audited.room
    await audited.happen("order-1", 4, "alpha", "beta")
    second: list[tuple[int, Any]] = []

    async def meanwhile(_houdini_id: str) -> None:
        second.append(await room.post("/api/v1/audit"))

    room.source.on_one = meanwhile
    await audited.audit()
    assert [(status, document["error"]["code"]) for status, document in second] == [(409, "audit_under_way")]
    room.source.on_one = None
    await audited.audit()


async def test_a_parked_target_is_resumed_by_name(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add(event("order-1", 4))
        (head,) = await room.bench.claim("alpha")
        await room.bench.settle(again(head, due_ms=0, gone=True))
        _, document, _ = await room.ask("GET", "/api/v1/status")
        assert document["targets"][0]["state"] == "parked"
        assert "targets resume alpha" in document["problems"][0]["advice"]
        path = "/api/v1/targets/alpha/resume"
        assert await room.post(path, {}) == (200, {"target": "alpha", "resumed": True, "was": "parked"})
        assert await room.post(path, {}) == (200, {"target": "alpha", "resumed": False, "was": None})
        assert len(await room.bench.claim("alpha")) == 1
        unknown = await room.post("/api/v1/targets/nobody/resume", {})
        assert unknown == (404, error("unknown_target", "no target of this name is configured"))
