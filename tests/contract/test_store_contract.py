"""What every store promises, whatever is underneath."""

import asyncio

import pytest
from msgspec.structs import replace
from support.factories import event, known
from support.stores import Bench, again, dead, delivered, question, up_to

from relay.errors import StoreError
from relay.store.values import IngestPlan


async def test_an_event_becomes_one_delivery_per_target_and_wakes_them(bench: Bench):
    await bench.add(event("o1", 4, body=b'{"odd" : 1.0E5}'))
    assert bench.woken == [{"alpha", "beta"}]
    (one,) = await bench.claim("alpha")
    assert one.event == event("o1", 4, body=b'{"odd" : 1.0E5}')
    assert (one.target, one.attempts_made, one.steps_used, one.created_ms, one.manual) == ("alpha", 0, 0, 1_000, False)
    (other,) = await bench.claim("beta")
    assert other.id != one.id


async def test_an_event_nobody_wants_is_still_in_the_log(bench: Bench):
    await bench.add(event("o1"), targets=())
    assert await bench.claim() == []
    assert (await bench.known("o1"))["o1"].sequence == 1
    assert bench.woken == []


async def test_the_projection_comes_back_as_it_was_written(bench: Bench):
    await bench.add(event("o1", 4, body=b'{"houdiniId":"o1","status":4}'))
    order = (await bench.known("o1", "unheard-of"))["o1"]
    assert order == known("o1", 4, last_frame=b'{"houdiniId":"o1","status":4}')
    assert order.frame_is_event
    assert "unheard-of" not in await bench.known("unheard-of")


async def test_a_frame_that_made_no_event_is_kept_until_the_next_one_does(bench: Bench):
    await bench.add(event("o1", 4))
    apart = replace((await bench.known("o1"))["o1"], last_frame=b'{"only":"a frame"}', frame_is_event=False)
    await bench.store.ingest([], lambda _known: IngestPlan(now_ms=0, orders={"o1": apart}))
    assert (await bench.known("o1"))["o1"] == apart
    await bench.add(event("o1", 7, sequence=2, body=b"{}"))
    assert (await bench.known("o1"))["o1"].last_frame == b"{}"
    assert (await bench.known("o1"))["o1"].frame_is_event


async def test_only_the_head_of_a_lane_can_be_claimed(bench: Bench):
    await bench.add_life("o1", 3)
    await bench.add_life("o2", 1)
    claimed = await bench.claim()
    assert [(one.event.lane, one.event.facts and one.event.facts.sequence) for one in claimed] == [
        ("o1", 1),
        ("o2", 1),
    ]
    await bench.settle(delivered(claimed[0]))
    (following,) = await bench.claim()
    assert following.event.facts is not None
    assert following.event.facts.sequence == 2


@pytest.mark.parametrize("end", [delivered, dead])
async def test_the_end_of_a_head_promotes_the_next_and_wakes_its_target(bench: Bench, end):
    await bench.add_life("o1", 2, targets=["alpha"])
    bench.woken.clear()
    await bench.settle(end((await bench.claim())[0]))
    assert bench.woken == [{"alpha"}]
    assert [one.event.facts.sequence for one in await bench.claim() if one.event.facts] == [2]


async def test_a_postponed_head_blocks_its_lane_but_no_other(bench: Bench):
    await bench.add_life("o1", 2)
    await bench.settle(again((await bench.claim())[0], due_ms=50_000))
    await bench.add_life("o2", 1)
    assert [one.event.lane for one in await bench.claim(now_ms=49_999)] == ["o2"]
    (head,) = await bench.claim(now_ms=50_000)
    assert (head.event.lane, head.attempts_made) == ("o1", 1)


async def test_a_claim_excludes_and_says_when_the_next_is_due(bench: Bench):
    await bench.add_life("o1", 1)
    await bench.add_life("o2", 1)
    first = await bench.store.claim("alpha", up_to(1), 10_000)
    assert len(first.deliveries) == 1
    second = await bench.store.claim("alpha", up_to(5), 10_000)
    assert len(second.deliveries) == 1
    assert second.deliveries[0].id != first.deliveries[0].id
    assert await bench.claim() == []
    await bench.settle(again(first.deliveries[0], due_ms=33_000))
    assert (await bench.store.claim("alpha", up_to(5), 10_000)).next_due_ms == 33_000


async def test_a_released_claim_can_be_claimed_again_and_burns_no_attempt(bench: Bench):
    await bench.add_life("o1", 1)
    claimed = await bench.claim()
    await bench.store.release(claimed)
    assert [one.attempts_made for one in await bench.claim()] == [0]


async def test_a_restart_gives_claims_back_and_keeps_everything_else(bench: Bench):
    await bench.add_life("o1", 3)
    await bench.settle(delivered((await bench.claim())[0]))
    await bench.claim()
    await bench.restart()
    assert [one.event.facts.sequence for one in await bench.claim() if one.event.facts] == [2]
    assert (await bench.store.backlog())["alpha"].pending == 2


