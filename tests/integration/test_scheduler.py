"""The scheduler at work over a real store, in real time; the wire is a scripted client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.engine import Room, answer, target
from support.factories import event
from support.until import until

from relay.clock import SystemClock
from relay.model import Attempt, Delivery
from relay.standing import Breaker, Resume

OFTEN = {"schedule": ["100ms"] * 50, "jitter": 0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


def first_arrivals(ids: list[str]) -> list[str]:
    return list(dict.fromkeys(ids))


async def test_an_order_arrives_in_order_and_orders_run_side_by_side(path: Path):
    async with Room(path, target(concurrency=4)) as room:
        await room.add(*(event(f"o{order}", status=0, sequence=n) for n in range(1, 6) for order in range(4)))
        await room.until_empty()
        for order in range(4):
            ids = [sent for sent in room.client.ids if sent.startswith(f"evt_o{order}_")]
            assert ids == [f"evt_o{order}_{n}" for n in range(1, 6)]
    assert 1 < room.client.most <= 4
    assert room.metric("deliveries_total", target="alpha", status="delivered") == 20
    assert room.metric("attempts_total", target="alpha", outcome="ok") == 20


async def test_a_failing_receiver_gets_everything_afterwards_in_order(path: Path):
    async with Room(path, target(retry=OFTEN)) as room:
        room.client.script = lambda _delivery: replace(answer(500), response_body=b"database is locked\nat line 3")
        await room.add(*(event("o1", status=0, sequence=n) for n in range(1, 4)))
        await room.client.until_sent(2)
        assert set(room.client.ids) == {"evt_o1_1"}
        assert (await room.standing()).last_error == "status 500: database is locked"
        room.client.script = lambda _delivery: 200
        await room.until_empty()
        assert first_arrivals(room.client.ids) == ["evt_o1_1", "evt_o1_2", "evt_o1_3"]
        attempts = [one.attempts_made for one in room.client.sent if one.event.webhook_id == "evt_o1_1"]
        assert attempts == list(range(len(attempts)))
        assert (await room.standing()).last_error is None


async def test_beyond_the_schedule_a_delivery_is_dead_and_the_lane_goes_on(path: Path):
    async with Room(path, target(retry={"schedule": ["100ms", "100ms"], "jitter": 0})) as room:
        room.client.script = lambda one: 500 if one.event.webhook_id == "evt_o1_1" else 200
        await room.add(event("o1", sequence=1), event("o1", sequence=2))
        await room.until_empty()
        assert room.client.ids == ["evt_o1_1"] * 3 + ["evt_o1_2"]
        assert room.metric("deliveries_total", target="alpha", status="dead") == 1
        assert (await room.bench.store.dead_letters(100))["alpha"].count == 1


async def test_one_that_never_answers_does_not_delay_its_neighbour(path: Path):
    """Failure modes 93 and 102: slots belong to targets."""
    async with Room(path, target("stuck", concurrency=4), target("alpha")) as room:
        never = asyncio.Event()

        async def hang(_delivery: Delivery) -> int:
            await never.wait()
            return 200

        room.clients["stuck"].script = hang
        await room.add(*(event(f"o{n}") for n in range(50)))
        await room.until_empty()
        assert room.clients["stuck"].on_wire == 4
        assert (await room.waiting("stuck")).pending == 50
        assert room.board.targets["stuck"].in_flight == 4


async def test_410_parks_the_target_and_keeps_everything(path: Path):
    """Failure mode 98."""
    async with Room(path, target(concurrency=1), target("beta")) as room:
        room.client.script = lambda _delivery: 410
        await room.add(*(event(f"o{n}") for n in range(1000)))
        await room.until_empty("beta")
        waiting = await room.waiting()
        assert (waiting.standing.state, waiting.pending) == ("parked", 1000)
        assert len(room.client.sent) == 1


async def test_a_parked_target_is_sent_to_again_once_a_person_resumes_it(path: Path):
    """Failure mode 98: in order, with nothing used up."""
    async with Room(path, target(concurrency=1)) as room:
        room.client.script = lambda _delivery: 410
        await room.add(event("o1", sequence=1), event("o1", sequence=2), event("o2"))

        async def parked() -> bool:
            return (await room.standing()).parked_ms is not None

        await until(parked)
        room.client.script = lambda _delivery: 200
        assert await room.scheduler.resume("alpha") is Resume.PARKED
        await room.until_empty()
        assert await room.scheduler.resume("alpha") is Resume.NOTHING
        assert sorted(room.client.ids) == ["evt_o1_1", "evt_o1_1", "evt_o1_2", "evt_o2_1"]
        assert [one.steps_used for one in room.client.sent] == [0, 0, 0, 0]


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Room]:
    """A target whose breaker is open, and which is probed only if somebody asks."""
    settings = target(breaker={"failures": 2, "probe": {"initial": "1h", "max": "1h"}}, retry={"schedule": ["1h"]})
    async with Room(path, settings) as room:
        room.client.script = lambda _delivery: 500
        await room.add(event("o1"), event("o2"))

        async def is_open() -> bool:
            return (await room.standing()).breaker is Breaker.OPEN

        await until(is_open)
        yield room


async def test_resume_probes_an_open_breaker_at_once(path: Path):
    async with opened(path) as room:
        room.client.script = lambda _delivery: 200
        assert await room.scheduler.resume("alpha") is Resume.BREAKER_OPEN
        await room.until_empty()


async def test_a_probe_that_began_before_a_resume_does_not_put_the_next_one_off(path: Path):
    async with opened(path) as room:
        on_its_way, hangs = asyncio.Event(), asyncio.Event()

        async def slow(_delivery: Delivery) -> Attempt:
            began_ms = SystemClock().wall_ms()
            on_its_way.set()
            await hangs.wait()
            return answer(500, began_ms)

        room.client.script = slow
        assert await room.scheduler.resume("alpha") is Resume.BREAKER_OPEN
        await on_its_way.wait()
        await asyncio.sleep(0.005)  # by the clock that they are judged by
        room.client.script = lambda _delivery: 200  # mended
        assert await room.scheduler.resume("alpha") is Resume.BREAKER_OPEN
        hangs.set()
        await room.until_empty()


async def test_a_person_pauses_and_resumes(path: Path):
    async with Room(path, target()) as room:
        assert await room.scheduler.pause("alpha") is True
        assert await room.scheduler.pause("alpha") is False
        await room.add(event("o1"))
        room.scheduler.wake("alpha")
        assert (await room.waiting()).standing.state == "paused"
        assert await room.scheduler.resume("alpha") is Resume.PAUSED
        await room.until_empty()
        assert len(room.client.sent) == 1


async def test_the_configurations_pause_stands(path: Path):
    async with Room(path, target(paused=True)) as room:
        await room.add(event("o1"))
        assert await room.scheduler.resume("alpha") is Resume.PAUSED_BY_CONFIG
        room.scheduler.wake("alpha")
        await asyncio.sleep(0)
        assert (await room.waiting()).pending == 1
        assert room.client.sent == []


async def test_a_test_goes_past_everything_and_changes_nothing(path: Path):
    async with Room(path, target(paused=True, events=["order.finished"])) as room:
        await room.scheduler.pause("alpha")
        before = await room.standing()
        room.client.script = lambda _delivery: answer(410, retry_after="60")
        attempt = await room.scheduler.test("alpha")
        sent = room.client.sent[0]
        assert (attempt.status_code, sent.event.type, sent.event.lane) == (410, "relay.test", "relay:alpha")
        assert sent.event.facts is None
        assert b'"target":"alpha"' in sent.event.body
        assert await room.standing() == before
        assert (await room.waiting()).pending == 0
        assert room.metric("attempts_total", target="alpha", outcome="gone") == 0
        with pytest.raises(KeyError):
            await room.scheduler.test("nobody")


async def test_tests_of_a_target_go_one_at_a_time(path: Path):
    async with Room(path, target()) as room:
        go = asyncio.Event()

        async def slow(_delivery: Delivery) -> Attempt:
            await go.wait()
            return answer(200)

        room.client.script = slow
        tests = [asyncio.create_task(room.scheduler.test("alpha")) for _ in range(5)]
        await room.client.until_sent(1)
        go.set()
        await asyncio.gather(*tests)
        assert (len(room.client.sent), room.client.most) == (5, 1)


async def test_a_drain_lets_attempts_finish_and_claims_nothing_new(path: Path):
    """Failure mode 115."""
    async with Room(path, target(concurrency=1)) as room:
        go = asyncio.Event()

        async def slow(_delivery: Delivery) -> int:
            await go.wait()
            return 200

        room.client.script = slow
        await room.add(event("o1"), event("o2"))
        await room.client.until_sent(1)
        draining = asyncio.create_task(room.scheduler.drain(10.0))
        await asyncio.sleep(0)
        go.set()
        assert await draining == 0
        assert len(room.client.sent) == 1
        assert (await room.waiting()).pending == 1


async def test_what_the_grace_cuts_off_is_attempted_again_after_a_restart(path: Path):
    async with Room(path, target()) as room:
        never = asyncio.Event()

        async def hang(_delivery: Delivery) -> int:
            await never.wait()
            return 200

        room.client.script = hang
        await room.add(event("o1"))
        await room.client.until_sent(1)
        assert await room.scheduler.drain(0.01) == 1
        assert room.bench.store.in_flight() == frozenset()
    async with Room(path, target()) as room:
        await room.until_empty()
        assert [(one.event.webhook_id, one.attempts_made) for one in room.client.sent] == [("evt_o1_1", 0)]


class StepClock(SystemClock):
    """The system's clocks, with a wall clock that can be set."""

    def __init__(self) -> None:
        self.step_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.step_ms


