"""What every store promises about targets as a whole: configuration, pause, orphans, forgetting."""

import pytest
from msgspec.structs import replace
from support.factories import event
from support.stores import Bench, again, as_it_was, delivered, trips

from relay.model import DeliveryStatus
from relay.standing import Breaker, Ordering, Resume, Standing
from relay.store.values import Settlement, TargetEntry

FAR = 10_000_000


async def one_waits(bench: Bench) -> None:
    """A head that has failed once and waits, at a target whose breaker is open."""
    await bench.add(event("o1"), targets=["alpha"])
    await bench.settle(again((await bench.claim())[0], FAR), judge=trips)
    await bench.settle(again((await bench.probe())[0], FAR), judge=trips)
    await bench.store.shift_due("alpha", FAR, 0)


async def test_new_targets_are_active_from_the_moment_they_are_known(bench: Bench):
    bench.now_ms = 7_000
    await bench.configure("alpha", "beta", TargetEntry("gamma", paused=True))
    standing = await bench.standing("gamma")
    assert (standing.state, standing.paused_by_config, standing.resumed_ms) == ("paused", True, 7_000)
    assert (await bench.standing("alpha")).resumed_ms == 1_000
    await bench.add(event("o1"), targets=["gamma"])
    assert await bench.claim("gamma") == []


async def test_the_same_configuration_again_changes_nothing(bench: Bench):
    await one_waits(bench)
    before = await bench.store.backlog()
    bench.woken.clear()
    bench.now_ms = 50_000
    await bench.configure("alpha", "beta")
    await bench.restart()
    assert await bench.store.backlog() == before
    assert bench.woken == []


@pytest.mark.parametrize("change", ["reach", "pause", "return"])
async def test_a_new_start_makes_heads_due_and_an_open_breaker_probe(bench: Bench, change: str):
    await bench.configure(TargetEntry("alpha", reach="old"), "beta")
    await one_waits(bench)
    steps = {
        "reach": [[TargetEntry("alpha", reach="new")]],
        "pause": [[TargetEntry("alpha", reach="old", paused=True)], [TargetEntry("alpha", reach="old")]],
        "return": [["beta"], [TargetEntry("alpha", reach="old")]],
    }[change]
    bench.woken.clear()
    bench.now_ms = 20_000
    for entries in steps:
        assert (await bench.standing()).resumed_ms == 1_000
        await bench.configure(*entries)
    standing = await bench.standing()
    assert (standing.breaker, standing.probe_due_ms) == (Breaker.OPEN, 20_000)
    assert standing.resumed_ms == (1_000 if change == "reach" else 20_000)
    assert bench.woken == [{"alpha"}]
    assert [one.event.lane for one in await bench.claim(now_ms=20_000)] == ["o1"]


async def test_another_address_does_not_undo_what_a_person_or_a_410_did(bench: Bench):
    await bench.add(event("o1"))
    await bench.store.pause("beta", 3_000)
    await bench.settle(again((await bench.claim())[0], FAR, gone=True))
    await bench.configure(TargetEntry("alpha", reach="new"), TargetEntry("beta", reach="new"))
    assert [(await bench.standing(name)).state for name in ("alpha", "beta")] == ["parked", "paused"]


async def test_orphans_keep_their_deliveries_and_are_shown_while_they_have_any(bench: Bench):
    await bench.add(event("o1"), event("o2"), targets=["alpha"])
    await bench.configure("beta")
    assert await bench.claim() == []
    found = await bench.store.backlog()
    assert (found["alpha"].pending, found["alpha"].standing.state) == (2, "orphaned")
    await bench.restart(["beta"])
    assert set(await bench.store.backlog()) == {"alpha", "beta"}
    assert await bench.store.forget("alpha", 10, 5_000) == 2
    assert set(await bench.store.backlog()) == {"beta"}


async def test_pause_and_resume_say_what_they_changed(bench: Bench):
    assert await bench.store.resume("alpha", 2_000) is Resume.NOTHING
    await one_waits(bench)
    assert await bench.store.pause("alpha", 3_000)
    assert not await bench.store.pause("alpha", 4_000)
    assert (await bench.standing()).paused_ms == 3_000
    await bench.restart()
    bench.woken.clear()
    assert await bench.store.resume("alpha", 5_000) is Resume.PAUSED
    assert bench.woken == [{"alpha"}]
    standing = await bench.standing()
    assert (standing.state, standing.resumed_ms, standing.probe_due_ms) == ("active", 5_000, 5_000)
    assert len(await bench.claim(now_ms=5_000)) == 1
    assert await bench.store.resume("alpha", 6_000) is Resume.BREAKER_OPEN