async def test_settling_twice_changes_nothing(bench: Bench):
    await bench.add_life("o1", 2)
    (head,) = await bench.claim()
    await bench.settle(delivered(head))
    await bench.settle(delivered(head))
    assert (await bench.store.backlog())["alpha"].pending == 1
    assert [one.event.facts.sequence for one in await bench.claim() if one.event.facts] == [2]


async def test_a_parked_target_keeps_its_deliveries_and_claims_none(bench: Bench):
    await bench.add_life("o1", 1)
    await bench.add_life("o2", 1)
    head = (await bench.claim())[0]
    await bench.settle(again(head, due_ms=2_000, gone=True))
    await bench.restart()
    assert await bench.claim("alpha") == []
    backlog = await bench.store.backlog()
    assert (backlog["alpha"].pending, backlog["alpha"].standing.state) == (2, "parked")
    assert (backlog["beta"].pending, backlog["beta"].standing.state) == (2, "active")


async def test_a_target_that_leaves_and_returns_finds_its_deliveries(bench: Bench):
    await bench.add_life("o1", 1)
    await bench.restart(["beta"])
    backlog = await bench.store.backlog()
    assert (backlog["alpha"].pending, backlog["alpha"].standing.state) == (1, "orphaned")
    assert await bench.claim("alpha") == []
    await bench.restart(["alpha", "beta"])
    assert len(await bench.claim("alpha")) == 1


async def test_the_backlog_counts_without_claimed_ones_waiting(bench: Bench):
    empty = (await bench.store.backlog())["alpha"]
    assert (empty.pending, empty.oldest_ms, empty.waiting_since_ms) == (0, None, None)
    await bench.add(event("o1"), now_ms=5_000)
    await bench.add(event("o2"), now_ms=7_000)
    assert (await bench.store.backlog())["alpha"].waiting_since_ms == 5_000
    (first,) = await bench.claim(limit=1)
    backlog = (await bench.store.backlog())["alpha"]
    assert (backlog.pending, backlog.oldest_ms, backlog.waiting_since_ms) == (2, 5_000, 7_000)
    await bench.settle(delivered(first))
    assert (await bench.store.backlog())["alpha"].oldest_ms == 7_000


async def test_a_plan_that_fails_writes_nothing_and_hurts_no_neighbour(bench: Bench):
    def explode(_known: object) -> IngestPlan:
        raise KeyError("boom")

    results = await asyncio.gather(
        bench.add(event("o1")),
        bench.store.ingest(["o2"], explode),
        bench.add(event("o3")),
        return_exceptions=True,
    )
    assert isinstance(results[1], KeyError)
    assert set(await bench.known("o1", "o2", "o3")) == {"o1", "o3"}
    assert len(await bench.claim()) == 2


async def test_half_a_plan_is_never_written(bench: Bench):
    """Failure mode 74: event and deliveries are one transaction."""
    with pytest.raises(KeyError):
        await bench.add(event("o1"), targets=["alpha", "no-such-target"])
    assert await bench.known("o1") == {}
    assert await bench.claim() == []


async def test_the_same_change_cannot_be_logged_twice(bench: Bench):
    await bench.add(event("o1"))
    with pytest.raises(Exception, match="webhook_id"):
        await bench.add(event("o1"))
    assert len(await bench.claim()) == 1


async def test_questions_are_one_an_order_and_survive_a_restart(bench: Bench):
    def plan(_known: object) -> IngestPlan:
        return IngestPlan(
            now_ms=0, questions=[question("o1", 1), question("o2", ask_at_ms=1), question("o1", 3, 99_000)]
        )

    await bench.store.ingest([], plan)
    await bench.restart()
    assert await bench.store.count_questions() == 2
    assert [one.houdini_id for one in await bench.store.due_questions(60_999, 10)] == ["o2"]
    (_, first) = await bench.store.due_questions(61_000, 10)
    assert (first.houdini_id, first.status) == ("o1", 3)
    assert await bench.store.postpone_question("o2", 99_000) == 1
    assert await bench.store.postpone_question("o2", 99_000) == 2
    assert await bench.store.postpone_question("unheard-of", 99_000) == 0
    assert [one.houdini_id for one in await bench.store.due_questions(61_000, 10)] == ["o1"]
    await bench.store.end_question("o1")
    await bench.store.ingest([], lambda _known: IngestPlan(now_ms=0, answered=["o2"]))
    assert await bench.store.count_questions() == 0


async def test_open_orders_are_those_not_terminal(bench: Bench):
    await bench.add(event("o1", 2), event("o2", 4), event("o3", 5), event("o4", 42))
    assert [one.houdini_id for one in await bench.store.open_orders(10)] == ["o1", "o4"]
    assert [one.houdini_id for one in await bench.store.open_orders(1)] == ["o1"]


async def test_meta_values_are_remembered(bench: Bench):
    assert await bench.store.meta_get("k") is None
    await bench.store.meta_set("k", "v")
    await bench.store.meta_set("k", "w")
    await bench.restart()
    assert await bench.store.meta_get("k") == "w"


async def test_it_says_how_big_it_is_and_refuses_work_when_closed(bench: Bench):
    assert await bench.store.size_bytes() > 0
    await bench.store.check_alive()
    await bench.store.close()
    with pytest.raises(StoreError, match="not open"):
        await bench.store.check_alive()
