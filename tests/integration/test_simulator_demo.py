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


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Troubles and patience shorter than people get to see."""
    for name, seconds in {"_OUTAGE_SECONDS": 0.5, "_FAILURE_SECONDS": 0.5, "_SETTLE_SECONDS": 2.0}.items():
        monkeypatch.setattr(demo_module, name, seconds)


def demo(habit: str, **settings: object) -> Demo:
    command = (sys.executable, str(NAIVE_RELAY), habit)
    return Demo(clock=SystemClock(), orders=12, rate=60, seed=4, command=command, **settings)  # type: ignore[arg-type] # passed through


async def verdict_on(habit: str) -> Verdict:
    return await demo(habit, calm=True).run()


async def test_a_good_relay_is_fine_through_all_trouble() -> None:
    arrivals: list[Arrival] = []
    said: list[str] = []
    verdict = await demo("good", on_arrival=arrivals.append, say=said.append).run()
    assert verdict.ok, verdict.lines()
    assert verdict.retries > 0
    assert verdict.backfilled > 0
    assert verdict.deliveries > 50
    assert len(arrivals) >= verdict.deliveries
    assert len([line for line in said if line.startswith("Trouble")]) == 2


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
