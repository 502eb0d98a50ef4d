"""What every store shows: newest first, page by page, and nothing twice."""

from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace
from support.factories import event, order_body
from support.stores import Bench, dead, delivered, up_to

from relay.model import DeadReason, DeliveryStatus, Outcome
from relay.standing import Ordering
from relay.store.reads import DeliveryRow, EventRow, Filter, Page
from relay.store.values import TargetEntry

DAY = 24 * 3600 * 1000


async def all_pages(look: Any, only: Filter, limit: int) -> list[Any]:
    items: list[Any] = []
    cursor = None
    while True:
        page: Page[Any] = await look(only, cursor, limit)
        assert len(page.items) <= limit
        items += page.items
        if page.next is None:
            return items
        assert cursor is None or page.next < cursor
        cursor = page.next


async def deliveries(bench: Bench, limit: int = 100, **only: Any) -> list[DeliveryRow]:
    found: list[DeliveryRow] = await all_pages(bench.store.list_deliveries, Filter(**only), limit)
    assert all(newer.id > older.id for newer, older in pairwise(found))
    return found


async def events(bench: Bench, limit: int = 100, **only: Any) -> list[str]:
    found: list[EventRow] = await all_pages(bench.store.list_events, Filter(**only), limit)
    assert all(newer.id > older.id for newer, older in pairwise(found))
    return [one.event.webhook_id for one in found]


async def replayable(bench: Bench, limit: int = 100, target: str = "alpha", **only: Any) -> list[str]:
    found: list[str] = []
    after: int | None = 0
    while after is not None:
        ids, after = await bench.store.replayable(Filter(target=target, **only), after, limit)
        assert len(ids) <= limit
        found += ids
    return found


async def statuses(bench: Bench, **only: Any) -> list[tuple[str, str]]:
    return [(one.webhook_id, one.status.value) for one in await deliveries(bench, **only)]


async def a_bit_of_everything(bench: Bench) -> None:
    """At alpha: o1 delivered, o2 dead, o3 under way, o4 ready, its second event blocked, o5 cancelled."""
    for number in range(1, 6):
        await bench.add(event(f"o{number}", 4), now_ms=number * 1_000)
    await bench.add(event("o4", 7, sequence=2), now_ms=6_000)
    heads = {one.event.lane: one for one in await bench.claim("alpha")}
    await bench.settle(delivered(heads["o1"]), dead(heads["o2"]))
    await bench.store.release([heads["o4"], heads["o5"]])
    await bench.store.cancel(heads["o5"].id, 9_000)


async def test_a_delivery_says_how_it_stands(bench: Bench):
    await a_bit_of_everything(bench)
    found = {(one.order, one.webhook_id): one for one in await deliveries(bench, target="alpha")}
    one = found["o2", "evt_o2_1"]
    assert one == DeliveryRow(
        id=one.id,
        webhook_id="evt_o2_1",
        type="order.finished",
        order="o2",
        target="alpha",
        status=DeliveryStatus.DEAD,
        reason=DeadReason.EXHAUSTED,
        replay=0,
        head=False,
        attempts_made=1,
        due_ms=None,
        created_ms=2_000,
        finished_ms=2_000,
        last_outcome=Outcome.RETRY,
        last_status_code=500,
        replayed=False,
    )
    assert await bench.store.delivery(one.id) == one
    assert await bench.store.delivery(999) is None
    ready, blocked = found["o4", "evt_o4_1"], found["o4", "evt_o4_2"]
    assert (ready.head, ready.due_ms, ready.status.value) == (True, 4_000, "pending")
    assert (blocked.head, blocked.due_ms, blocked.status.value) == (False, None, "pending")


async def test_what_was_sent_again_since_says_so(bench: Bench):
    await a_bit_of_everything(bench)
    await bench.store.replay("alpha", ["evt_o2_1", "evt_o1_1"], 9_000)
    replays = [one for one in await deliveries(bench, target="alpha") if one.replay]
    ended = {one.order: one for one in await deliveries(bench) if not one.replay and one.target == "alpha"}
    assert [one.replayed for one in replays] == [False, False]
    assert {order for order, one in ended.items() if one.replayed} == {"o1", "o2"}
    assert not any(one.replayed for one in await deliveries(bench, target="beta"))


