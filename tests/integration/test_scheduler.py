"""The scheduler against a real store; the wire is a scripted sender."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from support.factories import event
from support.stores import Bench
from support.until import until

from relay.board import Board
from relay.clock import SystemClock
from relay.delivery.scheduler import Scheduler
from relay.delivery.sender import PostRequest
from relay.delivery.settler import Context
from relay.errors import SecretUnreadable
from relay.metrics import Metrics
from relay.model import Attempt, Outcome, Secret
from relay.store.sqlite import SqliteStore

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
Answer = Callable[[PostRequest], Awaitable[Attempt]]


def target(name: str, **changes: Any) -> Any:
    retry = SimpleNamespace(schedule=(0.01, 0.01), jitter=0.0, retry_after_max=60.0)
    values = {
        "name": name,
        "url": Secret.of(f"http://{name}.test/"),
        "secrets": (Secret.of(SECRET),),
        "format": "standard",
        "timeout": 5.0,
        "concurrency": 4,
        "headers": {},
        "retry": retry,
    }
    return SimpleNamespace(**{**values, **changes})


def answer(status: int) -> Attempt:
    outcome = Outcome.OK if status == 200 else Outcome.GONE if status == 410 else Outcome.RETRY
    return Attempt(1_000, 5.0, outcome, status_code=status)


class ScriptedSender:
    """Answers by URL; remembers what was on the wire and how much of it at once."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.sent: list[tuple[str, str, int]] = []
        self.on_wire: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.arrived = asyncio.Condition()

    async def post(self, request: PostRequest) -> Attempt:
        url = request.url
        self.on_wire[url] = self.on_wire.get(url, 0) + 1
        self.most[url] = max(self.most.get(url, 0), self.on_wire[url])
        self.sent.append((url, request.headers["webhook-id"], int(request.headers["relay-attempt"])))
        async with self.arrived:
            self.arrived.notify_all()
        try:
            return await self.answers.get(url, self._fine)(request)
        finally:
            self.on_wire[url] -= 1

    async def _fine(self, _request: PostRequest) -> Attempt:
        await asyncio.sleep(0)
        return answer(200)

    async def until_sent(self, count: int) -> None:
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: len(self.sent) >= count)


