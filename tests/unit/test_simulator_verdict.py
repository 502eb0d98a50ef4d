"""The verdict, over histories made by hand: each fault is found, and nothing else is called one."""

import json
from typing import Any

import pytest
from simulator_kit import ManualClock, quiet_world

from relay.simulator.lifecycle import Kind, Stage
from relay.simulator.receiver import Arrival
from relay.simulator.verdict import LAST_MOMENTS, LINGER, History, Verdict, judge, visible_changes
from relay.simulator.world import Change, Order, World

WAITING = Stage(0, "WAITING_FOR_DEPOSIT", 1)
CONFIRMING = Stage(1, "DEPOSIT_DETECTED", 2)
VERIFYING = Stage(1, "DEPOSIT_DETECTED", 8)
EXCHANGING = Stage(2, "EXCHANGE_IN_PROGRESS", 3)


class Deaf:
    def push(self, change: Change) -> None:
        pass


class Scene:
    """A world with one subscribed socket, and the arrivals at one target."""

    def __init__(self) -> None:
        self.world: World
        self.clock: ManualClock
        self.world, self.clock = quiet_world()
        self.socket = Deaf()
        self.epoch = self.world.epoch_started(self.socket)
        self.world.subscribed()
        self.order: Order = self.world.create(Kind.CEX, WAITING)
        self.arrivals: list[Arrival] = []

    def live(self, *stages: Stage, pushed: bool = True) -> None:
        """The order goes through stages, each pushed to the socket."""
        if pushed:
            self.world.pushed(self.order.changes[-1], self.epoch)
        for stage in stages:
            self.clock.now += 1
            change = self.world.transition(self.order, stage)
            if pushed:
                self.world.pushed(change, self.epoch)

    def arrive(self, index: int, sequence: int | None = None, **other: Any) -> None:
        """The change with this index arrives."""
        change = self.order.changes[index]
        values: dict[str, Any] = {
            "number": len(self.arrivals) + 1,
            "target": "shop",
            "webhook_id": f"evt_{index}",
            "attempt": 1,
            "body": b'{"type":"order.x","data":' + change.body + b',"relay":{}}',
            "houdini_id": change.houdini_id,
            "type": "order.x",
            "sequence": index + 1 if sequence is None else sequence,
            "status": "X",
            "origin": "websocket",
            "problem": None,
            "answer": 200,
        }
        self.arrivals.append(Arrival(**{**values, **other}))

    def verdict(self) -> Verdict:
        return judge(History.of(self.world), self.arrivals, ["shop"])

    def visible(self) -> list[int]:
        return [change.index for change in visible_changes(History.of(self.world))]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_good_run_is_fine(scene: Scene) -> None:
    scene.live(CONFIRMING, VERIFYING, EXCHANGING)
    scene.arrive(0)
    scene.arrive(1, answer=500)
    scene.arrive(1, attempt=2, origin="backfill")
    scene.arrive(1, attempt=3)
    scene.arrive(2)
    scene.arrive(3)
    verdict = scene.verdict()
    assert verdict.ok
    assert (verdict.updates, verdict.deliveries, verdict.retries) == (4, 5, 2)
    assert (verdict.backfilled, verdict.repeated) == (1, 1)
    assert verdict.lines()[-1] == "verdict: fine"


def test_lost_when_never_acknowledged(scene: Scene) -> None:
    scene.live(CONFIRMING)
    scene.arrive(0)
    scene.arrive(1, answer=500)
    verdict = scene.verdict()
    assert len(verdict.lost) == 1
    assert scene.order.houdini_id in verdict.lost[0]
    assert not verdict.ok
    assert verdict.lines()[-1] == "verdict: NOT FINE"


def test_lost_at_one_target_though_another_has_it(scene: Scene) -> None:
    scene.live()
    scene.arrive(0)
    verdict = judge(History.of(scene.world), scene.arrivals, ["shop", "books"])
    assert [line.split(":")[0] for line in verdict.lost] == ["books"]


def test_doubled_when_one_change_has_two_ids(scene: Scene) -> None:
    scene.live()
    scene.arrive(0)
    scene.arrive(0, sequence=2, webhook_id="evt_other")
    verdict = scene.verdict()
    assert len(verdict.doubled) == 1
    assert not verdict.out_of_order


def test_doubled_when_a_mere_price_move_became_an_event(scene: Scene) -> None:
    scene.live()
    scene.arrive(0)
    scene.world.reprice(scene.order)
    scene.arrive(0, sequence=2, webhook_id="evt_other")
    assert len(scene.verdict().doubled) == 1


def test_out_of_order_when_the_sequence_steps_back(scene: Scene) -> None:
    scene.live(CONFIRMING)
    scene.arrive(0, sequence=2)
    scene.arrive(1, sequence=1)
    assert len(scene.verdict().out_of_order) == 1