async def test_resuming_probes_an_open_breaker_at_once(bench: Bench):
    await one_waits(bench)
    before = await bench.standing()
    assert before.breaker is Breaker.OPEN
    bench.woken.clear()
    assert await bench.store.resume("alpha", 2_000) is Resume.BREAKER_OPEN
    assert bench.woken == [{"alpha"}]
    assert await bench.standing() == replace(before, probe_due_ms=2_000, throttled_until_ms=None)
    assert await bench.store.check() == []


async def test_a_paused_target_is_probed_only_once_it_is_no_longer_paused(bench: Bench):
    await one_waits(bench)
    await bench.configure(TargetEntry("alpha", paused=True), "beta")
    before = await bench.standing()
    assert await bench.store.resume("alpha", 2_000) is Resume.NOTHING
    assert await bench.standing() == before


async def test_resuming_does_not_overrule_the_configuration(bench: Bench):
    await bench.configure(TargetEntry("alpha", paused=True), "beta")
    await one_waits_nowhere(bench)
    await bench.store.pause("alpha", 3_000)
    assert await bench.store.resume("alpha", 4_000) is Resume.PAUSED
    assert (await bench.standing()).state == "paused"
    assert await bench.claim(now_ms=FAR) == []


async def one_waits_nowhere(bench: Bench) -> None:
    await bench.add(event("o1"), targets=["alpha"])


async def test_forgetting_cancels_bit_by_bit_what_an_orphan_holds(bench: Bench):
    await bench.add_life("o1", 3, targets=["alpha"])
    await bench.add_life("o2", 2, targets=["alpha", "beta"])
    assert await bench.store.forget("alpha", 10, 5_000) == 0  # it is configured
    (flying,) = await bench.claim(limit=1)
    await bench.configure("beta")
    counts = []
    while count := await bench.store.forget("alpha", 2, 5_000):
        counts.append(count)
        assert await bench.store.check() == []
    assert counts == [2, 2]
    assert (await bench.store.backlog())["alpha"].pending == 1  # what is on the wire may still arrive
    await bench.settle(delivered(flying))
    assert set(await bench.store.backlog()) == {"beta"}
    ended = [DeliveryStatus.DELIVERED, DeliveryStatus.CANCELLED, DeliveryStatus.CANCELLED]
    assert await bench.statuses("o1") == ended
    assert await bench.statuses("o2", "beta") == [DeliveryStatus.PENDING] * 2


async def test_another_ordering_holds_for_what_comes_from_now_on(bench: Bench):
    await bench.add_life("o1", 3, targets=["alpha"])
    await bench.configure(TargetEntry("alpha", Ordering.NONE), "beta")
    await bench.add(event("o1", sequence=4), targets=["alpha"])
    sequences = [one.event.facts.sequence for one in await bench.claim() if one.event.facts]
    assert sequences == [1, 4]
    await bench.restart([TargetEntry("alpha", Ordering.LATEST_ONLY)])
    await bench.add(event("o1", sequence=5), targets=["alpha"])
    assert await bench.statuses("o1") == ["pending", "superseded", "superseded", "pending", "pending"]
    assert await bench.store.check() == []


async def test_a_person_who_asks_does_not_make_a_target_look_stuck(bench: Bench):
    """What is asked for sorts before everything else; that is no waiting time."""
    await bench.add(event("o1"), now_ms=5_000)
    (head,) = await bench.claim()
    await bench.store.release([head])
    await bench.store.retry_now(head.id, 6_000)
    assert (await bench.store.backlog())["alpha"].waiting_since_ms is None
    await bench.add(event("o2"), now_ms=7_000)
    assert (await bench.store.backlog())["alpha"].waiting_since_ms == 7_000


async def test_a_standing_that_has_not_changed_is_as_it_was(bench: Bench):
    await bench.add(event("o1"))

    def judge(standing: Standing, _one: Settlement) -> Standing:
        return replace(standing)

    before = await bench.standing()
    await bench.settle(again((await bench.claim())[0], FAR), judge=judge)
    assert await bench.standing() == before
    await bench.settle(*(delivered(one) for one in await bench.claim(now_ms=FAR)), judge=as_it_was)
    assert await bench.standing() == before
