"""One target through its troubles, step by step: a real store, a scripted client, a clock that the test moves."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import structlog
from support.clock import JumpClock
from support.engine import Steps, answer, target
from support.factories import event
from support.until import until

from relay.delivery.scheduler import WALL_KEY, Scheduler
from relay.delivery.target_loop import AWAY, DENIED, NAP
from relay.errors import StoreUnavailable
from relay.model import Delivery
from relay.standing import Breaker, Resume
from relay.store.values import Claim

FAST = {"failures": 4, "probe": {"initial": "10s", "max": "60s"}}
DAY = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


async def open_breaker(steps: Steps, orders: int = 20) -> None:
    """Everything fails until the breaker is open."""
    steps.client.script = lambda _delivery: 500
    await steps.add(*(event(f"o{number}") for number in range(orders)))
    await steps.turn()
    assert (await steps.standing()).breaker is Breaker.OPEN


async def test_an_open_breaker_sends_one_probe_at_a_time_and_uses_nothing_up(path: Path):
    """Failure mode 100: the target's failure is one row, its deliveries wait."""
    async with Steps(path, target(breaker=FAST, concurrency=4)) as steps:
        await open_breaker(steps)
        assert len(steps.client.sent) == 4
        await steps.live(600)
        probes = steps.client.sent[4:]
        assert all(one.probe for one in probes)
        assert len(probes) == 3 + 8  # after 10, 30 and 70 s, then one a minute
        assert max(one.steps_used for one in steps.client.sent) <= 1
        assert (await steps.waiting()).pending == 20


async def test_probes_go_round_all_orders_so_that_one_that_always_fails_keeps_nothing_shut(path: Path):
    """Failure mode 100: one order that always gets 500 must not be every probe."""
    async with Steps(path, target(breaker=FAST, concurrency=4)) as steps:
        await open_breaker(steps, orders=6)
        first = len(steps.client.sent)
        await steps.live(660)
        probed = [one.event.lane for one in steps.client.sent[first:]]
        assert Counter(probed[:6]) == Counter(f"o{number}" for number in range(6))
        assert probed[6:12] == probed[:6]
        poison = probed[0]
        steps.client.script = lambda one: 500 if one.event.lane == poison else 200
        await steps.live(300)
        waiting = await steps.waiting()
        assert (waiting.standing.breaker, waiting.pending) == (Breaker.CLOSED, 1)


async def test_after_the_first_2xx_it_starts_slowly(path: Path):
    """Failure mode 101: 1, 2, 4, 8 at a time, and no storm on a receiver that has just come back."""
    async with Steps(path, target(breaker=FAST, concurrency=16)) as steps:
        await open_breaker(steps, orders=100)
        steps.client.script = lambda _delivery: 200
        steps.clock.move(11)
        rounds = []
        while started := (await steps.round())[1]:
            rounds.append(started)
        assert rounds[:6] == [1, 1, 2, 4, 8, 16]
        assert (await steps.waiting()).pending == 0
        assert steps.client.most == 16


async def test_a_backlog_and_a_receiver_that_takes_little_drains_without_opening_again(path: Path):
    """Failure mode 101: a receiver that answers 503 beyond ten at once is slowed down to, not stormed."""
    async with Steps(path, target(breaker={"failures": 10}, concurrency=64)) as steps:
        steps.client.script = lambda _delivery: 503 if steps.client.on_wire > 10 else 200
        await steps.add(*(event(f"o{number}") for number in range(400)))
        opened = 0
        before = Breaker.CLOSED
        for _ in range(2000):
            nap, _ = await steps.round()
            now = (await steps.standing()).breaker
            opened += now is Breaker.OPEN and before is Breaker.CLOSED
            before = now
            if not (await steps.waiting()).pending:
                break
            steps.clock.move(max(nap, 0.01))
        assert (await steps.waiting()).pending == 0
        assert opened <= 2


async def test_what_was_under_way_when_it_opened_is_due_when_it_closes(path: Path):
    async with Steps(path, target(breaker=FAST, concurrency=16, retry={"schedule": ["1d"]})) as steps:
        await open_breaker(steps, orders=16)
        assert len(steps.client.sent) == 16
        steps.client.script = lambda _delivery: 200
        await steps.live(30)
        assert (await steps.waiting()).pending == 0


