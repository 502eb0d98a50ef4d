"""What every store promises about permits, standings and outcomes."""

import asyncio

import pytest
from msgspec.structs import replace
from support.factories import event, failed_attempt, ok_attempt
from support.stores import Bench, again, as_it_was, dead, delivered, parks, probing, trips, up_to

from relay.model import DeliveryStatus, FailureKind, Timings
from relay.standing import Breaker, Permit, Resume, Standing
from relay.store.values import Claim, Settlement

FAR = 10_000_000


async def waiting(bench: Bench, *orders: str, due_ms: int = FAR) -> None:
    """One head an order, each of which has failed once and waits."""
    await bench.add(*(event(order) for order in orders))
    await bench.settle(*(again(one, due_ms) for one in await bench.claim()), judge=as_it_was)


async def test_the_permit_is_asked_about_the_standing_and_that_comes_back(bench: Bench):
    await bench.add(event("o1"))
    await bench.store.pause("alpha", 5_000)
    seen: list[Standing] = []

    def permits(standing: Standing) -> Permit:
        seen.append(standing)
        return Permit(0, look_again_ms=7_000)

    claim = await bench.store.claim("alpha", permits, 6_000)
    assert (claim.deliveries, claim.next_due_ms, claim.standing) == ((), 7_000, seen[0])
    assert claim.standing.paused_ms == 5_000


async def test_no_more_is_claimed_than_the_permit_says(bench: Bench):
    await bench.add(*(event(f"o{n}") for n in range(5)))
    assert len(await bench.claim(limit=2)) == 2
    assert len(await bench.claim(limit=2)) == 2
    assert len(await bench.claim(limit=2)) == 1
    assert await bench.claim(limit=2) == []


@pytest.mark.parametrize(("look_again_ms", "expected"), [(None, 33_000), (20_000, 20_000), (50_000, 33_000)])
async def test_ask_again_at_the_earlier_of_the_next_due_head_and_the_permits_word(
    bench: Bench, look_again_ms: int | None, expected: int
):
    await waiting(bench, "o1", due_ms=33_000)
    claim = await bench.store.claim("alpha", lambda _standing: Permit(5, look_again_ms=look_again_ms), 10_000)
    assert (claim.deliveries, claim.next_due_ms) == ((), expected)


async def test_a_probe_takes_the_longest_due_head_even_if_it_is_not_due(bench: Bench):
    await waiting(bench, "o1", "o2")
    await bench.settle(again((await bench.claim(limit=1, now_ms=FAR))[0], FAR + 5), judge=as_it_was)
    claim = await bench.store.claim("alpha", probing(40_000), 10_000)
    assert [(one.event.lane, one.probe) for one in claim.deliveries] == [("o2", True)]
    assert claim.next_due_ms == 40_000
    second = await bench.store.claim("alpha", probing(40_000), 10_000)
    assert [one.event.lane for one in second.deliveries] == ["o1"]


async def test_a_probe_with_nothing_to_try_waits_for_an_event(bench: Bench):
    claim = await bench.store.claim("alpha", probing(10_000), 10_000)
    assert (claim.deliveries, claim.next_due_ms) == ((), None)


async def test_a_cancelled_claim_holds_nothing(bench: Bench):
    """Otherwise these lanes would stand still until the next start."""
    await bench.add(event("o1"))
    cancelled = 0
    for turns in range(200):
        task = asyncio.create_task(bench.store.claim("alpha", up_to(10), 10_000))
        for _ in range(turns % 20):
            await asyncio.sleep(0)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        cancelled += isinstance(result, asyncio.CancelledError)
        if isinstance(result, Claim):
            await bench.store.release(result.deliveries)
        await bench.store.check_alive()
        claimed = await bench.claim()
        assert len(claimed) == 1
        await bench.store.release(claimed)
    assert cancelled > 10


async def test_a_delivery_comes_as_it_was_left(bench: Bench):
    await bench.add(event("o1"))
    (one,) = await bench.claim()
    await bench.settle(again(one, 5_000, at_ms=1_234))
    (one,) = await bench.probe()
    assert (one.attempts_made, one.steps_used, one.first_attempt_ms, one.manual) == (1, 1, 1_234, False)
    await bench.settle(again(one, 5_000, at_ms=2_345))
    (one,) = await bench.claim()
    assert (one.attempts_made, one.steps_used, one.first_attempt_ms, one.probe) == (2, 1, 1_234, False)


