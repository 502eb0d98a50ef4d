"""A relay that has nothing to do: memory, processor time and wake-ups per second."""

import asyncio
from pathlib import Path

from bench.apparatus import peer, relay, target

SETTLE_S = 70.0
"""Until the trailing sweep of the first minute is over."""


async def run(seconds: float = 30.0, settle: float = SETTLE_S) -> str:
    async with peer() as other, relay(other, [target("one", other.sinks["ok"])]) as one:
        await other.play("before", 20)
        await asyncio.sleep(settle)
        process = one.process
        cpu, switches = process.cpu_times(), _voluntary(process.pid)
        await asyncio.sleep(seconds)
        spent = sum(process.cpu_times()[:2]) - sum(cpu[:2])
        woken = _voluntary(process.pid) - switches
        memory = process.memory_info().rss
    return (
        f"idle for {seconds:.0f} s: {memory / 2**20:.0f} MiB, {100 * spent / seconds:.2f} % of a core, "
        f"{woken / seconds:.1f} wake-ups/s"
    )


def _voluntary(pid: int) -> int:
    """How often the process's threads have gone to sleep so far."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        line = next(line for line in status.read_text().splitlines() if line.startswith("voluntary_ctxt"))
        total += int(line.split()[1])
    return total
