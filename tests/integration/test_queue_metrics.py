"""What `/metrics` shows of targets: state and queue, measured when asked, and nobody who is gone."""

from pathlib import Path

from admin_kit import AdminRoom, served
from support.factories import event
from support.stores import again, trips

from relay.board import TargetBoard


async def shown(room: AdminRoom) -> dict[str, float]:
    _, text, _ = await room.ask("GET", "/metrics")
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if "target=" in line and not line.startswith("#"))
    return {name.removeprefix("houdini_relay_"): float(value) for name, value in lines}


async def test_breaker_pause_and_queue(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add(event("o1"), event("o2"), now_ms=room.clock.wall_ms())
        room.board.targets["alpha"] = TargetBoard(in_flight=1)
        (one, two) = await room.bench.claim(now_ms=room.clock.wall_ms())
        found = await shown(room)
        assert found['queue_depth{status="in_flight",target="alpha"}'] == 1
        assert found['queue_depth{status="pending",target="alpha"}'] == 1
        assert (found['breaker_state{target="alpha"}'], found['target_paused{target="alpha"}']) == (0, 0)
        await room.bench.settle(again(one, 0), again(two, 0), judge=trips)
        assert (await shown(room))['breaker_state{target="alpha"}'] == 2
        room.board.targets["alpha"].probing = True
        assert (await shown(room))['breaker_state{target="alpha"}'] == 1
        await room.store.pause("alpha", 1)
        assert (await shown(room))['target_paused{target="alpha"}'] == 1


async def test_an_orphan_is_shown_as_long_as_it_holds_something(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add(event("o1"), now_ms=room.clock.wall_ms(), targets=["beta"])
        await room.bench.configure("alpha")
        assert (await shown(room))['queue_depth{status="pending",target="beta"}'] == 1
        await room.store.forget("beta", 100, room.clock.wall_ms())
        assert not [name for name in await shown(room) if "beta" in name and "queue" in name]