async def test_the_judge_sees_every_outcome_in_order_and_its_word_is_kept(bench: Bench):
    await bench.add(*(event(f"o{n}") for n in range(3)))
    claimed = {name: await bench.claim(name) for name in ("alpha", "beta")}
    asked: list[tuple[int, str]] = []

    def judge(standing: Standing, settlement: Settlement) -> Standing:
        asked.append((standing.failures, settlement.delivery.event.lane))
        return replace(standing, failures=standing.failures + 1, last_error="boom", failing_order="o0")

    settlements = [again(one, FAR) for name in ("alpha", "beta") for one in claimed[name]]
    standings = await bench.settle(*settlements, judge=judge)
    assert asked == [(0, "o0"), (1, "o1"), (2, "o2")] * 2
    assert {name: one.failures for name, one in standings.items()} == {"alpha": 3, "beta": 3}
    await bench.restart()
    assert await bench.standing() == standings["alpha"]
    assert standings["alpha"].last_error == "boom"


async def test_every_field_of_a_standing_survives(bench: Bench):
    await bench.add(event("o1"))
    odd = Standing(
        True, 1, False, 3, 4, Breaker.OPEN, 5, 6, "o1", True, (7, 8), 9, 10, 11, 12, 13, "o2", 14, "because \x00 ü"
    )
    standings = await bench.settle(again((await bench.claim())[0], FAR), judge=lambda _standing, _one: odd)
    assert standings == {"alpha": odd}
    await bench.restart()
    assert await bench.standing() == odd


async def test_opening_the_breaker_makes_every_waiting_head_due_and_gives_steps_back(bench: Bench):
    await waiting(bench, "o1", "o2")
    await bench.add(event("o3"), now_ms=9_000)
    await bench.settle(again((await bench.claim())[0], FAR), judge=trips, now_ms=20_000)
    heads = {one.event.lane: one for one in await bench.claim(now_ms=20_000)}
    assert {lane: (one.attempts_made, one.steps_used) for lane, one in heads.items()} == {
        "o1": (1, 0),
        "o2": (1, 0),
        "o3": (1, 0),
    }
    assert (await bench.claim("beta"))[0].steps_used == 0


async def test_a_breaker_that_opens_and_closes_in_one_group_still_ends_the_waits(bench: Bench):
    await waiting(bench, "o1")
    await bench.add(event("o2"), event("o3"))
    bad, good = await bench.claim()
    await bench.settle(again(bad, FAR), delivered(good), judge=trips, now_ms=20_000)
    assert (await bench.standing()).breaker is Breaker.CLOSED
    assert {one.event.lane for one in await bench.claim(now_ms=20_000)} == {"o1", "o2"}


async def test_what_fails_while_the_breaker_is_open_is_due_at_once(bench: Bench):
    """Its step is used up, but only the probes decide when it is tried, and a head that just failed comes last."""
    await bench.add(*(event(f"o{n}") for n in range(3)))
    first, second, third = await bench.claim()
    await bench.settle(again(first, FAR), judge=trips, now_ms=20_000)
    await bench.settle(again(second, FAR), judge=trips, now_ms=21_000)
    await bench.store.release([third])
    order = []
    for now in (22_000, 23_000, 24_000, 25_000):
        (probe,) = await bench.probe(now_ms=now)
        order.append((probe.event.lane, probe.steps_used))
        await bench.settle(again(probe, FAR), judge=trips, now_ms=now)
    assert order == [("o2", 0), ("o0", 0), ("o1", 1), ("o2", 0)]


async def test_a_breaker_that_stays_open_gives_no_more_steps_back(bench: Bench):
    await waiting(bench, "o1", due_ms=15_000)
    for now in (20_000, 30_000):
        await bench.settle(again((await bench.claim(now_ms=now))[0], FAR), judge=trips, now_ms=now)
    assert [one.steps_used for one in await bench.probe(now_ms=40_000)] == [2]


