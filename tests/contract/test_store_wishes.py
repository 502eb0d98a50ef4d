"""What every store promises about single deliveries: asked for, cancelled, expired, trimmed, replayed, superseded."""

import pytest
from support.factories import event
from support.stores import Bench, again, dead, delivered, trips

from relay.model import DeadReason, DeliveryStatus
from relay.standing import Breaker, Ordering
from relay.store.values import Change, Expiry, TargetEntry

FAR = 10_000_000
LATEST = TargetEntry("alpha", Ordering.LATEST_ONLY)
NONE = TargetEntry("alpha", Ordering.NONE)


async def pending(bench: Bench, target: str = "alpha") -> int:
    return (await bench.store.backlog())[target].pending


async def test_a_person_can_have_a_waiting_delivery_tried_now_before_all_others(bench: Bench):
    await bench.add(*(event(f"o{n}") for n in range(3)), targets=["alpha"])
    first, second, third = await bench.claim()
    await bench.settle(again(first, FAR), again(second, FAR), judge=trips)
    await bench.store.release([third])
    bench.woken.clear()
    assert await bench.store.retry_now(second.id, 5_000) is Change.DONE
    assert bench.woken == [{"alpha"}]
    standing = await bench.standing()
    assert (standing.breaker, standing.probe_due_ms, standing.throttled_until_ms) == (Breaker.OPEN, 5_000, None)
    (asked,) = await bench.probe(now_ms=5_000)
    assert (asked.id, asked.manual, asked.probe) == (second.id, True, True)
    assert await bench.store.retry_now(second.id, 5_000) is Change.IN_FLIGHT
    await bench.settle(again(asked, FAR), judge=trips, now_ms=6_000)
    order = [(await bench.probe(now_ms=7_000))[0] for _ in range(3)]
    assert [(one.event.lane, one.manual) for one in order] == [("o2", False), ("o0", False), ("o1", False)]


async def test_what_cannot_be_tried_now_says_why(bench: Bench):
    await bench.add_life("o1", 2, targets=["alpha"])
    (head,) = await bench.claim()
    assert await bench.store.retry_now(head.id, 1) is Change.IN_FLIGHT
    assert await bench.store.retry_now(head.id + 1, 1) is Change.BLOCKED
    assert await bench.store.retry_now(99, 1) is Change.UNKNOWN
    await bench.store.release([head])
    await bench.store.pause("alpha", 1)
    assert await bench.store.retry_now(head.id, 1) is Change.STOPPED
    await bench.store.resume("alpha", 1)
    await bench.settle(*(delivered(one) for one in await bench.claim()))
    assert await bench.store.retry_now(head.id, 1) is Change.FINISHED


async def test_asking_survives_a_restart_and_ends_with_the_attempt(bench: Bench):
    await bench.add(event("o1"), targets=["alpha"])
    assert await bench.store.retry_now(1, 5_000) is Change.DONE
    await bench.restart()
    (one,) = await bench.claim()
    assert one.manual
    await bench.settle(again(one, 6_000))
    assert [one.manual for one in await bench.claim()] == [False]


async def test_a_person_can_cancel_what_waits(bench: Bench):
    await bench.add_life("o1", 3, targets=["alpha"])
    (head,) = await bench.claim()
    assert await bench.store.cancel(head.id, 5_000) is Change.IN_FLIGHT
    assert await bench.store.cancel(99, 5_000) is Change.UNKNOWN
    assert await bench.store.cancel(2, 5_000) is Change.DONE  # in the middle of its lane
    await bench.store.release([head])
    bench.woken.clear()
    assert await bench.store.cancel(head.id, 5_000) is Change.DONE
    assert bench.woken == [{"alpha"}]
    assert await bench.store.cancel(head.id, 5_000) is Change.FINISHED
    assert await bench.statuses("o1") == ["cancelled", "cancelled", "pending"]
    assert [one.event.facts.sequence for one in await bench.claim() if one.event.facts] == [3]
    assert await pending(bench) == 1
    assert await bench.store.check() == []