class Room:
    def __init__(self, path: Path, *targets: Any, clock: SystemClock | None = None) -> None:
        self.targets = targets
        self.clock = clock or SystemClock()
        self.bench = Bench(lambda: SqliteStore(path, self.clock.wall_ms, lambda _seconds: None))
        self.sender = ScriptedSender()
        self.metrics = Metrics("test")
        self.board = Board()
        self.names = [one.name for one in targets]

    async def __aenter__(self) -> "Room":
        await self.bench.open(self.names)
        context = Context(self.bench.store, self.sender, self.metrics, self.clock, Random(1))
        self.scheduler = Scheduler(self.targets, context, self.board)
        self.task = asyncio.create_task(self.scheduler.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.scheduler.drain(0.0)
        async with asyncio.timeout(10):
            await self.task
        await self.bench.store.close()

    async def add(self, *events: Any, to: list[str] | None = None) -> None:
        await self.bench.add(*events, targets=to or self.names, now_ms=SystemClock().wall_ms())

    async def until_empty(self, name: str) -> None:
        async def empty() -> bool:
            return not (await self.bench.store.backlog())[name].pending

        await until(empty)

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value("houdini_relay_" + name, labels) or 0.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


async def test_an_order_arrives_in_order_and_orders_run_side_by_side(path: Path):
    async with Room(path, target("alpha")) as room:
        await room.add(*(event(f"o{order}", status=0, sequence=n) for n in range(1, 6) for order in range(4)))
        await room.until_empty("alpha")
        for order in range(4):
            ids = [sent for _, sent, _ in room.sender.sent if sent.startswith(f"evt_o{order}_")]
            assert ids == [f"evt_o{order}_{n}" for n in range(1, 6)]
    assert 1 < room.sender.most["http://alpha.test/"] <= 4
    assert room.metric("deliveries_total", target="alpha", status="delivered") == 20
    assert room.metric("attempts_total", target="alpha", outcome="ok") == 20


async def test_a_failing_receiver_gets_everything_afterwards_in_order(path: Path):
    async with Room(
        path, target("alpha", retry=SimpleNamespace(schedule=(0.01,) * 50, jitter=0.2, retry_after_max=1))
    ) as room:
        failing = True

        async def flaky(_request: PostRequest) -> Attempt:
            return answer(500 if failing else 200)

        room.sender.answers["http://alpha.test/"] = flaky
        await room.add(*(event("o1", status=0, sequence=n) for n in range(1, 4)))
        await room.sender.until_sent(4)
        assert {sent for _, sent, _ in room.sender.sent} == {"evt_o1_1"}
        assert room.board.targets["alpha"].last_error == "status 500"
        failing = False
        await room.until_empty("alpha")
        first_seen = list(dict.fromkeys(sent for _, sent, _ in room.sender.sent))
        assert first_seen == ["evt_o1_1", "evt_o1_2", "evt_o1_3"]
        attempts = [attempt for _, sent, attempt in room.sender.sent if sent == "evt_o1_1"]
        assert attempts == list(range(1, len(attempts) + 1))
        assert room.board.targets["alpha"].last_error is None


async def test_beyond_the_schedule_a_delivery_is_dead_and_the_lane_goes_on(path: Path):
    async with Room(path, target("alpha")) as room:

        async def refuse_first(request: PostRequest) -> Attempt:
            return answer(500 if request.headers["webhook-id"] == "evt_o1_1" else 200)

        room.sender.answers["http://alpha.test/"] = refuse_first
        await room.add(event("o1", sequence=1), event("o1", sequence=2))
        await room.until_empty("alpha")
        assert [sent for _, sent, _ in room.sender.sent] == ["evt_o1_1"] * 3 + ["evt_o1_2"]
        assert room.metric("deliveries_total", target="alpha", status="dead") == 1


async def test_one_that_never_answers_does_not_delay_its_neighbour(path: Path):
    """Failure modes 93 and 102: slots belong to targets."""
    async with Room(path, target("stuck"), target("alpha")) as room:
        never = asyncio.Event()

        async def hang(_request: PostRequest) -> Attempt:
            await never.wait()
            return answer(200)

        room.sender.answers["http://stuck.test/"] = hang
        await room.add(*(event(f"o{n}") for n in range(50)))
        await room.until_empty("alpha")
        assert room.sender.on_wire["http://stuck.test/"] == 4
        assert (await room.bench.store.backlog())["stuck"].pending == 50
        assert room.board.targets["stuck"].in_flight == 4


async def test_410_parks_the_target_and_keeps_everything(path: Path):
    """Failure mode 98."""
    async with Room(path, target("alpha", concurrency=1), target("beta")) as room:

        async def gone(_request: PostRequest) -> Attempt:
            return answer(410)

        room.sender.answers["http://alpha.test/"] = gone
        await room.add(*(event(f"o{n}") for n in range(20)))
        await room.until_empty("beta")
        backlog = (await room.bench.store.backlog())["alpha"]
        assert (backlog.stopped, backlog.pending) == (True, 20)
        assert [url for url, _, _ in room.sender.sent].count("http://alpha.test/") == 1


async def test_a_drain_lets_attempts_finish_and_claims_nothing_new(path: Path):
    """Failure mode 115."""
    async with Room(path, target("alpha", concurrency=1)) as room:
        go = asyncio.Event()

        async def slow(_request: PostRequest) -> Attempt:
            await go.wait()
            return answer(200)

        room.sender.answers["http://alpha.test/"] = slow
        await room.add(event("o1"), event("o2"))
        await room.sender.until_sent(1)
        draining = asyncio.create_task(room.scheduler.drain(10.0))
        await asyncio.sleep(0)
        go.set()
        assert await draining == 0
        assert len(room.sender.sent) == 1
        assert (await room.bench.store.backlog())["alpha"].pending == 1


async def test_what_the_grace_cuts_off_is_attempted_again_after_a_restart(path: Path):
    async with Room(path, target("alpha")) as room:
        never = asyncio.Event()

        async def hang(_request: PostRequest) -> Attempt:
            await never.wait()
            return answer(200)

        room.sender.answers["http://alpha.test/"] = hang
        await room.add(event("o1"))
        await room.sender.until_sent(1)
        assert await room.scheduler.drain(0.01) == 1
    async with Room(path, target("alpha")) as room:
        await room.until_empty("alpha")
        assert room.sender.sent == [("http://alpha.test/", "evt_o1_1", 1)]


async def test_a_secret_that_cannot_be_read_is_a_failed_attempt(path: Path):
    def unreadable() -> str:
        raise SecretUnreadable("file /gone cannot be read")

    headers = {"x-key": Secret(unreadable, "file /gone")}
    slow_retry = SimpleNamespace(schedule=(3600,), jitter=0.0, retry_after_max=60.0)
    async with Room(path, target("alpha", headers=headers, retry=slow_retry)) as room:
        await room.add(event("o1"))
        await until(lambda: room.board.targets["alpha"].last_error)
        assert room.board.targets["alpha"].last_error == "request: file /gone cannot be read"
        assert room.sender.sent == []


async def test_a_retry_waits_for_its_time(path: Path):
    async with Room(
        path, target("alpha", retry=SimpleNamespace(schedule=(3600,), jitter=0.0, retry_after_max=60))
    ) as room:

        async def fail(_request: PostRequest) -> Attempt:
            return replace(answer(500), at_ms=SystemClock().wall_ms())

        room.sender.answers["http://alpha.test/"] = fail
        await room.add(event("o1"))
        await until(lambda: room.metric("attempts_total", target="alpha", outcome="retry"))
        claim = await room.bench.store.claim("alpha", 1, SystemClock().wall_ms() + 3_590_000)
        assert claim.deliveries == ()
        claim = await room.bench.store.claim("alpha", 1, SystemClock().wall_ms() + 3_610_000)
        assert [one.attempts_made for one in claim.deliveries] == [1]


class StepClock(SystemClock):
    """The system's clocks, with a wall clock that can be set."""

    def __init__(self) -> None:
        self.step_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.step_ms


async def test_a_clock_set_back_does_not_freeze_what_waits(path: Path):
    """Failure mode 132."""
    clock = StepClock()
    waits = SimpleNamespace(schedule=(60.0,), jitter=0.0, retry_after_max=60.0)
    async with Room(path, target("alpha", retry=waits), clock=clock) as room:

        async def fail(_request: PostRequest) -> Attempt:
            return answer(500)

        room.sender.answers["http://alpha.test/"] = fail
        await room.add(event("o1"))
        await until(lambda: room.metric("attempts_total", target="alpha", outcome="retry"))
        clock.step_ms = -3_600_000
        await room.scheduler.look_at_clock()
        early = await room.bench.store.claim("alpha", 1, clock.wall_ms() + 50_000)
        assert early.deliveries == ()
        late = await room.bench.store.claim("alpha", 1, clock.wall_ms() + 61_000)
        assert [one.event.lane for one in late.deliveries] == ["o1"]


async def test_a_due_time_that_only_a_wrong_clock_can_have_written_is_undone_at_start(path: Path):
    async with Room(path, target("alpha", retry=SimpleNamespace(schedule=(1,), jitter=0.0, retry_after_max=9))) as room:
        await room.bench.add(event("o1"), targets=["alpha"], now_ms=SystemClock().wall_ms() + 10**9)
    async with Room(path, target("alpha", retry=SimpleNamespace(schedule=(1,), jitter=0.0, retry_after_max=9))) as room:
        await until(lambda: room.task and not room.task.done())
        claim = await room.bench.store.claim("alpha", 1, SystemClock().wall_ms() + 9_500)
        assert len(claim.deliveries) + len(room.sender.sent) == 1


async def test_a_parked_target_is_sent_to_again_once_a_person_resumes_it(path: Path):
    async with Room(path, target("alpha", concurrency=1)) as room:
        answers = [answer(410), answer(200), answer(200)]

        async def in_turn(_request: PostRequest) -> Attempt:
            return answers.pop(0)

        room.sender.answers["http://alpha.test/"] = in_turn
        await room.add(event("o1"), event("o2"))

        async def parked() -> bool:
            return (await room.bench.store.backlog())["alpha"].stopped

        await until(parked)
        assert await room.scheduler.resume("alpha") is True
        await room.until_empty("alpha")
        assert await room.scheduler.resume("alpha") is False
        assert sorted(sent for _, sent, _ in room.sender.sent) == ["evt_o1_1", "evt_o1_1", "evt_o2_1"]


async def test_a_flapping_target_and_many_deaths_do_not_flood_the_log(path: Path, capsys: pytest.CaptureFixture[str]):
    """Failure mode 131."""
    once = SimpleNamespace(schedule=(0.001,), jitter=0.0, retry_after_max=1.0)
    async with Room(path, target("alpha", retry=once)) as room:
        turn = [0]

        async def by_turns(request: PostRequest) -> Attempt:
            turn[0] += 1
            return answer(200 if request.headers["webhook-id"].startswith("evt_ok") else 500)

        room.sender.answers["http://alpha.test/"] = by_turns
        await room.add(*(event(f"{kind}{number}") for number in range(40) for kind in ("ok", "bad")))
        await room.until_empty("alpha")
        assert room.metric("deliveries_total", target="alpha", status="dead") == 40
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    assert sum("target_failing" in line or "target_answers_again" in line for line in lines) <= 2
    assert sum("delivery_dead" in line for line in lines) == 5
    assert not [line for line in lines if "crashed" in line]
