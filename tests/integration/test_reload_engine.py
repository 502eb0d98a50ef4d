"""Other targets under an engine at work, over a real store; the wire is a scripted client."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.engine import Room, ScriptedClient, answer, entry, target
from support.factories import event
from support.until import until

from relay.board import TargetBoard
from relay.config import TargetSettings
from relay.model import Attempt, Delivery
from relay.standing import Breaker

LATE = {"schedule": ["1h"], "jitter": 0}


class Reloaded(Room):
    async def reload(self, *targets: TargetSettings, anew: tuple[str, ...] = (), reach: str = "") -> None:
        """As the daemon does it; `anew` names the targets that get another client."""
        for one in targets:
            if one.name in anew or one.name not in self.clients:
                self.clients[one.name] = ScriptedClient(self.clock, one.name)
        await self.bench.store.configure([entry(one, reach) for one in targets])
        self.targets = targets
        self.scheduler.reconfigure(targets, self.clients)

    async def until_settled(self, name: str = "alpha") -> None:
        await until(lambda: self.board.targets.get(name, TargetBoard()).in_flight == 0)


class Held:
    """A script whose answers wait until they are let go."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.go = asyncio.Event()

    async def __call__(self, _delivery: Delivery) -> Attempt:
        await self.go.wait()
        return answer(self.status)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Reloaded]:
    async with Reloaded(tmp_path / "relay.db", target(retry=LATE)) as made:
        assert isinstance(made, Reloaded)
        yield made


async def test_a_new_target_starts_from_now(room: Reloaded):
    await room.add(event("old"))
    await room.until_empty()
    await room.reload(target(retry=LATE), target("beta"))
    await room.add(event("new"))
    await room.until_empty("beta")
    assert room.clients["beta"].ids == ["evt_new_1"]
    assert room.client.ids == ["evt_old_1", "evt_new_1"]


async def test_what_a_removed_target_has_on_the_wire_ends_and_the_rest_waits_for_its_return(room: Reloaded):
    """Failure mode 116: a removed target with a backlog."""
    held = room.client.script = Held()
    await room.add(event("o1", sequence=1), event("o1", sequence=2))
    await room.client.until_sent(1)
    await room.reload(target("beta"))
    held.go.set()
    await until(lambda: "alpha" not in room.board.targets)
    waiting = await room.waiting()
    assert (waiting.pending, waiting.standing.configured) == (1, False)
    assert [one.event.webhook_id for one in room.clients["alpha"].taken] == ["evt_o1_1"]
    await room.reload(target(retry=LATE), target("beta"))
    await room.until_empty()
    assert room.client.ids == ["evt_o1_1", "evt_o1_2"]


async def test_a_target_that_comes_back_at_once_keeps_to_its_slots(room: Reloaded):
    """What it has on the wire still counts."""
    held = room.client.script = Held()
    await room.add(*(event(f"o{number}") for number in range(40)))
    await room.client.until_sent(16)
    await room.reload(target("beta"))
    await room.reload(target(retry=LATE, concurrency=20), target("beta"))
    await room.client.until_sent(20)
    assert room.board.targets["alpha"].in_flight == 20
    held.go.set()
    await room.until_empty()
    assert room.client.most == 20


async def test_a_failure_by_replaced_settings_is_held_against_nobody(room: Reloaded):
    """It says nothing about the URL that was corrected meanwhile: the delivery is due at once, and uses no step."""
    old = room.client
    held = old.script = Held(500)
    await room.add(*(event(f"o{number}") for number in range(12)))
    await old.until_sent(12)
    await room.reload(target(retry=LATE), anew=("alpha",), reach="new")
    held.go.set()
    await room.until_empty()
    assert sorted(room.client.ids) == sorted(old.ids)
    assert {one.steps_used for one in room.client.taken} == {0}
    assert (await room.standing()).breaker is Breaker.CLOSED


@pytest.mark.parametrize("status", [410, 400, 503])
async def test_whatever_it_was_that_failed(room: Reloaded, status: int):
    held = room.client.script = Held(status)
    await room.add(event("o1"))
    await room.client.until_sent(1)
    await room.reload(target(retry=LATE), anew=("alpha",))
    held.go.set()
    await room.until_empty()
    standing = await room.standing()
    assert (standing.parked_ms, standing.allowance, standing.throttled_until_ms) == (None, None, None)


async def test_a_success_by_replaced_settings_is_one(room: Reloaded):
    held = room.client.script = Held(200)
    await room.add(event("o1"))
    await room.client.until_sent(1)
    await room.reload(target(retry=LATE), anew=("alpha",))
    held.go.set()
    await room.until_empty()
    assert room.client.ids == []


async def test_a_changed_reach_probes_at_once(room: Reloaded):
    room.client.script = lambda _delivery: 500
    await room.add(*(event(f"o{number}") for number in range(12)))
    await room.client.until_sent(12)
    await room.until_settled()
    assert (await room.standing()).breaker is Breaker.OPEN
    await room.reload(target(retry=LATE), anew=("alpha",), reach="new")
    await room.until_empty()
    assert len(room.client.taken) == 12


async def test_fewer_slots_count_from_the_next_attempt_on(room: Reloaded):
    held = room.client.script = Held()
    await room.add(*(event(f"o{number}") for number in range(40)))
    await room.client.until_sent(16)
    await room.reload(target(retry=LATE, concurrency=2))
    held.go.set()
    await until(lambda: room.client.on_wire <= 2)
    room.client.most = 0
    await room.until_empty()
    assert room.client.most <= 2


async def test_paused_by_the_file_and_back(room: Reloaded):
    await room.reload(target(retry=LATE, paused=True))
    await room.add(event("o1"))
    assert (await room.standing()).paused_by_config
    assert room.client.ids == []
    await room.reload(target(retry=LATE))
    await room.until_empty()


async def test_many_reloads_leave_no_task_and_no_memory_of_targets_behind(room: Reloaded):
    await room.add(event("first"))
    await room.until_empty()
    await room.until_settled()
    before = len(asyncio.all_tasks())
    for turn in range(100):
        await room.reload(target(retry=LATE), target(f"t{turn}"))
        await room.add(event(f"o{turn}"))
    await room.until_empty()
    await room.reload(target(retry=LATE))
    await until(lambda: set(room.board.targets) == {"alpha"})
    await until(lambda: len(asyncio.all_tasks()) <= before)
    assert set(room.scheduler._settler.policies) == {"alpha"}
    assert set(room.scheduler._settler.standings) == {"alpha"}
