"""What every store promises beside the queue: gaps, hidden orders, replays, notices, copies and its own soundness."""

import asyncio
from pathlib import Path

import pytest
from support.factories import event, known
from support.stores import Bench, again, dead, delivered

from relay.errors import StoreError
from relay.model import DeadReason, DeliveryStatus
from relay.store.values import DeliveryOfOrder, Gap, IngestPlan

MINUTE = 60_000


async def seen(bench: Bench, houdini_id: str, status: int, now_ms: int) -> None:
    """Believe an order without an event, as a baseline does."""
    order = known(houdini_id, status, sequence=0, silent=True, last_frame=None)
    await bench.store.ingest([houdini_id], lambda _known: IngestPlan(now_ms=now_ms, orders={houdini_id: order}))


async def test_a_gap_is_opened_once_ended_once_and_closed_by_a_sweep(bench: Bench):
    store = bench.store
    assert await store.end_gap(1_000) is None
    await store.begin_gap(1_000, "the socket closed")
    await store.begin_gap(2_000, "and again")
    assert await store.gaps(10) == [Gap(1, 1_000, None, "the socket closed", None, None)]
    assert await store.close_gaps(3_000, "sweep") == 0  # a gap that is still open cannot have been covered
    assert await store.end_gap(5_000) == Gap(1, 1_000, 5_000, "the socket closed", None, None)
    assert await store.end_gap(6_000) is None
    assert await store.close_gaps(7_000, "first sweep") == 1
    assert await store.close_gaps(8_000, "another") == 0
    assert await store.gaps(10) == [Gap(1, 1_000, 5_000, "the socket closed", 7_000, "first sweep")]


async def test_gaps_come_newest_first_and_survive_a_restart(bench: Bench):
    await bench.store.begin_gap(1_000, "one")
    await bench.store.end_gap(2_000)
    await bench.store.begin_gap(3_000, "two")
    await bench.restart()
    assert [gap.cause for gap in await bench.store.gaps(10)] == ["two", "one"]
    assert [gap.cause for gap in await bench.store.gaps(1)] == ["two"]
    assert (await bench.store.end_gap(4_000) or pytest.fail("the open gap was forgotten")).cause == "two"


async def test_a_gap_never_ends_before_it_began(bench: Bench):
    """Failure mode 132: the wall clock was set back meanwhile."""
    await bench.store.begin_gap(9_000, "suspended")
    ended = await bench.store.end_gap(4_000)
    assert ended is not None
    assert (ended.from_ms, ended.to_ms) == (9_000, 9_000)


async def test_only_404s_far_enough_apart_age_an_order_out(bench: Bench):
    await seen(bench, "o1", 2, now_ms=0)
    hidden = [await bench.store.note_hidden("o1", now, 10 * MINUTE, 3) for now in (0, 1, 9 * MINUTE)]
    assert hidden == [False] * 3  # one answer, three times told
    assert not await bench.store.note_hidden("o1", 10 * MINUTE, 10 * MINUTE, 3)
    assert not await bench.store.note_hidden("o1", 20 * MINUTE - 1, 10 * MINUTE, 3)
    assert [one.houdini_id for one in await bench.store.open_orders(10)] == ["o1"]
    assert await bench.store.note_hidden("o1", 20 * MINUTE, 10 * MINUTE, 3)
    assert await bench.store.open_orders(10) == []
    assert await bench.store.aged_out_orders(["o1", "o2"]) == {"o1"}
    assert await bench.store.ended_orders(["o1", "o2"], 10**15) == set()  # it has not ended, it is only out of sight


async def test_being_seen_again_starts_the_count_anew(bench: Bench):
    await seen(bench, "o1", 2, now_ms=0)
    for now in (0, 10 * MINUTE):
        await bench.store.note_hidden("o1", now, 10 * MINUTE, 3)
    await seen(bench, "o1", 2, now_ms=15 * MINUTE)
    assert not await bench.store.note_hidden("o1", 20 * MINUTE, 10 * MINUTE, 3)
    assert not await bench.store.note_hidden("o1", 30 * MINUTE, 10 * MINUTE, 3)
    assert await bench.store.note_hidden("o1", 40 * MINUTE, 10 * MINUTE, 3)
    await seen(bench, "o1", 3, now_ms=50 * MINUTE)
    assert [one.houdini_id for one in await bench.store.open_orders(10)] == ["o1"]
    assert await bench.store.aged_out_orders(["o1"]) == set()