async def test_a_clock_set_back_does_not_freeze_what_waits(path: Path):
    """Failure mode 132: neither a delivery nor a throttled target."""
    clock = StepClock()
    waits = {"schedule": ["60s"], "jitter": 0, "retry_after_max": "60s"}
    async with Room(path, target(retry=waits), target("beta", retry=waits), clock=clock) as room:
        room.client.script = lambda _delivery: 500
        room.clients["beta"].script = lambda _delivery: answer(503, retry_after="50")
        await room.add(event("o1"))
        await until(lambda: room.metric("attempts_total", target="alpha", outcome="retry"))
        await until(lambda: room.metric("attempts_total", target="beta", outcome="retry"))
        clock.step_ms = -3_600_000
        await room.scheduler.look_at_clock()
        assert await room.bench.claim(now_ms=clock.wall_ms() + 50_000) == []
        late = await room.bench.claim(now_ms=clock.wall_ms() + 61_000)
        assert [one.event.lane for one in late] == ["o1"]
        until_ms = (await room.standing("beta")).throttled_until_ms
        assert until_ms is not None
        assert clock.wall_ms() < until_ms < clock.wall_ms() + 51_000


async def test_a_due_time_that_only_a_wrong_clock_can_have_written_is_undone_at_start(path: Path):
    short = {"schedule": ["1s"], "jitter": 0, "retry_after_max": "9s"}
    async with Room(path, target(retry=short)) as room:
        await room.bench.add(event("o1"), targets=["alpha"], now_ms=SystemClock().wall_ms() + 10**9)
    async with Room(path, target(retry=short)) as room:

        async def undone() -> bool:
            due_ms = (await room.waiting()).waiting_since_ms
            return due_ms is not None and due_ms < SystemClock().wall_ms() + 9_500

        await until(undone)