async def test_retry_after_holds_the_whole_target_back(path: Path):
    async with Steps(path, target(concurrency=2)) as steps:
        answers = [answer(429, retry_after="120"), answer(200)]
        steps.client.script = lambda _delivery: answers.pop(0) if answers else 200
        await steps.add(*(event(f"o{number}") for number in range(10)))
        await steps.turn()
        assert len(steps.client.sent) == 2
        await steps.live(119)
        assert len(steps.client.sent) == 2
        await steps.live(300)
        assert (await steps.waiting()).pending == 0


async def test_without_retry_after_half_as_many_at_a_time(path: Path):
    async with Steps(path, target(concurrency=8)) as steps:
        steps.client.script = lambda _delivery: 503 if len(steps.client.sent) == 1 else 200
        await steps.add(event("o0"))
        await steps.round()
        assert (await steps.standing()).allowance == 4
        await steps.add(*(event(f"p{number}") for number in range(30)))
        assert [(await steps.round())[1] for _ in range(3)] == [4, 8, 8]


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_one_refused_event_is_dead_after_five_attempts_and_its_order_goes_on(path: Path, status: int):
    """Failure mode 100: one poison event in a thousand."""
    async with Steps(path, target()) as steps:
        steps.client.script = lambda one: status if one.event.webhook_id == "evt_bad_1" else 200
        await steps.add(event("bad", sequence=1), event("bad", sequence=2), *(event(f"o{n}") for n in range(1000)))
        await steps.live(60)
        assert (await steps.waiting()).pending == 2
        await steps.add(event("later"))
        await steps.live(DAY)
        assert steps.client.ids.count("evt_bad_1") == 5
        assert await steps.bench.statuses("bad") == ["refused", "delivered"]
        assert (await steps.standing()).breaker is Breaker.CLOSED


async def test_a_target_that_answers_400_to_everything_loses_nothing(path: Path):
    """Failure mode 100: a wrong secret at the receiver is the target's fault."""
    async with Steps(path, target(breaker=FAST)) as steps:
        steps.client.script = lambda _delivery: 400
        await steps.add(*(event(f"o{number}") for number in range(20)))
        await steps.live(6 * 3600)
        waiting = await steps.waiting()
        assert (waiting.standing.breaker, waiting.pending) == (Breaker.OPEN, 20)
        steps.client.script = lambda _delivery: 200
        await steps.live(120)
        assert (await steps.waiting()).pending == 0


async def test_abort_message_ends_one_delivery_and_disable_parks_the_target(path: Path):
    async with Steps(path, target(concurrency=1)) as steps:
        steps.client.script = lambda _delivery: answer(500, webhook_delivery="abort-message")
        await steps.add(event("o1", sequence=1), event("o1", sequence=2))
        await steps.round()
        assert await steps.bench.statuses("o1") == ["refused", "pending"]
        steps.client.script = lambda _delivery: answer(200, webhook_delivery="disable")
        await steps.turn()
        assert await steps.bench.statuses("o1") == ["refused", "delivered"]
        assert (await steps.standing()).state == "parked"
        await steps.add(event("o2"))
        await steps.live(3600)
        assert len(steps.client.sent) == 2


async def test_a_rate_limit_is_kept_and_a_restart_is_no_burst(path: Path):
    async with Steps(path, target(rate_limit="10/s", concurrency=50)) as steps:
        await steps.add(*(event(f"o{number}") for number in range(100)))
        await steps.turn()
        assert len(steps.client.sent) == 1
        await steps.live(2)
        assert 20 <= len(steps.client.sent) <= 22
        sent = len(steps.client.sent)
        await steps.restart()
        await steps.turn()
        assert len(steps.client.sent) == sent + 1
        await steps.live(10)
        assert (await steps.waiting()).pending == 0


async def test_a_rate_limited_target_that_nothing_waits_for_is_left_alone(path: Path):
    """There is a token, so nothing but a delivery is wanting: there is no moment to look again at."""
    async with Steps(path, target(rate_limit="1/s", concurrency=4)) as steps:
        assert await steps.turn() == NAP
        await steps.add(event("o1"))
        assert await steps.turn() == 1.0  # until there is another token
        assert steps.client.ids == ["evt_o1_1"]
        steps.clock.move(1.0)
        assert await steps.turn() == NAP