async def test_a_clock_set_back_does_not_stop_the_count(bench: Bench):
    """Failure mode 132."""
    await seen(bench, "o1", 2, now_ms=0)
    answers = [await bench.store.note_hidden("o1", now, 10 * MINUTE, 3) for now in (90 * MINUTE, 0, 10 * MINUTE)]
    assert answers == [False, False, True]


async def test_a_404_for_an_order_nobody_knows_counts_nothing(bench: Bench):
    assert not await bench.store.note_hidden("unheard-of", 0, 0, 1)
    assert await bench.known("unheard-of") == {}


async def test_an_order_has_ended_when_it_was_terminal_then_and_still_is(bench: Bench):
    await seen(bench, "finished", 4, now_ms=1_000)
    await seen(bench, "finished", 4, now_ms=9_000)  # the same again does not make it younger
    await seen(bench, "revived", 5, now_ms=1_000)
    await seen(bench, "revived", 2, now_ms=2_000)
    await seen(bench, "late", 4, now_ms=5_000)
    await seen(bench, "open", 2, now_ms=1_000)
    every = ["finished", "revived", "late", "open", "unheard-of"]
    assert await bench.store.ended_orders(every, 999) == set()
    assert await bench.store.ended_orders(every, 1_000) == {"finished"}
    assert await bench.store.ended_orders(every, 5_000) == {"finished", "late"}
    assert await bench.store.ended_orders(["late"], 5_000) == {"late"}
    await seen(bench, "revived", 4, now_ms=6_000)
    assert await bench.store.ended_orders(every, 5_999) == {"finished", "late"}


async def test_known_orders_are_read_without_writing(bench: Bench):
    await bench.add(event("o1", 4))
    assert await bench.store.known_orders(["o1", "o1", "unheard-of"]) == {"o1": known("o1", 4)}
    assert await bench.store.known_orders([]) == {}


async def test_how_an_order_stands_at_every_target(bench: Bench):
    await bench.add_life("o1", 2)
    await bench.add_life("o2", 1, targets=["beta"])
    await bench.settle(delivered((await bench.claim("alpha"))[0]))
    await bench.settle(dead(next(one for one in await bench.claim("beta") if one.event.lane == "o1")))
    found = await bench.store.order_deliveries(["o1"])
    done, failed, waiting = DeliveryStatus.DELIVERED, DeliveryStatus.DEAD, DeliveryStatus.PENDING
    assert found == [
        DeliveryOfOrder("o1", "evt_o1_1", 1, 1, "alpha", done, None, 0),
        DeliveryOfOrder("o1", "evt_o1_1", 1, 1, "beta", failed, DeadReason.EXHAUSTED, 0),
        DeliveryOfOrder("o1", "evt_o1_2", 2, 2, "alpha", waiting, None, 0),
        DeliveryOfOrder("o1", "evt_o1_2", 2, 2, "beta", waiting, None, 0),
    ]
    assert [one.houdini_id for one in await bench.store.order_deliveries(["o2", "o1", "o3"])] == ["o1"] * 4 + ["o2"]


async def test_a_replay_waits_at_the_tail_of_its_lane_under_the_same_id(bench: Bench):
    await bench.add_life("o1", 2, targets=["alpha"])
    (head,) = await bench.claim()
    await bench.settle(delivered(head))
    bench.woken.clear()
    assert await bench.store.replay("alpha", ["evt_o1_1", "unheard-of"], 3_000) == 1
    assert bench.woken == [{"alpha"}]
    assert (await bench.store.backlog())["alpha"].pending == 2
    order = []
    while claimed := await bench.claim():
        order += [(one.event.webhook_id, one.manual) for one in claimed]
        await bench.settle(*(delivered(one) for one in claimed))
    assert order == [("evt_o1_2", False), ("evt_o1_1", True)]
    assert (await bench.store.backlog())["alpha"].pending == 0


