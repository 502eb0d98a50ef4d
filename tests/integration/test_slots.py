"""When a slot is free again: after a 2xx at once, after anything else when that is committed; never without bound."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.engine import Answer, Steps, answer, target
from support.factories import event
from support.until import until

from relay.delivery.target_loop import UNSETTLED
from relay.log_names import Log
from relay.model import Delivery
from relay.standing import Standing
from relay.store.values import Claim


@asynccontextmanager
async def uncommitted(steps: Steps) -> AsyncIterator[asyncio.Event]:
    """Nothing is settled until the event is set."""
    store, commit = steps.bench.store, asyncio.Event()
    settle = store.settle

    async def later(*args: Any) -> Mapping[str, Standing]:
        await commit.wait()
        return await settle(*args)

    object.__setattr__(store, "settle", later)
    try:
        yield commit
    finally:
        commit.set()
        await until(lambda: steps.board.targets["alpha"].in_flight == 0)


async def look(steps: Steps, times: int = 20) -> None:
    """As often as is worth it, and more."""
    for _ in range(times):
        await steps.loops["alpha"].run_once()
        for _ in range(5):
            await asyncio.sleep(0)


async def test_a_2xx_frees_its_slot_before_it_is_committed_up_to_a_bound(tmp_path: Path):
    async with Steps(tmp_path / "relay.db", target(concurrency=2)) as steps:
        await steps.add(*(event(f"o{number}") for number in range(30)))
        async with uncommitted(steps):
            await look(steps)
            assert len(steps.client.sent) == UNSETTLED * 2
            assert steps.client.most <= 2
            assert steps.board.targets["alpha"].in_flight == UNSETTLED * 2
        await steps.turn()
        assert len({one.id for one in steps.client.sent}) == 30


@pytest.mark.parametrize("status", [500, 410, 429, 400])
async def test_anything_else_keeps_its_slot_until_it_is_committed(tmp_path: Path, status: int):
    async with Steps(tmp_path / "relay.db", target(concurrency=2)) as steps:
        steps.client.script = lambda _delivery: status
        await steps.add(*(event(f"o{number}") for number in range(9)))
        async with uncommitted(steps):
            await look(steps)
            assert len(steps.client.sent) == 2


async def test_a_2xx_that_asks_for_nothing_more_keeps_its_slot(tmp_path: Path):
    async with Steps(tmp_path / "relay.db", target(concurrency=1)) as steps:

        def last(_delivery: Delivery) -> Answer:
            return answer(200, webhook_delivery="disable")

        steps.client.script = last
        await steps.add(*(event(f"o{number}") for number in range(3)))
        async with uncommitted(steps):
            await look(steps)
            assert len(steps.client.sent) == 1
        await steps.turn()
        assert len(steps.client.sent) == 1
        assert (await steps.standing()).parked_ms is not None


async def test_the_next_of_an_order_waits_for_the_commit(tmp_path: Path):
    async with Steps(tmp_path / "relay.db", target(concurrency=4)) as steps:
        await steps.add(event("o1", sequence=1), event("o1", sequence=2))
        async with uncommitted(steps):
            await look(steps)
            assert [one.event.facts and one.event.facts.sequence for one in steps.client.sent] == [1]
        await steps.turn()
        assert [one.event.facts and one.event.facts.sequence for one in steps.client.sent] == [1, 2]


async def test_while_a_target_recovers_what_is_not_committed_counts(tmp_path: Path):
    """A slow start is one at a time, and the second only after the first is known to be well."""
    quick = {"failures": 2, "probe": {"initial": "1s", "max": "1s"}}
    async with Steps(tmp_path / "relay.db", target(concurrency=8, breaker=quick)) as steps:
        steps.client.script = lambda _delivery: 500
        await steps.add(*(event(f"o{number}") for number in range(20)))
        await steps.turn()
        steps.client.script = lambda _delivery: 200
        steps.clock.move(2)
        while (await steps.standing()).allowance is None:
            await steps.round()
        allowed = (await steps.standing()).allowance
        before = len(steps.client.sent)
        async with uncommitted(steps):
            await look(steps)
            assert len(steps.client.sent) - before == allowed


async def test_a_drain_waits_for_outcomes_to_be_written(tmp_path: Path):
    async with Steps(tmp_path / "relay.db", target()) as steps, uncommitted(steps) as commit:
        await steps.add(event("o1"))
        await steps.loops["alpha"].run_once()
        await until(lambda: steps.client.taken)
        draining = asyncio.create_task(steps.loops["alpha"].drain(10.0))
        await look(steps)
        assert not draining.done()
        commit.set()
        assert await draining == 0


async def test_an_outcome_that_cannot_be_written_in_time_counts_as_cut_off(tmp_path: Path):
    async with Steps(tmp_path / "relay.db", target()) as steps, uncommitted(steps):
        running = asyncio.create_task(steps.loops["alpha"].run())
        await steps.add(event("o1"))
        steps.loops["alpha"].wake()
        await until(lambda: steps.client.taken)
        assert await steps.loops["alpha"].drain(0.01) == 1
        async with asyncio.timeout(5):
            await running
        assert steps.board.targets["alpha"].in_flight == 0


async def test_a_defect_in_what_is_told_of_an_outcome_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any) -> None:
        raise ValueError("a defect")

    async with Steps(tmp_path / "relay.db", target(concurrency=1)) as steps:
        monkeypatch.setattr(steps.loops["alpha"]._reporter, "settled", broken)
        await steps.add(event("o1", sequence=1), event("o1", sequence=2))
        with capture_logs() as lines:
            await steps.turn()
        assert steps.client.ids == ["evt_o1_1", "evt_o1_2"]
        assert [line["event"] for line in lines] == [Log.ATTEMPT_CRASHED] * 2
        assert (await steps.waiting()).pending == 0


async def test_a_claim_that_had_to_wait_is_for_every_slot_that_is_free_by_then(tmp_path: Path):
    """The store may be in the middle of a commit for milliseconds, in which most receivers have answered."""
    async with Steps(tmp_path / "relay.db", target(concurrency=2)) as steps:
        await steps.add(*(event(f"o{number}") for number in range(4)))
        answers = [asyncio.Event(), asyncio.Event()]

        async def in_turn(delivery: Delivery) -> int:
            if (place := steps.client.sent.index(delivery)) < 2:
                await answers[place].wait()
            return 200

        steps.client.script = in_turn
        await steps.loops["alpha"].run_once()
        await steps.client.until_sent(2)
        store, commit = steps.bench.store, asyncio.Event()
        claim = store.claim

        async def later(*args: Any) -> Claim:
            await commit.wait()
            return await claim(*args)

        object.__setattr__(store, "claim", later)
        answers[0].set()
        await until(lambda: len(steps.client.taken) == 1)
        claiming = asyncio.create_task(steps.loops["alpha"].run_once())
        answers[1].set()
        await until(lambda: len(steps.client.taken) == 2)
        commit.set()
        await claiming
        await steps.client.until_sent(4)
