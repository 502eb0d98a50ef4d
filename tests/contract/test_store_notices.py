"""What every store promises for the sake of notices: who died, what is remembered, an hour's life, whose wait it is."""

from typing import Any

import pytest
from support.factories import event
from support.stores import Bench, again, dead, delivered

from relay.model import DeadReason, Event
from relay.store.values import Death, IngestPlan, PlannedEvent


def notice(number: int = 1, subject: str = "beta") -> Event:
    return event(f"relay:{subject}", facts=None, type="relay.target.parked", webhook_id=f"evt_n{number}")


@pytest.fixture
def deaths(bench: Bench) -> list[Death]:
    found: list[Death] = []
    bench.store.on_dead(found.extend)
    return found


async def pending(bench: Bench, target: str = "alpha") -> int:
    return (await bench.store.backlog())[target].pending


async def test_an_attempts_end_is_told_if_it_was_one(bench: Bench, deaths: list[Death]):
    await bench.add(*(event(f"o{number}") for number in range(4)), targets=["alpha"])
    first, second, third, fourth = await bench.claim()
    await bench.settle(dead(first), delivered(second), again(third, 5_000), dead(fourth))
    expected = [Death("alpha", f"evt_o{number}_1", "order.waiting", DeadReason.EXHAUSTED) for number in (0, 3)]
    assert deaths == expected
    await bench.settle(dead(first))  # once more, which is ignored
    assert deaths == expected


async def test_what_expires_and_what_overflows_is_told(bench: Bench, deaths: list[Death]):
    await bench.add(event("o1"), event("o2"), event("o3"), targets=["alpha"])
    for _ in range(5):
        await bench.settle(again((await bench.claim(limit=1))[0], 0))
    await bench.store.expire("alpha", 5_000, 0, 10, 9_000)
    await bench.store.trim("alpha", 1, 10, 9_000)
    assert [(one.webhook_id, one.reason) for one in deaths] == [
        ("evt_o1_1", DeadReason.EXPIRED),
        ("evt_o2_1", DeadReason.OVERFLOW),
    ]


async def test_what_a_person_ends_has_not_died(bench: Bench, deaths: list[Death]):
    await bench.add(event("o1"), targets=["alpha"])
    await bench.store.cancel(1, 2_000)
    await bench.add(event("o2"), targets=["alpha"])
    await bench.configure("beta")
    await bench.store.forget("alpha", 10, 2_000)
    assert deaths == []


async def test_what_is_remembered_is_written_with_the_events_or_not_at_all(bench: Bench):
    def plan(fails: bool) -> Any:
        targets = ("alpha", "nobody") if fails else ("alpha",)
        planned = IngestPlan(now_ms=1, events=[PlannedEvent(notice(), targets)], remembered={"open": "{}"})
        return lambda _known: planned

    with pytest.raises(KeyError):
        await bench.store.ingest((), plan(fails=True))
    assert (await bench.store.meta_get("open"), await pending(bench)) == (None, 0)
    await bench.store.ingest((), plan(fails=False))
    await bench.restart()
    assert (await bench.store.meta_get("open"), await pending(bench)) == ("{}", 1)


async def test_notices_expire_by_age_alone_and_nothing_else_does(bench: Bench, deaths: list[Death]):
    await bench.add(event("o1"), event("relay:odd"), notice(1), now_ms=1_000, targets=["alpha"])
    await bench.add(notice(2), now_ms=2_000, targets=["alpha"])
    assert await bench.store.expire_notices("alpha", 1_000, 10, 9_000) == 0
    bench.woken.clear()
    assert await bench.store.expire_notices("alpha", 2_000, 10, 9_000) == 1
    assert bench.woken == [{"alpha"}]
    assert [one.webhook_id for one in deaths] == ["evt_n1"]
    assert await bench.statuses("o1") == ["pending"]
    assert await bench.statuses("relay:odd") == ["pending"]  # an order may be called anything
    heads = {one.event.webhook_id for one in await bench.claim()}
    assert heads == {"evt_o1_1", "evt_relay:odd_1", "evt_n2"}
    assert await bench.store.check() == []


async def test_notices_on_the_wire_are_left_and_the_rest_goes_in_batches(bench: Bench):
    await bench.add(*(notice(number, f"s{number}") for number in range(5)), targets=["alpha"])
    (flying,) = await bench.claim(limit=1)
    ended = [await bench.store.expire_notices("alpha", 5_000, 3, 9_000) for _ in range(3)]
    assert ended == [3, 1, 0]
    await bench.settle(delivered(flying))
    assert await pending(bench) == 0


@pytest.mark.parametrize(("stop", "ends"), [("pause", 1), ("park", 1), ("leave", 0)])
async def test_old_news_does_not_wait_for_a_person_but_an_orphans_is_kept(bench: Bench, stop: str, ends: int):
    await bench.add(notice(), targets=["alpha"])
    if stop == "park":
        await bench.settle(again((await bench.claim())[0], 1_500, gone=True))
    elif stop == "pause":
        await bench.store.pause("alpha", 1_000)
    else:
        await bench.configure("beta")
    assert await bench.store.expire_notices("alpha", 5_000, 10, 9_000) == ends


async def test_only_orders_wait(bench: Bench):
    await bench.add(notice(), now_ms=1_000, targets=["alpha"])
    backlog = (await bench.store.backlog())["alpha"]
    assert (backlog.oldest_ms, backlog.oldest_order_ms) == (1_000, None)
    await bench.add(event("o1"), now_ms=3_000, targets=["alpha"])
    await bench.add(event("o2"), now_ms=4_000, targets=["alpha"])
    backlog = (await bench.store.backlog())["alpha"]
    assert (backlog.oldest_ms, backlog.oldest_order_ms) == (1_000, 3_000)