async def test_a_lane_behind_its_failing_head_waits_and_others_flow(path: Path):
    """Failure mode 109: intended, visible by its age, and bounded."""
    async with Steps(path, target(breaker={"failures": 1000})) as steps:
        steps.client.script = lambda one: 500 if one.event.lane == "stuck" else 200
        await steps.add(*(event("stuck", sequence=n) for n in range(1, 11)), *(event(f"o{n}") for n in range(30)))
        began_ms = steps.clock.wall_ms()
        await steps.live(3600)
        waiting = await steps.waiting()
        assert (waiting.pending, waiting.oldest_ms) == (10, began_ms)
        assert {one for one in steps.client.ids if one.startswith("evt_stuck")} == {"evt_stuck_1"}
        assert len(steps.client.taken) == 30
        await steps.live(4 * DAY)
        assert (await steps.bench.statuses("stuck"))[0] == "exhausted"


@pytest.mark.parametrize("step", [30 * DAY, -3600.0, -10 * 365 * DAY])
async def test_a_wall_clock_that_jumps_kills_nothing_and_starts_no_storm(path: Path, step: float):
    """Failure modes 132 and 133: naps are bounded, slots hold, and age alone ends nothing."""
    clock = WallStepClock()
    async with Steps(path, target(concurrency=4, breaker={"failures": 1000}), clock=clock) as steps:
        steps.client.script = lambda _delivery: 500
        await steps.add(*(event(f"o{number}") for number in range(50)))
        await steps.turn()
        clock.step_wall(step)
        if step < 0:
            await steps.bench.store.shift_due("alpha", round(step * 1000), clock.wall_ms())
        assert await steps.janitor.expiry_once() == 0
        steps.client.script = lambda _delivery: 200
        await steps.live(120)
        assert steps.client.most <= 4
        assert (await steps.waiting()).pending == 0
        assert steps.metric("deliveries_total", target="alpha", status="dead") == 0


async def test_a_restart_keeps_breaker_throttle_pause_and_park(path: Path):
    async with Steps(path, target(breaker=FAST, concurrency=4)) as steps:
        await open_breaker(steps)
        before = await steps.standing()
        await steps.restart()
        assert await steps.standing() == before
        await steps.turn()
        assert len(steps.client.sent) == 4
        await steps.live(11)
        assert steps.client.sent[4].probe
        steps.client.script = lambda _delivery: answer(503, retry_after="600")
        await steps.live(25)
        await steps.restart()
        sent = len(steps.client.sent)
        await steps.live(500)
        assert len(steps.client.sent) == sent
        assert await steps.bench.store.pause("alpha", steps.clock.wall_ms())
        await steps.restart()
        await steps.live(3600)
        assert len(steps.client.sent) == sent
        assert await steps.bench.store.resume("alpha", steps.clock.wall_ms()) is Resume.PAUSED
        steps.client.script = lambda _delivery: 410
        await steps.live(60)
        await steps.restart()
        await steps.live(3600)
        assert (len(steps.client.sent), (await steps.standing()).state) == (sent + 1, "parked")
        assert (await steps.waiting()).pending == 20


async def test_a_restart_keeps_what_is_known_of_other_orders(path: Path):
    """A refusal is believed on the fifth attempt although the first four were another process's."""
    async with Steps(path, target()) as steps:
        steps.client.script = lambda one: 422 if one.event.lane == "bad" else 200
        await steps.add(event("bad"))
        await steps.live(60)
        await steps.add(event("good"))
        await steps.live(4000)
        assert steps.client.ids.count("evt_bad_1") == 4
        await steps.restart()
        await steps.live(9000)
        assert await steps.bench.statuses("bad") == ["refused"]


async def test_an_orphan_keeps_everything_and_goes_on_when_it_comes_back(path: Path):
    async with Steps(path, target(), target("beta")) as steps:
        steps.clients["beta"].script = lambda _delivery: 500
        await steps.add(*(event(f"o{number}") for number in range(5)), to=["beta"])
        await steps.turn("beta")
        await steps.restart(target())
        assert (await steps.waiting("beta")).standing.state == "orphaned"
        steps.clock.move(30 * DAY)
        assert await steps.janitor.expiry_once() == 0
        await steps.restart(target(), target("beta"))
        assert await steps.janitor.expiry_once() == 0
        steps.clients["beta"].script = lambda _delivery: 200
        await steps.turn("beta")
        assert (await steps.waiting("beta")).pending == 0


