"""Claims on a PostgreSQL database are leases: who has one, and what comes of it too late."""

from datetime import timedelta

import pytest
from support.factories import event
from support.instances import add, crash, instance, instances, life, wall_ms
from support.postgres import lapse, shared_server
from support.stores import again, as_it_was, dead, delivered, probing, trips, up_to
from support.until import until

from relay.model import DeliveryStatus
from relay.store import postgres_verbs
from relay.store.values import Change, Expiry, TargetEntry

SOON = timedelta(milliseconds=300)


async def ask(url: str, sql: str) -> list[object]:
    return await shared_server().ask(sql, database=url.rpartition("/")[2].partition("?")[0])


async def test_what_one_has_claimed_no_other_gets_or_ends_until_its_lease_is_over():
    async with shared_server().database() as url, instances(url, 2) as (one, other):
        await one.lead(instance("one"))
        await add(one, *life("o1", 2), event("o2"), targets=["alpha"])
        (head, second) = (await one.claim("alpha", up_to(5), wall_ms())).deliveries
        now_ms = wall_ms()
        claim = await other.claim("alpha", up_to(5), now_ms)
        assert claim.deliveries == ()
        assert claim.next_due_ms is not None
        assert now_ms + 20_000 < claim.next_due_ms <= now_ms + 31_000, "when the lease ends"
        assert await other.cancel(head.id, now_ms) is Change.IN_FLIGHT
        assert await other.retry_now(head.id, now_ms) is Change.IN_FLIGHT
        assert await other.trim("alpha", 0, 10, now_ms) == 1, "the one that waits behind"
        assert await other.expire("alpha", now_ms + 1, 0, 10, now_ms) == Expiry(0, 0)
        shown = await other.delivery(head.id)
        assert shown is not None
        assert shown.status is DeliveryStatus.IN_FLIGHT
        await crash(one)
        await lapse(url)
        again_ = (await other.claim("alpha", up_to(5), wall_ms())).deliveries
        assert [(taken.id, taken.attempts_made, taken.claim) for taken in again_] == [
            (head.id, 0, 2),
            (second.id, 0, 2),
        ]


@pytest.mark.parametrize("late", [dead, lambda one: again(one, 1)])
async def test_a_failure_that_comes_after_the_lease_was_lost_is_ignored(late):
    async with shared_server().database() as url, instances(url, 2) as (one, other):
        await one.lead(instance("one"))
        await add(one, event("o1"), targets=["alpha"])
        (stale,) = (await one.claim("alpha", up_to(1), wall_ms())).deliveries
        await lapse(url)
        (mine,) = (await other.claim("alpha", up_to(1), wall_ms())).deliveries
        assert await one.settle([late(stale)], trips, wall_ms()) == {}
        assert (await other.backlog())["alpha"].pending == 1
        await one.release([stale])  # nor does this give away what is another's
        assert (await one.claim("alpha", up_to(1), wall_ms())).deliveries == ()
        await other.settle([delivered(mine)], as_it_was, wall_ms())
        assert [one.status for one in await one.order_deliveries(["o1"])] == [DeliveryStatus.DELIVERED]


async def test_a_success_is_believed_whoever_has_the_lease():
    async with shared_server().database() as url, instances(url, 2) as (one, other):
        await one.lead(instance("one"))
        await add(one, *life("o1", 2), targets=["alpha"])
        (stale,) = (await one.claim("alpha", up_to(1), wall_ms())).deliveries
        await lapse(url)
        (mine,) = (await other.claim("alpha", up_to(1), wall_ms())).deliveries
        assert set(await one.settle([delivered(stale)], as_it_was, wall_ms())) == {"alpha"}
        assert await other.settle([again(mine, 1)], trips, wall_ms()) == {}
        assert await other.settle([delivered(mine)], trips, wall_ms()) == {}
        assert [one.status.value for one in await one.order_deliveries(["o1"])] == ["delivered", "pending"]
        assert len(await one.attempts(mine.id, 10)) == 1
        assert await one.check() == []


async def test_a_settlement_that_is_asked_for_twice_is_written_once():
    """A commit whose answer was lost is asked for again."""
    async with shared_server().database() as url, instances(url, 1) as (one,):
        await one.lead(instance("one"))
        await add(one, event("o1"), event("o2"), targets=["alpha"])
        ok, bad = (await one.claim("alpha", up_to(2), wall_ms())).deliveries
        outcomes = [delivered(ok), again(bad, 1)]
        assert set(await one.settle(outcomes, trips, wall_ms())) == {"alpha"}
        assert await one.settle(outcomes, trips, wall_ms()) == {}
        assert [len(await one.attempts(each.id, 10)) for each in (ok, bad)] == [1, 1]


async def test_one_probe_at_a_time_among_all():
    async with shared_server().database() as url, instances(url, 2) as (one, other):
        await one.lead(instance("one"))
        await add(one, event("o1"), event("o2"), targets=["alpha"])
        (probe,) = (await one.claim("alpha", probing(), wall_ms())).deliveries
        now_ms = wall_ms()
        refused = await other.claim("alpha", probing(), now_ms)
        assert refused.deliveries == ()
        assert refused.next_due_ms is not None
        assert now_ms < refused.next_due_ms <= now_ms + 31_000
        await one.settle([again(probe, 1)], trips, wall_ms())
        assert len((await other.claim("alpha", probing(), wall_ms())).deliveries) == 1
        await crash(other)
        assert (await one.claim("alpha", probing(), wall_ms())).deliveries == ()
        await lapse(url)
        assert len((await one.claim("alpha", probing(), wall_ms())).deliveries) == 1


async def test_a_lease_lasts_a_little_longer_than_an_attempt_may_take():
    entry = TargetEntry("alpha", timeout_ms=45_000)
    async with shared_server().database() as url, instances(url, 1, [entry]) as (one,):
        await one.lead(instance("one"))
        await add(one, event("o1"), targets=["alpha"])
        await one.claim("alpha", up_to(1), wall_ms())
        ((seconds,),) = await ask(url, "SELECT extract(epoch FROM leased_until - now())::float8 FROM deliveries")
        assert 50 < seconds <= 60


async def test_a_lease_that_ends_is_taken_over_by_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(postgres_verbs, "LEASE_GRACE", SOON)
    entry = TargetEntry("alpha", timeout_ms=0)
    async with shared_server().database() as url, instances(url, 2, [entry]) as (one, other):
        await one.lead(instance("one"))
        await add(one, event("o1"), targets=["alpha"])
        await one.claim("alpha", up_to(1), wall_ms())

        async def taken_over() -> bool:
            return bool((await other.claim("alpha", up_to(1), wall_ms())).deliveries)

        await until(taken_over, 10, pause=0.02)