async def test_a_replay_that_latest_only_ends_at_once_sent_nothing(bench: Bench):
    await bench.configure(TargetEntry("alpha", Ordering.LATEST_ONLY), "beta")
    await bench.add(event("o1", sequence=1), targets=["alpha"])
    await bench.settle(dead((await bench.claim())[0]))
    await bench.add(event("o1", status=1, sequence=2), targets=["alpha"])
    await bench.settle(delivered((await bench.claim())[0]))
    assert await bench.store.replay("alpha", ["evt_o1_1"], 9_000) == 0  # "it is not sent"
    first, again = await bench.store.deliveries_of_event("evt_o1_1")
    assert (first.reason, again.status, again.attempts_made) == ("exhausted", "superseded", 0)
    assert not first.replayed


async def test_a_replay_that_a_person_cancelled_sent_nothing(bench: Bench):
    await bench.add(event("o1"), targets=["alpha"])
    await bench.settle(dead((await bench.claim())[0]))
    assert await bench.store.replay("alpha", ["evt_o1_1"], 9_000) == 1
    _, again = await bench.store.deliveries_of_event("evt_o1_1")
    await bench.store.cancel(again.id, 9_500)
    first, again = await bench.store.deliveries_of_event("evt_o1_1")
    assert (again.status, again.attempts_made) == ("cancelled", 0)
    assert not first.replayed


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("pending", ["evt_o4_2", "evt_o4_1"]),
        ("in_flight", ["evt_o3_1"]),
        ("delivered", ["evt_o1_1"]),
        ("dead", ["evt_o2_1"]),
        ("cancelled", ["evt_o5_1"]),
        ("superseded", []),
    ],
)
async def test_by_status(bench: Bench, status: str, expected: list[str]):
    await a_bit_of_everything(bench)
    word = DeliveryStatus(status)
    assert await statuses(bench, status=word, target="alpha") == [(one, status) for one in expected]
    everywhere = [one.webhook_id for one in await deliveries(bench, status=word) if one.target == "alpha"]
    assert everywhere == expected
    assert await events(bench, status=word, target="alpha") == expected
    others = [one.status for one in await deliveries(bench, target="beta")]
    assert others == [DeliveryStatus.PENDING] * 6


async def test_by_everything_else(bench: Bench):
    await a_bit_of_everything(bench)
    assert await statuses(bench, order="o4", target="beta") == [("evt_o4_2", "pending"), ("evt_o4_1", "pending")]
    assert [one.target for one in await deliveries(bench, order="o1")] == ["beta", "alpha"]
    assert len(await deliveries(bench, type="order.refunded")) == 2
    assert {one.order for one in await deliveries(bench, since_ms=2_000, until_ms=4_000)} == {"o2", "o3"}
    assert await deliveries(bench, target="nobody") == []
    assert await deliveries(bench, target="nobody", status=DeliveryStatus.DEAD) == []
    assert await deliveries(bench, order="o1", target="alpha", status=DeliveryStatus.DEAD) == []
    assert await deliveries(bench, order="o3", status=DeliveryStatus.IN_FLIGHT, target="beta") == []


async def test_events_by_filter(bench: Bench):
    for number in range(1, 5):
        await bench.add(
            event(f"o{number}", number, at_ms=number * 1_000), targets=["alpha", "beta"] if number > 1 else []
        )
    (head, *_) = await bench.claim("alpha")
    await bench.settle(dead(head))
    everything = ["evt_o4_1", "evt_o3_1", "evt_o2_1", "evt_o1_1"]
    assert await events(bench) == everything
    assert await events(bench, limit=1) == everything
    assert await events(bench, target="beta") == everything[:3]
    assert await events(bench, status=DeliveryStatus.DEAD) == ["evt_o2_1"]
    assert await events(bench, status=DeliveryStatus.DEAD, target="beta") == []
    assert await events(bench, order="o3") == ["evt_o3_1"]
    assert await events(bench, type="order.finished") == ["evt_o4_1"]
    assert await events(bench, since_ms=2_000, until_ms=4_000) == ["evt_o3_1", "evt_o2_1"]
    page = await bench.store.list_events(Filter(order="o2"), None, 10)
    assert page.items[0].deliveries == {DeliveryStatus.DEAD: 1, DeliveryStatus.PENDING: 1}
    assert page.items[0].event == replace(event("o2", 2, at_ms=2_000), body=b"")