async def test_a_flapping_target_and_many_deaths_do_not_flood_the_log(path: Path, capsys: pytest.CaptureFixture[str]):
    """Failure mode 131."""
    once = {"schedule": ["100ms"], "jitter": 0}
    async with Room(path, target(retry=once, breaker={"failures": 10_000}, concurrency=100)) as room:
        room.client.script = lambda one: 200 if one.event.webhook_id.startswith("evt_ok") else 500
        await room.add(*(event(f"{kind}{number}") for number in range(40) for kind in ("ok", "bad")))
        await room.until_empty()
        # What is committed is told a moment later.
        await until(lambda: room.metric("deliveries_total", target="alpha", status="dead") == 40)
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    assert sum("target_failing" in line or "target_answers_again" in line for line in lines) <= 2
    assert sum("delivery_dead" in line for line in lines) == 5
    assert not [line for line in lines if "crashed" in line]


async def test_ten_thousand_failures_are_a_handful_of_lines(path: Path, capsys: pytest.CaptureFixture[str]):
    """Failure mode 131: breaker and throttle say what changes, nothing says what goes on."""
    probes = {"failures": 2, "probe": {"initial": "100ms", "max": "100ms"}}
    async with Room(path, target(breaker=probes, concurrency=50)) as room:
        turn = [0]

        def by_turns(_delivery: Delivery) -> int:
            turn[0] += 1
            return 200 if turn[0] % 7 == 0 else 429

        room.client.script = by_turns
        await room.add(*(event(f"o{number}") for number in range(500)))
        await until(lambda: turn[0] > 60, 20)
    captured = capsys.readouterr()
    assert len((captured.out + captured.err).splitlines()) <= 12


async def test_what_is_superseded_is_counted(path: Path):
    async with Room(path, target(ordering="latest_only", paused=True)) as room:
        await room.add(*(event("o1", status=0, sequence=n) for n in range(1, 6)))
        assert room.metric("deliveries_total", target="alpha", status="superseded") == 3