async def test_old_deliveries_expire_once_they_were_in_vain_often_enough(bench: Bench):
    await bench.add_life("o1", 2, targets=["alpha"])
    for _ in range(5):
        await bench.settle(again((await bench.claim(limit=1))[0], 1_500))
    await bench.add(event("o2"), targets=["alpha"])
    assert await bench.store.expire("alpha", 1_000, 0, 10, 9_000) == Expiry(0, 0)  # not old enough
    bench.woken.clear()
    assert await bench.store.expire("alpha", 1_001, 0, 10, 9_000) == Expiry(1, 0)
    assert bench.woken == [{"alpha"}]
    assert await bench.statuses("o1") == [DeadReason.EXPIRED, "pending"]
    assert await bench.statuses("o2") == ["pending"]
    assert {one.event.webhook_id for one in await bench.claim()} == {"evt_o1_2", "evt_o2_1"}
    assert await bench.store.check() == []


async def test_five_vain_probes_of_its_target_expire_what_was_never_attempted(bench: Bench):
    await bench.add_life("o1", 3, targets=["alpha"])
    (head,) = await bench.claim()
    await bench.settle(again(head, FAR, at_ms=2_000), judge=trips)
    for now in range(2_000, 7_000, 1_000):
        await bench.settle(again((await bench.probe())[0], FAR, at_ms=now), judge=trips)
    assert (await bench.standing()).vain_probes == (2_000, 3_000, 4_000, 5_000, 6_000)
    (flying,) = await bench.probe()
    assert await bench.store.expire("alpha", 5_000, 0, 10, 9_000) == Expiry(2, 0)
    assert await bench.statuses("o1") == ["pending", DeadReason.EXPIRED, DeadReason.EXPIRED]  # one is on the wire
    await bench.settle(delivered(flying))
    assert await pending(bench) == 0


async def test_the_look_for_expired_ones_goes_on_where_it_stopped(bench: Bench):
    await bench.add(*(event(f"o{n}") for n in range(5)), targets=["alpha"])
    for _ in range(5):
        await bench.settle(*(again(one, 1_500) for one in await bench.claim()))
    places, after = [], 0
    while True:
        expiry = await bench.store.expire("alpha", 5_000, after, 2, 9_000)
        places.append(expiry.ended)
        if not expiry.next_after:
            break
        assert expiry.next_after > after
        after = expiry.next_after
    assert places == [2, 2, 1]


@pytest.mark.parametrize("stop", ["pause", "park", "leave"])
async def test_a_stopped_target_keeps_everything_however_old(bench: Bench, stop: str):
    await bench.add(event("o1"), targets=["alpha"])
    for _ in range(5):
        await bench.settle(again((await bench.claim())[0], 1_500, gone=stop == "park"))
        await bench.store.resume("alpha", 1_000)
    if stop == "park":
        await bench.settle(again((await bench.claim())[0], 1_500, gone=True))
    elif stop == "pause":
        await bench.store.pause("alpha", 1_000)
    else:
        await bench.configure("beta")
    assert await bench.store.expire("alpha", FAR, 0, 10, FAR) == Expiry(0, 0)
    bench.now_ms = 20_000
    await bench.configure("alpha", "beta")
    await bench.store.resume("alpha", 20_000)
    assert await bench.store.expire("alpha", 20_000, 0, 10, FAR) == Expiry(0, 0)  # its age counts anew
    assert (await bench.store.expire("alpha", 20_001, 0, 10, FAR)).ended == 1


