"""What every store promises about retention."""

from support.factories import event, known
from support.stores import Bench, again, delivered, question

from relay.store.values import IngestPlan, PlannedEvent, Pruned

DAY = 24 * 3600 * 1000
NOW = 100 * DAY


async def prune(bench: Bench, before_ms: int, limit: int = 100) -> Pruned:
    """To the end, in as many steps as it takes; every step leaves a sound store."""
    place: int | None = 0
    total = Pruned(0, 0, 0, None)
    for _ in range(1_000):
        step = await bench.store.prune(before_ms, place or 0, limit)
        total = Pruned(
            total.deliveries + step.deliveries, total.events + step.events, total.orders + step.orders, step.next_place
        )
        place = step.next_place
        if place is None:
            break
    assert place is None
    assert await bench.store.check() == []
    return total


async def deliver(bench: Bench, *targets: str, now_ms: int) -> None:
    for target in targets:
        while claimed := await bench.claim(target, now_ms=NOW):
            await bench.settle(*(delivered(one) for one in claimed), now_ms=now_ms)


async def believe(bench: Bench, houdini_id: str, status: int, now_ms: int) -> None:
    order = known(houdini_id, status, sequence=0, silent=True, last_frame=None)
    await bench.store.ingest([houdini_id], lambda _known: IngestPlan(now_ms=now_ms, orders={houdini_id: order}))


async def test_what_ended_long_ago_goes_with_all_that_hung_on_it(bench: Bench):
    bench.now_ms = NOW
    await bench.add_life("o1", 4)  # ends in status 4, FINISHED
    await deliver(bench, "alpha", "beta", now_ms=10 * DAY)
    assert await prune(bench, 10 * DAY) == Pruned(0, 0, 0, None)
    assert await prune(bench, 10 * DAY + 1) == Pruned(8, 4, 1, None)
    assert await bench.known("o1") == {}
    assert await bench.store.attempts(1, 10) == []
    assert await bench.store.event("evt_o1_4") is None
    assert await prune(bench, 10 * DAY + 1) == Pruned(0, 0, 0, None)


async def test_an_order_that_is_still_open_keeps_its_last_event(bench: Bench):
    bench.now_ms = NOW
    await bench.add_life("o1", 3)
    await deliver(bench, "alpha", "beta", now_ms=10 * DAY)
    assert await prune(bench, 20 * DAY) == Pruned(6, 2, 0, None)
    assert (await bench.known("o1"))["o1"].sequence == 3
    assert (await bench.known("o1"))["o1"].last_frame == event("o1", 3).body
    await bench.add(event("o1", 4, sequence=4))
    assert [one.event.webhook_id for one in await bench.claim()] == ["evt_o1_4"]


async def test_nothing_goes_that_has_not_ended_and_no_event_before_its_last_delivery(bench: Bench):
    bench.now_ms = NOW
    await bench.add_life("o1", 4)
    await deliver(bench, "beta", now_ms=10 * DAY)
    await bench.settle(again((await bench.claim())[0], 20 * DAY))
    assert await prune(bench, 50 * DAY) == Pruned(4, 0, 0, None)
    assert (await bench.store.backlog())["alpha"].pending == 4
    await deliver(bench, "alpha", now_ms=60 * DAY)
    assert await prune(bench, 50 * DAY) == Pruned(0, 0, 0, None)
    assert await prune(bench, 60 * DAY + 1) == Pruned(4, 4, 1, None)


async def test_an_order_is_remembered_for_seven_days_however_short_retention_is(bench: Bench):
    await bench.add(event("o1", 4), now_ms=NOW - 7 * DAY)
    await deliver(bench, "alpha", "beta", now_ms=NOW - 7 * DAY)
    bench.now_ms = NOW
    assert await prune(bench, NOW) == Pruned(2, 0, 0, None)
    assert "o1" in await bench.known("o1")
    bench.now_ms = NOW + 1
    assert await prune(bench, NOW) == Pruned(0, 1, 1, None)


async def test_orders_go_only_when_they_are_over_and_nobody_asks_about_them(bench: Bench):
    bench.now_ms = NOW
    for name, status in (("open", 2), ("over", 4), ("asked", 4), ("hidden", 2), ("young", 4)):
        await believe(bench, name, status, NOW - DAY if name == "young" else DAY)
    await bench.store.note_hidden("hidden", DAY, 0, 1)
    await bench.store.ingest([], lambda _known: IngestPlan(now_ms=0, questions=[question("asked")]))
    assert (await prune(bench, 50 * DAY)).orders == 2
    assert set(await bench.known("open", "over", "asked", "hidden", "young")) == {"open", "asked", "young"}


