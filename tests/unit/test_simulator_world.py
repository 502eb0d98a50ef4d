"""The order table records what was, what was sent and what was shown."""

from random import Random

from simulator_kit import ManualClock, quiet_world

from relay.simulator.lifecycle import Kind, Life, Stage
from relay.simulator.player import Player
from relay.simulator.world import WINDOW_MS, Change, World

WAITING = Stage(0, "WAITING_FOR_DEPOSIT", 1)
CONFIRMING = Stage(1, "DEPOSIT_DETECTED", 2)
VERIFYING = Stage(1, "DEPOSIT_DETECTED", 8)


class Listener:
    def __init__(self) -> None:
        self.heard: list[Change] = []

    def push(self, change: Change) -> None:
        self.heard.append(change)


def test_changes_count_status_repeats_and_steps() -> None:
    world, _ = quiet_world()
    order = world.create(Kind.CEX, WAITING)
    for stage in (CONFIRMING, VERIFYING):
        world.transition(order, stage)
    assert [(change.index, change.step, change.status, change.nth) for change in order.changes] == [
        (0, 0, 0, 1),
        (1, 1, 1, 1),
        (2, 1, 1, 2),
    ]
    assert len({change.body for change in order.changes}) == 3


def test_subscribers_hear_of_changes_until_their_epoch_ends() -> None:
    world, clock = quiet_world()
    listener = Listener()
    epoch = world.epoch_started(listener)
    order = world.create(Kind.CEX, WAITING)
    world.create(Kind.CEX, WAITING, announce=False)
    world.epoch_ended(epoch, listener)
    world.transition(order, CONFIRMING)
    assert listener.heard == order.changes[:1]
    assert world.epochs[epoch].ended == clock.now


def test_a_reprice_is_pushed_but_is_no_change() -> None:
    world, _ = quiet_world()
    listener = Listener()
    world.epoch_started(listener)
    order = world.create(Kind.CEX, WAITING)
    world.reprice(order)
    assert listener.heard == [order.changes[0]] * 2
    assert len(set(order.changes[0].bodies)) == 2


def test_visible_is_bounded_by_the_window_on_created() -> None:
    world, clock = quiet_world()
    order = world.create(Kind.CEX, WAITING, age_ms=WINDOW_MS - 1000)
    assert world.find(order.houdini_id) is not None
    assert [row[0] for row in world.visible()] == [order]
    clock.now += 2
    assert world.find(order.houdini_id) is None
    assert list(world.visible()) == []


def test_a_lagging_view_shows_the_state_of_then() -> None:
    world, clock = quiet_world()
    order = world.create(Kind.CEX, WAITING)
    clock.now += 10
    world.transition(order, CONFIRMING)
    clock.now += 1
    assert [change.status for _, change in world.visible(lag=5)] == [0]
    assert [change.status for _, change in world.visible()] == [1]
    assert world.find(order.houdini_id, lag=60) is None


def test_only_the_newest_state_counts_as_shown_or_as_current_push() -> None:
    world, _ = quiet_world()
    order = world.create(Kind.CEX, WAITING)
    newer = world.transition(order, CONFIRMING)
    older = order.changes[0]
    world.shown([older, newer])
    world.pushed(older, 1)
    world.pushed(newer, 1)
    assert (older.shown, len(newer.shown)) == ([], 1)
    assert (older.pushes[0].current, newer.pushes[0].current) == (False, True)


async def test_the_player_brings_every_order_to_its_end_at_the_rate() -> None:
    clock = ManualClock()
    world = World(clock, Random(1))
    player = Player(world, orders=12, rate=4, rng=Random(1), clock=clock)
    player.populate(3)
    before = clock.now
    await player.run()
    assert player.done
    assert player.progress == 1
    assert len(world.orders) == 15
    assert all(order.changes[-1].status in {4, 5, 6, 7, 8} for order in world.orders.values())
    assert clock.now - before == player.updates / 4
    assert sum(len(order.changes) for order in world.orders.values()) == player.updates + 3


def test_orders_from_before_are_in_mid_life_and_nobody_was_told() -> None:
    world, clock = quiet_world()
    listener = Listener()
    world.epoch_started(listener)
    player = Player(world, orders=0, rate=1, rng=Random(1), clock=clock)
    player.populate(30)
    orders = list(world.orders.values())
    assert listener.heard == []
    assert all(len(order.changes) == 1 for order in orders)
    assert {order.changes[0].status for order in orders} >= {0, 1, 2}
    assert len({order.created_ms for order in orders}) == 30
    assert not player.done


def test_the_same_seed_plays_the_same_lives() -> None:
    def play() -> list[tuple[str, int]]:
        clock, rng = ManualClock(), Random(3)
        world = World(clock, rng)
        player = Player(world, orders=4, rate=1, rng=rng, clock=clock, weights={Life.REVIVED: 1})
        while not player.done:
            player.run_once()
        player.run_once()
        return [(change.houdini_id, change.status) for change in world.changes()]

    assert play() == play()
    assert {status for _, status in play()} >= {0, 1, 2, 4, 5}