async def test_a_410_parks_and_nothing_is_claimed_until_a_person_resumes(bench: Bench):
    await bench.add(event("o1"), event("o2"))
    await bench.settle(again((await bench.claim(limit=1))[0], FAR, gone=True, at_ms=4_000), judge=parks)
    assert await bench.claim(now_ms=FAR) == []
    assert await bench.store.resume("alpha", 9_000) is Resume.PARKED
    standing = await bench.standing()
    assert (standing.state, standing.resumed_ms) == ("active", 9_000)
    assert len(await bench.claim(now_ms=9_000)) == 2


async def test_success_is_believed_even_of_a_delivery_that_has_ended(bench: Bench):
    """The receiver has it: to call it cancelled would be untrue, and an audit would deliver it again."""
    await bench.add_life("o1", 2, targets=["alpha"])
    (head,) = await bench.claim()
    await bench.store.release([head])  # as if the claim had been lost
    assert await bench.store.cancel(head.id, 3_000) == "done"
    assert (await bench.store.backlog())["alpha"].pending == 1
    await bench.settle(delivered(head))
    assert await bench.statuses("o1") == [DeliveryStatus.DELIVERED, DeliveryStatus.PENDING]
    assert (await bench.store.backlog())["alpha"].pending == 1
    assert await bench.store.check() == []


@pytest.mark.parametrize("late", [dead, lambda one: again(one, FAR)])
async def test_a_failure_of_a_delivery_that_has_ended_changes_nothing_and_is_not_judged(bench: Bench, late):
    await bench.add_life("o1", 1, targets=["alpha"])
    (head,) = await bench.claim()
    await bench.settle(delivered(head))
    assert await bench.settle(late(head), delivered(head), judge=trips) == {}
    assert await bench.statuses("o1") == [DeliveryStatus.DELIVERED]
    assert (await bench.store.backlog())["alpha"].pending == 0


async def test_outcomes_of_a_target_that_left_meanwhile_are_written(bench: Bench):
    await bench.add(event("o1"), event("o2"))
    ok, bad = await bench.claim()
    await bench.configure("beta")
    assert await bench.claim() == []
    await bench.settle(delivered(ok), again(bad, FAR))
    assert await bench.statuses("o1") == [DeliveryStatus.DELIVERED]
    assert (await bench.store.backlog())["alpha"].pending == 1
    await bench.configure("alpha", "beta")
    assert [one.event.lane for one in await bench.claim()] == ["o2"]


async def test_attempts_are_logged_with_everything_that_is_known(bench: Bench):
    await bench.add(event("o1"))
    (one,) = await bench.claim()
    attempt = replace(
        failed_attempt(), kind=FailureKind.TLS, error="tls: no", headers={"retry-after": "5"}, timings=Timings(1, 2, 3)
    )
    await bench.settle(Settlement(one, attempt, DeliveryStatus.PENDING, due_ms=1))
    (one,) = await bench.probe()
    await bench.settle(Settlement(one, ok_attempt(), DeliveryStatus.DELIVERED))
    first, second = await bench.store.attempts(one.id, 10)
    assert (first.number, first.kind, first.error, first.headers) == (1, "tls", "tls: no", {"retry-after": "5"})
    assert (first.timings, first.probe) == (Timings(1, 2, 3), False)
    assert (second.number, second.kind, second.timings, second.probe) == (2, None, Timings(), True)


async def test_a_clock_that_is_set_back_takes_waits_probes_and_throttles_along(bench: Bench):
    await waiting(bench, "o1", due_ms=100_000)
    await bench.add(event("o2"))

    def judge(standing: Standing, _one: Settlement) -> Standing:
        return replace(standing, probe_due_ms=90_000, throttled_until_ms=20_000)

    await bench.settle(delivered((await bench.claim())[0]), judge=judge)
    await bench.store.shift_due("alpha", -50_000, 40_000)
    standing = await bench.standing()
    assert (standing.probe_due_ms, standing.throttled_until_ms) == (40_000, 20_000)
    assert (await bench.store.claim("alpha", up_to(1), 10_000)).next_due_ms == 50_000
    await bench.store.clamp_due("alpha", 15_000)
    standing = await bench.standing()
    assert (standing.probe_due_ms, standing.throttled_until_ms) == (15_000, 15_000)
    assert (await bench.store.claim("alpha", up_to(1), 10_000)).next_due_ms == 15_000