async def test_an_order_stays_as_long_as_anything_of_it_has_to(bench: Bench):
    bench.now_ms = NOW
    await bench.add(event("waits", 4), targets=["alpha"])
    await bench.add(event("waited", 1), targets=["alpha"])
    await bench.add(event("waited", 4, sequence=2), targets=())
    assert await prune(bench, 50 * DAY) == Pruned(0, 0, 0, None)
    assert set(await bench.known("waits", "waited")) == {"waits", "waited"}
    await deliver(bench, "alpha", now_ms=DAY)
    assert await prune(bench, 50 * DAY) == Pruned(2, 3, 2, None)


async def test_events_nobody_wanted_and_closed_gaps_go_too(bench: Bench):
    bench.now_ms = NOW
    await bench.add(event("o1", 1, 1), event("o1", 2, 2), targets=())
    notice = event("relay:upstream", facts=None, webhook_id="evt_notice", at_ms=30 * DAY)
    await bench.store.ingest([], lambda _known: IngestPlan(now_ms=0, events=[PlannedEvent(notice, ())]))
    for start, swept in ((DAY, True), (40 * DAY, True), (50 * DAY, False)):
        await bench.store.begin_gap(start, f"at {start}")
        await bench.store.end_gap(start + 1)
        if swept:
            await bench.store.close_gaps(start + 2, "sweep")
    assert (await prune(bench, 20 * DAY)).events == 1
    assert [gap.from_ms for gap in await bench.store.gaps(10)] == [50 * DAY, 40 * DAY]
    assert (await prune(bench, NOW)).events == 1
    assert [gap.from_ms for gap in await bench.store.gaps(10)] == [50 * DAY]  # no sweep has covered it yet


async def test_small_steps_do_the_same_and_never_repeat_themselves(bench: Bench):
    bench.now_ms = NOW
    for number in range(7):
        await bench.add_life(f"o{number}", 4)
    await deliver(bench, "alpha", "beta", now_ms=10 * DAY)
    await bench.add_life("new", 2)
    places, place = [], 0
    while True:
        step = await bench.store.prune(20 * DAY, place, 3)
        assert max(step.deliveries, step.events, step.orders) <= 3
        assert await bench.store.check() == []
        if step.next_place is None:
            break
        assert step.next_place not in places
        places.append(place := step.next_place)
    assert await prune(bench, 20 * DAY) == Pruned(0, 0, 0, None)
    assert await bench.known(*(f"o{number}" for number in range(7))) == {}
    assert (await bench.store.backlog())["alpha"].pending == 2


async def test_the_look_ends_where_all_is_young_but_not_at_dates_from_the_future(bench: Bench):
    """A clock that was years ahead for a while must not keep what came after it for years."""
    bench.now_ms = NOW
    for day in (1, 5_000, 2, 60):
        await bench.add(*(event(f"{day}-{n}", 4, at_ms=day * DAY) for n in range(8)), now_ms=day * DAY)
        await deliver(bench, "alpha", "beta", now_ms=day * DAY)
    await bench.add(*(event(f"70-{n}", 4, at_ms=70 * DAY) for n in range(200)), now_ms=70 * DAY)
    places, place = 0, 0
    while True:
        step = await bench.store.prune(20 * DAY, place, 4)
        places += 1
        if step.next_place is None:
            break
        place = step.next_place
    assert await bench.known("1-0", "2-0") == {}
    assert set(await bench.known("5000-0", "60-0")) == {"5000-0", "60-0"}
    assert places < 40


async def test_ids_are_not_given_twice_though_the_newest_rows_went(bench: Bench):
    """Failure mode 91."""
    bench.now_ms = NOW
    await bench.add(event("o1", 4))
    (old,) = await bench.claim()
    await bench.settle(delivered(old), now_ms=DAY)
    await deliver(bench, "beta", now_ms=DAY)
    assert (await prune(bench, NOW)).deliveries == 2
    await bench.add(event("o1", 4))
    assert (await bench.claim())[0].id > old.id + 1