async def test_beyond_the_limit_the_oldest_end_loudly_but_none_on_the_wire(bench: Bench):
    await bench.add_life("o1", 3, targets=["alpha"])
    await bench.add_life("o2", 3, targets=["alpha", "beta"])
    assert await bench.store.trim("alpha", 6, 10, 9_000) == 0
    (flying,) = await bench.claim(limit=1)
    assert await bench.store.trim("alpha", 3, 1, 9_000) == 1
    assert await bench.store.trim("alpha", 3, 10, 9_000) == 1
    assert await bench.store.trim("alpha", 3, 10, 9_000) == 0  # the one left over is on the wire
    assert await bench.statuses("o1") == ["pending", DeadReason.OVERFLOW, DeadReason.OVERFLOW]
    await bench.store.release([flying])
    assert await bench.store.trim("alpha", 3, 10, 9_000) == 1
    assert await bench.statuses("o1") == [DeadReason.OVERFLOW] * 3
    assert await bench.statuses("o2") == ["pending"] * 3
    assert await pending(bench, "beta") == 3
    assert await bench.store.trim("alpha", 1, 10, 9_000) == 2
    assert [one.event.facts.sequence for one in await bench.claim() if one.event.facts] == [3]
    assert await bench.store.check() == []


async def test_latest_only_supersedes_what_waits_behind_the_head(bench: Bench):
    await bench.configure(LATEST, "beta")
    for sequence in (1, 2, 3, 4):
        await bench.add(event("o1", 1, sequence))
        await bench.add(event("o2", 1, sequence), targets=["beta"])
    assert await bench.statuses("o1") == ["pending", "superseded", "superseded", "pending"]
    assert await bench.statuses("o1", "beta") == ["pending"] * 4
    assert bench.superseded == [{"alpha": 1}] * 2
    assert await pending(bench) == 2
    assert (await bench.claim())[0].event.webhook_id == "evt_o1_1"
    await bench.settle(*(delivered(one) for one in await bench.claim()))
    assert await bench.store.check() == []


async def test_latest_only_never_gives_up_an_end_for_something_that_is_none(bench: Bench):
    """An expired order may revive: that it expired is told all the same."""
    await bench.configure(LATEST)
    for sequence, status in enumerate((0, 5, 1, 2, 4, 7), 1):
        await bench.add(event("o1", status, sequence), targets=["alpha"])
        if sequence == 4:
            assert await bench.statuses("o1") == ["pending", "pending", "superseded", "pending"]
    assert await bench.statuses("o1") == ["pending"] + ["superseded"] * 4 + ["pending"]
    assert await pending(bench) == 2


async def test_latest_only_holds_for_notices_too(bench: Bench):
    await bench.configure(LATEST)
    for number in range(3):
        await bench.add(event("relay:upstream", sequence=number, facts=None), targets=["alpha"])
    assert await pending(bench) == 2


async def test_a_replay_of_the_past_is_superseded_at_once_where_only_the_latest_counts(bench: Bench):
    await bench.configure(LATEST, "beta")
    await bench.add(event("o1", 1, 1), event("o1", 2, 2))
    await bench.add(event("o1", 3, 3), targets=["beta"])  # never routed to alpha, so no newer word for it
    for _ in range(2):
        await bench.settle(*(delivered(one) for one in await bench.claim()))
    bench.superseded.clear()
    assert await bench.store.replay("alpha", ["evt_o1_1", "evt_o1_2", "evt_o1_3"], 5_000) == 2
    assert bench.superseded == [{"alpha": 1}]
    found = await bench.store.order_deliveries(["o1"])
    replays = [(one.sequence, one.status) for one in found if one.target == "alpha" and one.replay]
    pending_, superseded = DeliveryStatus.PENDING, DeliveryStatus.SUPERSEDED
    assert replays == [(1, superseded), (2, pending_), (3, pending_)]
    assert await pending(bench) == 2
    assert [one.event.webhook_id for one in await bench.claim()] == ["evt_o1_2"]
    assert await bench.store.check() == []


async def test_without_an_ordering_nothing_waits_for_anything(bench: Bench):
    await bench.configure(NONE, "beta")
    await bench.add_life("o1", 3)
    assert len(await bench.claim("beta")) == 1
    first, *_rest = await bench.claim()
    assert len(_rest) == 2
    await bench.settle(dead(first))
    await bench.store.replay("alpha", ["evt_o1_1", "evt_o1_1"], 5_000)
    assert [(one.event.lane, one.manual) for one in await bench.claim()] == [("o1", True)] * 2
    assert await bench.store.check() == []