async def test_every_replay_gets_the_next_number(bench: Bench):
    await bench.add_life("o1", 1, targets=["alpha"])
    assert await bench.store.replay("alpha", ["evt_o1_1", "evt_o1_1"], 3_000) == 2
    assert await bench.store.replay("beta", ["evt_o1_1"], 3_000) == 1
    found = await bench.store.order_deliveries(["o1"])
    assert [(one.target, one.replay) for one in found] == [("alpha", 0), ("alpha", 1), ("alpha", 2), ("beta", 1)]
    assert [one.webhook_id for one in found] == ["evt_o1_1"] * 4
    assert len(await bench.claim("alpha")) == 1
    assert await bench.store.check() == []


async def test_a_replay_in_an_empty_lane_is_due_at_once(bench: Bench):
    await bench.add_life("o1", 1, targets=["alpha"])
    await bench.settle(delivered((await bench.claim())[0]))
    await bench.store.replay("alpha", ["evt_o1_1"], 3_000)
    assert await bench.claim(now_ms=2_999) == []
    (again_,) = await bench.claim(now_ms=3_000)
    assert (again_.event.webhook_id, again_.manual, again_.attempts_made) == ("evt_o1_1", True, 0)


async def test_the_same_notice_is_sent_once(bench: Bench):
    notice = event("relay:upstream", facts=None, type="relay.upstream.gap_exceeds_window", webhook_id="evt_notice")
    await bench.add(notice)
    await bench.add(notice)
    assert len(await bench.claim("alpha")) == 1
    assert (await bench.store.backlog())["alpha"].pending == 1
    assert await bench.store.check() == []


async def test_a_copy_made_under_load_is_a_sound_store_with_everything_from_before(bench: Bench, tmp_path: Path):
    """Failure mode 83: a copy of the file alone would be old or damaged."""
    if not bench.copies:
        pytest.skip("it is copied by its own tools")
    await bench.add(*(event(f"o{n}", body=b"x" * 3_000) for n in range(2_000)), targets=["alpha"])
    copying = asyncio.create_task(bench.store.backup(tmp_path / "copy.db"))
    number = 0
    while not copying.done():
        await bench.add_life(f"during-{number}", 2)
        await bench.settle(*(delivered(one) for one in await bench.claim(limit=20)))
        number += 1
    await copying
    await bench.add(event("after"))
    assert await bench.store.check() == []
    copy = bench.over(tmp_path / "copy.db")
    await copy.open()
    assert await copy.store.check() == []
    orders = {f"o{n}" for n in range(2_000)}
    assert orders <= set(await copy.known(*orders))
    assert await copy.known("after") == {}
    assert await copy.claim() != []
    await copy.store.close()


async def test_a_copy_never_replaces_a_file(bench: Bench, tmp_path: Path):
    (tmp_path / "copy.db").write_text("precious")
    if not bench.copies:
        with pytest.raises(StoreError, match="pg_dump"):
            await bench.store.backup(tmp_path / "copy.db")
        return
    with pytest.raises(StoreError, match="exists already"):
        await bench.store.backup(tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"
    with pytest.raises(StoreError, match="No such file"):
        await bench.store.backup(tmp_path / "no-such-folder" / "copy.db")
    await bench.store.check_alive()


async def test_a_sound_store_has_no_faults_whatever_was_done_to_it(bench: Bench):
    await bench.add_life("o1", 4)
    await bench.add(event("o2", 4), event("o3", 42), targets=["beta"])
    await seen(bench, "quiet", 2, now_ms=0)
    await bench.settle(again((await bench.claim())[0], due_ms=50_000))
    await bench.settle(*(dead(one) for one in await bench.claim("beta")))
    await bench.store.begin_gap(1_000, "one")
    assert await bench.store.check() == []
    await bench.restart(["beta"])
    assert await bench.store.check() == []


async def test_long_gaps_are_found_however_many_short_ones_followed(bench: Bench):
    await bench.store.begin_gap(0, "long")
    await bench.store.end_gap(60 * 3_600_000)
    for number in range(30):
        await bench.store.begin_gap(300_000_000 + number * 1_000, "short")
        await bench.store.end_gap(300_000_000 + number * 1_000 + 10)
    assert [gap.cause for gap in await bench.store.gaps(20)] == ["short"] * 20
    assert [gap.cause for gap in await bench.store.gaps(20, 47 * 3_600_000)] == ["long"]
    await bench.store.begin_gap(400_000_000, "open")
    assert [gap.cause for gap in await bench.store.gaps(20, 47 * 3_600_000)] == ["open", "long"]
