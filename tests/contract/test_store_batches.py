"""What every store promises about much at once: as if it had been written one by one."""

import pytest
from support.factories import event
from support.stores import Bench, again, as_it_was, dead, delivered

from relay.model import DeliveryStatus, Event
from relay.standing import Ordering
from relay.store.reads import Filter
from relay.store.values import Settlement, TargetEntry

TARGETS = [TargetEntry(ordering.value, ordering) for ordering in Ordering]
NAMES = [one.name for one in TARGETS]
ORDERS = 90


def lives() -> list[Event]:
    """Lives of one to five events, in turns: everybody's first, the second of those that have one, and so on."""
    return [
        event(f"o{number}", status=sequence - 1, sequence=sequence)
        for sequence in range(1, 6)
        for number in range(ORDERS)
        if sequence <= number % 5 + 1
    ]


async def drained(bench: Bench, name: str) -> list[str]:
    """Everything a target gets, in the order of the claims, each batch settled at once."""
    got: list[str] = []
    while claimed := await bench.claim(name, limit=ORDERS):
        got += [one.event.webhook_id for one in claimed]
        await bench.settle(*map(delivered, claimed), now_ms=10_000)
    return got


async def test_a_large_batch_is_as_many_small_ones(bench: Bench):
    await bench.configure(*TARGETS)
    await bench.add(*lives(), targets=NAMES)
    got = {name: await drained(bench, name) for name in NAMES}
    everything = {one.webhook_id for one in lives()}
    assert set(got["per_order"]) == set(got["none"]) == everything
    for number in range(ORDERS):
        mine = [one for one in got["per_order"] if one.startswith(f"evt_o{number}_")]
        assert mine == [f"evt_o{number}_{sequence}" for sequence in range(1, number % 5 + 2)]
        ends = {1, number % 5 + 1}  # its head stays, and of those that wait behind it only the newest
        assert [one for one in got["latest_only"] if one.startswith(f"evt_o{number}_")] == [
            f"evt_o{number}_{sequence}" for sequence in sorted(ends)
        ]
    assert sum(counts.get("latest_only", 0) for counts in bench.superseded) == len(everything) - len(got["latest_only"])
    assert await bench.store.check() == []
    backlog = await bench.store.backlog()
    assert [backlog[name].pending for name in NAMES] == [0] * len(NAMES)


async def test_events_come_to_the_list_in_the_order_of_the_plan(bench: Bench):
    planned = [event("o1", sequence=1), event("o1", sequence=2), event("o2"), event("o1", sequence=3), event("o3")]
    await bench.add(*planned)
    newest_first = await bench.store.list_events(Filter(), None, 10)
    assert [one.event.webhook_id for one in reversed(newest_first.items)] == [one.webhook_id for one in planned]
    assert [one.event.webhook_id for one in await bench.claim()] == ["evt_o1_1", "evt_o2_1", "evt_o3_1"]
    known = await bench.known("o1")
    assert known["o1"].last_frame == planned[3].body


async def test_outcomes_of_every_kind_in_one_group(bench: Bench):
    await bench.add(*lives(), targets=["alpha"])
    heads = await bench.claim(limit=ORDERS)
    assert len(heads) == ORDERS
    kinds = (delivered, dead, lambda one: again(one, 99_000))
    outcomes: list[Settlement] = [kinds[place % 3](one) for place, one in enumerate(heads)]
    await bench.settle(*outcomes, now_ms=10_000, judge=as_it_was)
    for place, one in enumerate(heads):
        first, *others = await bench.statuses(one.event.lane)
        assert first == (DeliveryStatus.DELIVERED, "exhausted", DeliveryStatus.PENDING)[place % 3]
        assert set(others) <= {DeliveryStatus.PENDING}
    promoted = {one.event.webhook_id for one in await bench.claim(limit=ORDERS)}
    expected = {
        f"evt_{one.event.lane}_2"
        for place, one in enumerate(heads)
        if place % 3 != 2 and int(one.event.lane[1:]) % 5 > 0
    }
    assert promoted == expected
    assert await bench.store.check() == []


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 65, 100])
async def test_no_row_is_left_out_or_written_twice_whatever_their_number(bench: Bench, count: int):
    await bench.add(*(event(f"o{number}") for number in range(count)), targets=["alpha"])
    heads = await bench.claim(limit=1_000)
    assert sorted(one.event.lane for one in heads) == sorted(f"o{number}" for number in range(count))
    await bench.settle(*map(delivered, heads))
    for one in heads[:: max(1, count // 7)]:
        assert len(await bench.store.attempts(one.id, 10)) == 1
    assert len(await bench.known(*(f"o{number}" for number in range(count)))) == count
    assert await bench.claim() == []