def test_out_of_order_when_the_status_steps_back_under_a_rising_sequence(scene: Scene) -> None:
    scene.live(CONFIRMING)
    scene.arrive(1, sequence=1)
    scene.arrive(0, sequence=2)
    assert len(scene.verdict().out_of_order) == 1


def test_out_of_order_is_judged_without_sequences_too(scene: Scene) -> None:
    scene.live(CONFIRMING)
    raw = [b'{"type":"order_update","data":' + change.body + b"}" for change in scene.order.changes]
    scene.arrive(1, body=raw[1])
    scene.arrive(0, body=raw[0])
    scene.arrivals = [_without_sequence(arrival) for arrival in scene.arrivals]
    assert len(scene.verdict().out_of_order) == 1


def _without_sequence(arrival: Arrival) -> Arrival:
    members = {name: getattr(arrival, name) for name in Arrival.__slots__}
    return Arrival(**{**members, "sequence": None})


def test_a_repeat_that_comes_late_is_not_out_of_order(scene: Scene) -> None:
    scene.live(CONFIRMING)
    for index in (0, 1, 0):
        scene.arrive(index)
    verdict = scene.verdict()
    assert verdict.ok
    assert verdict.repeated == 1


def test_altered_when_the_bytes_are_not_the_upstreams(scene: Scene) -> None:
    scene.live()
    tidied = json.dumps(json.loads(scene.order.changes[0].body)).encode()
    scene.arrive(0, body=b'{"type":"order.x","data":' + tidied + b"}")
    verdict = scene.verdict()
    assert len(verdict.altered) == 1
    assert len(verdict.lost) == 1


def test_altered_and_lost_when_two_changes_share_an_id(scene: Scene) -> None:
    scene.live(CONFIRMING)
    scene.arrive(0)
    scene.arrive(1, webhook_id="evt_0")
    verdict = scene.verdict()
    assert len(verdict.altered) == 1
    assert len(verdict.lost) == 1


def test_wrongly_signed_counts_and_delivers_nothing(scene: Scene) -> None:
    scene.live()
    scene.arrive(0, problem="no signature holds", answer=401)
    verdict = scene.verdict()
    assert len(verdict.wrongly_signed) == 1
    assert len(verdict.lost) == 1


def test_operational_notices_are_none_of_its_business(scene: Scene) -> None:
    scene.arrive(0, type="relay.target.parked", body=b"{}", houdini_id=None)
    assert scene.verdict().ok


def test_an_unfinished_run_is_not_ok() -> None:
    verdict = Verdict(unfinished=["the relay ended by itself"])
    assert not verdict.ok
    assert "unfinished: the relay ended by itself" in verdict.lines()


def test_many_faults_are_shown_by_a_few_examples() -> None:
    assert "lost: and 2 more" in Verdict(lost=[str(number) for number in range(7)]).lines()


def test_nothing_is_visible_before_the_first_subscription(scene: Scene) -> None:
    scene.live()
    scene.world.first_subscribed_at = None
    assert scene.visible() == []
    scene.world.first_subscribed_at = scene.clock.now + 1
    assert scene.visible() == []


def test_a_frame_in_a_sockets_last_moments_may_go_unread(scene: Scene) -> None:
    scene.live(CONFIRMING)
    scene.clock.now += LAST_MOMENTS - 0.5
    scene.world.epoch_ended(scene.epoch, scene.socket)
    assert scene.visible() == [0]
    scene.world.shown(scene.order.changes)
    assert scene.visible() == [0, 1]


def test_a_frame_held_back_until_it_was_stale_is_not_due(scene: Scene) -> None:
    stale = scene.order.changes[0]
    scene.live(CONFIRMING, pushed=False)
    scene.world.pushed(stale, scene.epoch)
    assert scene.visible() == []


def test_states_that_came_and_went_unseen_are_not_due(scene: Scene) -> None:
    scene.live(CONFIRMING, EXCHANGING, pushed=False)
    assert scene.visible() == []


def test_a_state_that_rest_showed_is_due_when_it_lasted(scene: Scene) -> None:
    scene.live(CONFIRMING, pushed=False)
    scene.world.shown(scene.order.changes)
    scene.clock.now += LINGER - 1
    scene.live(EXCHANGING, pushed=False)
    assert scene.visible() == [1]


def test_a_state_that_rest_showed_in_passing_is_not_due(scene: Scene) -> None:
    scene.live(CONFIRMING, pushed=False)
    scene.world.shown(scene.order.changes)
    scene.clock.now += LINGER - 2
    scene.live(EXCHANGING, pushed=False)
    assert scene.visible() == []


def test_a_finer_step_that_only_rest_showed_is_due_only_as_the_last(scene: Scene) -> None:
    scene.live(CONFIRMING, VERIFYING, pushed=False)
    scene.world.shown(scene.order.changes)
    assert scene.visible() == [2]
    scene.clock.now += LINGER
    scene.live(EXCHANGING, pushed=False)
    assert scene.visible() == []
