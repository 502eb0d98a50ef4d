"""The demo finds a good relay fine and finds out a bad one, each as a real child process."""

import asyncio
import sys
from pathlib import Path

import pytest

from relay.clock import SystemClock
from relay.simulator import demo as demo_module
from relay.simulator.demo import Demo
from relay.simulator.receiver import Arrival
from relay.simulator.verdict import Verdict

NAIVE_RELAY = Path(__file__).with_name("naive_relay.py")


BRIEF = {"_OUTAGE_SECONDS": 0.5, "_FAILURE_SECONDS": 0.5, "_KILL_AFTER_SECONDS": 0.2, "_SETTLE_SECONDS": 2.0}


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Troubles and patience shorter than people get to see."""
    for name, seconds in BRIEF.items():
        monkeypatch.setattr(demo_module, name, seconds)


def demo(habit: str, **settings: object) -> Demo:
    command = (sys.executable, str(NAIVE_RELAY), habit)
    return Demo(clock=SystemClock(), orders=12, rate=60, seed=4, command=command, **settings)  # type: ignore[arg-type] # passed through


async def verdict_on(habit: str) -> Verdict:
    return await demo(habit, calm=True).run()


async def test_this_relay_is_fine_through_all_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"_SETTLE_SECONDS": 20.0, "_FAILURE_SECONDS": 2.0, "_KILL_AFTER_SECONDS": 1.0}.items():
        monkeypatch.setattr(demo_module, name, seconds)
    arrivals: list[Arrival] = []
    said: list[str] = []
    play = Demo(clock=SystemClock(), orders=24, rate=30, seed=4, on_arrival=arrivals.append, say=said.append)
    verdict = await play.run()
    assert verdict.ok, verdict.lines()
    assert verdict.retries > 0
    assert verdict.backfilled > 0
    assert verdict.deliveries > 50
    assert len(arrivals) >= verdict.deliveries
    assert len([line for line in said if line.startswith("Trouble")]) == 3


async def test_a_simple_relay_is_fine_without_trouble() -> None:
    assert (await verdict_on("good")).ok


async def test_a_relay_that_remembers_nothing_is_found_out_by_the_kill() -> None:
    verdict = await demo("good").run()
    assert verdict.out_of_order or verdict.lost, verdict.lines()


@pytest.mark.parametrize(
    ("habit", "fault"),
    [("forgets", "lost"), ("doubles", "doubled"), ("forges", "wrongly_signed"), ("tidies", "altered")],
)
async def test_a_bad_relay_is_found_out(habit: str, fault: str) -> None:
    verdict = await verdict_on(habit)
    assert not verdict.ok
    assert getattr(verdict, fault), verdict.lines()


async def test_a_relay_that_dies_ends_the_demo_at_once() -> None:
    verdict = await verdict_on("dies")
    assert any("ended by itself with exit code 7" in reason for reason in verdict.unfinished)


async def test_the_exit_code_is_part_of_the_verdict() -> None:
    verdict = await verdict_on("stubborn")
    assert verdict.unfinished == ["the relay's exit code was 5"]


async def test_it_keeps_running_until_told_to_stop() -> None:
    up = asyncio.Event()
    kept = demo("good", calm=True, keep_running=True, say=lambda line: up.set() if "stays up" in line else None)
    running = asyncio.create_task(kept.run())
    async with asyncio.timeout(20):
        await up.wait()
        assert not running.done()
        kept.stop_requested.set()
        assert (await running).ok