async def test_one_event_with_its_body_and_deliveries(bench: Bench):
    body = b'{"odd" : 1.0E5}'
    await bench.add(event("o1", 4, body=body))
    (head,) = await bench.claim("beta")
    await bench.settle(dead(head))
    await bench.store.replay("beta", ["evt_o1_1"], 5_000)
    found = await bench.store.event("evt_o1_1")
    assert found is not None
    assert found.event == event("o1", 4, body=body)
    assert found.deliveries == {DeliveryStatus.PENDING: 2}, "the last delivery to each target counts"
    there = await bench.store.deliveries_of_event("evt_o1_1")
    assert [(one.target, one.replay, one.status.value) for one in there] == [
        ("alpha", 0, "pending"),
        ("beta", 0, "dead"),
        ("beta", 1, "pending"),
    ]
    assert await bench.store.event("evt_nowhere") is None
    assert await bench.store.deliveries_of_event("evt_nowhere") == []


async def test_paging_sees_each_old_row_once_while_new_ones_come(bench: Bench):
    for number in range(20):
        await bench.add(event(f"o{number}"))
    old = {one.id for one in await deliveries(bench)}
    seen: list[int] = []
    cursor, turn = None, 0
    while True:
        page = await bench.store.list_deliveries(Filter(), cursor, 3)
        seen += [one.id for one in page.items]
        if page.next is None:
            break
        cursor, turn = page.next, turn + 1
        await bench.add(event(f"new{turn}"))
    assert sorted(seen) == sorted(old)