async def test_the_configurations_pause_ends_with_it(path: Path):
    async with Steps(path, target(paused=True)) as steps:
        await steps.add(event("o1"))
        await steps.live(3600)
        assert steps.client.sent == []
        await steps.restart(target())
        await steps.turn()
        assert len(steps.client.taken) == 1


async def test_another_address_is_probed_at_once(path: Path):
    async with Steps(path, target(breaker=FAST)) as steps:
        await open_breaker(steps)
        sent = len(steps.client.sent)
        await steps.restart(reach={"alpha": "elsewhere"})
        steps.client.script = lambda _delivery: 200
        await steps.turn()
        assert steps.client.sent[sent].probe
        assert (await steps.waiting()).pending == 0


async def test_what_comes_in_for_a_dead_target_asks_the_store_once_a_second_at_most(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with Steps(path, target(breaker=FAST)) as steps:
        await open_breaker(steps)
        asked: list[str] = []
        claim = steps.bench.store.claim

        async def counted(name: str, *rest: Any) -> Claim:
            asked.append(name)
            return await claim(name, *rest)

        monkeypatch.setattr(steps.bench.store, "claim", counted)
        loop = steps.loops["alpha"]
        naps = [await loop.run_once() for _ in range(100)]
        assert len(asked) <= 1
        assert max(naps[1:]) <= DENIED
        steps.clock.move(DENIED)
        await loop.run_once()
        assert len(asked) <= 2


async def test_a_person_retries_past_breaker_and_throttle(path: Path):
    async with Steps(path, target(breaker=FAST)) as steps:
        await open_breaker(steps)
        rows = (await steps.bench.store.order_deliveries(["o7"]))[0]
        assert rows.target == "alpha"
        sent = len(steps.client.sent)
        steps.client.script = lambda _delivery: 200
        await steps.bench.store.retry_now(8, steps.clock.wall_ms())
        steps.loops["alpha"].look_anew()  # as the API does
        await steps.round()
        assert (steps.client.sent[sent].id, steps.client.sent[sent].manual) == (8, True)


async def test_no_more_of_a_target_is_in_memory_than_it_has_slots(path: Path):
    async with Steps(path, target(concurrency=3)) as steps:
        await steps.add(*(event(f"o{number}") for number in range(200)))
        most = [0]

        def look(_delivery: Delivery) -> int:
            most[0] = max(most[0], len(steps.bench.store.in_flight()))
            return 200

        steps.client.script = look
        await steps.turn()
        assert most[0] == 3


async def test_changes_are_told_once(path: Path, capsys: pytest.CaptureFixture[str]):
    """Failure mode 131: opened, closed and parked are a line each, whatever waits."""
    async with Steps(path, target(breaker=FAST, concurrency=4)) as steps:
        await open_breaker(steps, orders=300)
        await steps.live(200)
        steps.client.script = lambda _delivery: 200
        await steps.live(60)
        steps.client.script = lambda _delivery: 410
        await steps.add(event("last"))
        await steps.turn()
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    for word in ("breaker_opened", "breaker_closed", "target_parked"):
        assert sum(word in line for line in lines) == 1, word
    assert "pending=300" in next(line for line in lines if "breaker_opened" in line)
    assert len(lines) <= 6


class WallStepClock(JumpClock):
    def step_wall(self, seconds: float) -> None:
        self._start_ms += round(seconds * 1000)


async def test_events_that_are_never_taken_do_not_keep_the_others_waiting(path: Path):
    """An outage while many orders hold a refused event: afterwards probes must meet what was never tried."""
    async with Steps(path, target(breaker=FAST, retry={"schedule": ["5s", "5m", "30m", "2h"], "jitter": 0})) as steps:

        def answers(one: Delivery) -> int:
            return 422 if one.event.lane.startswith("bad") else 200

        steps.client.script = answers
        await steps.add(event("fine0"), *(event(f"bad{number}") for number in range(40)))
        await steps.live(20)
        steps.client.script = lambda _delivery: 500
        await steps.add(*(event(f"lost{number}") for number in range(8)))
        await steps.live(60)
        assert (await steps.standing()).breaker is Breaker.OPEN
        steps.client.script = answers
        await steps.add(*(event(f"fine{number}") for number in range(1, 30)))
        await steps.live(180)
        waiting = {row for number in range(1, 30) for row in await steps.bench.statuses(f"fine{number}")}
        assert waiting == {"delivered"}
        assert (await steps.standing()).breaker is Breaker.CLOSED
        await steps.live(4 * 3600)
        assert (await steps.waiting()).pending == 0
        assert await steps.bench.statuses("bad0") == ["refused"]


async def test_a_persons_retry_keeps_to_the_receivers_retry_after(path: Path):
    async with Steps(path, target(breaker=FAST)) as steps:
        steps.client.script = lambda _delivery: answer(429, retry_after="300")
        await steps.add(event("o1"), event("o2"))
        await steps.turn()
        sent = len(steps.client.sent)
        steps.client.script = lambda _delivery: 200
        await steps.bench.store.retry_now(1, steps.clock.wall_ms())
        steps.loops["alpha"].look_anew()
        await steps.turn()
        assert len(steps.client.sent) == sent
        steps.clock.move(301)
        await steps.turn()
        assert steps.client.sent[sent].id == 1


async def test_a_clock_that_was_ahead_and_is_right_after_a_restart_freezes_nothing(path: Path):
    """Failure mode 132, across a restart: due times and throttles were written by the wrong clock."""
    ahead = JumpClock(wall_ms=JumpClock().wall_ms() + 10 * 3_600_000)
    async with Steps(path, target(rate_limit="1/h"), clock=ahead) as steps:
        await steps.add(*(event(f"o{number}") for number in range(5)))
        await steps.bench.store.meta_set(WALL_KEY, str(ahead.wall_ms()))
    async with Steps(path, target()) as steps:
        scheduler = Scheduler(steps.targets, steps.clients, steps.context, steps.board)
        await scheduler.look_back()
        await steps.turn()
        assert (await steps.waiting()).pending == 0


async def test_instances_share_the_slots_and_the_rate_of_a_target(path: Path):
    async with Steps(path, target(concurrency=6, rate_limit="4/s")) as steps:
        steps.board.lead.instances = 2
        gate = asyncio.Event()

        async def hold(_delivery: Delivery) -> int:
            await gate.wait()
            return 200

        steps.client.script = hold
        await steps.add(*(event(f"o{number}") for number in range(20)))
        began = steps.clock.mono()
        while steps.client.on_wire < 3:
            nap = await steps.loops["alpha"].run_once()
            steps.clock.move(max(nap, 0.01))
            await asyncio.sleep(0)
        assert steps.clock.mono() - began >= 0.9  # two a second, the first at once
        assert await steps.loops["alpha"].run_once() == NAP  # half of six slots are taken
        steps.board.lead.instances = 1
        while steps.client.on_wire < 6:
            steps.clock.move(0.25)
            await steps.loops["alpha"].run_once()
            await asyncio.sleep(0)
        assert await steps.loops["alpha"].run_once() == NAP
        gate.set()
        await until(lambda: steps.board.targets["alpha"].in_flight == 0)


async def test_a_store_that_is_away_is_asked_again_and_told_once(path: Path):
    async with Steps(path, target()) as steps:
        await steps.add(event("o1"))
        store, away = steps.bench.store, True
        claim = store.claim

        async def sometimes(*args: Any) -> Claim:
            if away:
                raise StoreUnavailable("store db: it cannot be reached")
            return await claim(*args)

        object.__setattr__(store, "claim", sometimes)
        loop = steps.loops["alpha"]
        with structlog.testing.capture_logs() as lines:
            running = asyncio.create_task(loop.run())
            for _ in range(3):
                loop.wake()
                await asyncio.sleep(0.01)
                steps.clock.move(AWAY)
            assert [line["event"] for line in lines] == ["delivery_waits_for_store"]
        away = False
        steps.clock.move(AWAY)
        loop.wake()
        await steps.client.until_sent(1)
        await loop.drain(5)
        await running
        assert (await steps.waiting()).pending == 0