async def test_a_short_page_is_not_the_end(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    for reads in ("sqlite_reads", "postgres_reads"):
        with suppress(ImportError):  # the driver of one is optional
            monkeypatch.setattr(f"relay.store.{reads}.MOST_ROWS", 6)
    await bench.add(event("first", 4))
    for number in range(20):
        await bench.add(event(f"o{number}", 1))
    page = await bench.store.list_deliveries(Filter(type="order.finished"), None, 3)
    assert page.items == ()
    assert page.next is not None
    assert [one.order for one in await deliveries(bench, 3, type="order.finished")] == ["first", "first"]
    assert await events(bench, 3, type="order.finished") == ["evt_first_1"]
    assert await events(bench, 3, target="alpha", type="order.finished") == ["evt_first_1"]


async def test_a_whole_last_page_says_that_there_is_no_more(bench: Bench):
    await bench.add_life("o1", 3, targets=["alpha"])
    assert (await bench.store.list_deliveries(Filter(), None, 3)).next is None
    assert (await bench.store.list_deliveries(Filter(), None, 2)).next is not None
    assert (await bench.store.list_deliveries(Filter(status=DeliveryStatus.IN_FLIGHT), None, 2)).next is None


@pytest.mark.parametrize("status", [DeliveryStatus.PENDING, DeliveryStatus.DEAD])
async def test_several_targets_are_merged_newest_first(bench: Bench, status: DeliveryStatus):
    for number in range(9):
        await bench.add(event(f"o{number}"), targets=[("alpha", "beta")[number % 2]])
    if status is DeliveryStatus.DEAD:
        for name in ("beta", "alpha"):
            await bench.settle(*map(dead, await bench.claim(name)))
    found = await deliveries(bench, 2, status=status)
    assert [one.order for one in found] == [f"o{number}" for number in reversed(range(9))]


async def test_moments_are_found_though_clocks_were_set(bench: Bench):
    moments = [10 * DAY, 11 * DAY, 10 * DAY + DAY // 2, 12 * DAY, 13 * DAY, 12 * DAY + 1, 20 * DAY, 30 * DAY]
    for number, moment in enumerate(moments):
        await bench.add(event(f"o{number}", at_ms=moment), now_ms=moment)
    for since in (None, *moments):
        for until in (None, *moments):
            wanted = [
                f"evt_o{number}_1"
                for number, moment in reversed(list(enumerate(moments)))
                if (since is None or moment >= since) and (until is None or moment < until)
            ]
            period = {"since_ms": since, "until_ms": until}
            assert await events(bench, 3, **period) == wanted
            assert [one.webhook_id for one in await deliveries(bench, target="beta", **period)] == wanted


async def test_an_order(bench: Bench):
    await bench.add(event("o1", 4), now_ms=3_000)
    await bench.add(event("o1", 7, sequence=2), now_ms=8_000)
    found = await bench.store.order("o1")
    assert found is not None
    assert (found.learned_ms, found.believed_ms, found.aged_out_ms) == (3_000, 8_000, None)
    assert found.known == (await bench.known("o1"))["o1"]
    assert found.known.last_frame == order_body("o1", 7)
    assert await bench.store.order("o2") is None


async def test_what_can_be_replayed(bench: Bench):
    await a_bit_of_everything(bench)
    assert await replayable(bench) == ["evt_o1_1", "evt_o2_1", "evt_o5_1"]
    assert await replayable(bench, 1) == ["evt_o1_1", "evt_o2_1", "evt_o5_1"]
    assert await replayable(bench, status=DeliveryStatus.DEAD) == ["evt_o2_1"]
    assert await replayable(bench, status=DeliveryStatus.CANCELLED) == ["evt_o5_1"]
    assert await replayable(bench, order="o1") == ["evt_o1_1"]
    assert await replayable(bench, order="o4") == []
    assert await replayable(bench, target="beta") == []
    assert await replayable(bench, target="nobody") == []
    await bench.store.replay("alpha", ["evt_o1_1", "evt_o2_1", "evt_o5_1"], 9_000)
    assert await replayable(bench) == [], "a replay is on its way"
    for one in (await bench.store.claim("alpha", up_to(9), 10_000)).deliveries:
        await bench.settle(delivered(one) if one.event.lane == "o2" else dead(one))
    # The last one counts.
    assert await replayable(bench, status=DeliveryStatus.DEAD) == ["evt_o1_1", "evt_o4_1", "evt_o5_1"]


async def test_what_can_be_replayed_by_time_oldest_first(bench: Bench):
    for number in (1, 2, 3, 4):
        await bench.add(event(f"o{number}", at_ms=number * 1_000), targets=["alpha"])
    heads = await bench.claim()
    await bench.settle(*map(dead, reversed(heads)))
    await bench.store.replay("alpha", ["evt_o1_1"], 9_000)
    await bench.settle(*map(dead, await bench.claim()))
    assert await replayable(bench) == [f"evt_o{number}_1" for number in (1, 2, 3, 4)]
    assert await replayable(bench, since_ms=2_000, until_ms=4_000) == ["evt_o2_1", "evt_o3_1"]


async def test_dead_letters_are_what_died_last_and_was_not_sent_again(bench: Bench):
    await bench.add(event("o1"), event("o2"), event("o3"))
    notice = event("relay:alpha", webhook_id="evt_notice", type="relay.test", facts=None)
    await bench.add(notice)
    await bench.settle(*[dead(one) for one in await bench.claim("alpha")], now_ms=7_000)
    letters = await bench.store.dead_letters(100)
    assert (letters["alpha"].count, letters["alpha"].last_ms) == (3, 7_000)
    assert (letters["beta"].count, letters["beta"].last_ms) == (0, None)
    await bench.store.replay("alpha", ["evt_o1_1", "evt_o2_1"], 8_000)
    assert (await bench.store.dead_letters(100))["alpha"].count == 1
    first, second = await bench.claim("alpha")
    await bench.settle(delivered(first), dead(second), now_ms=9_000)
    letters = await bench.store.dead_letters(100)
    assert (letters["alpha"].count, letters["alpha"].last_ms) == (2, 9_000)
    assert (await bench.store.dead_letters(1))["alpha"].count == 1
