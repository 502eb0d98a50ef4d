"""The crash proof: the real process under load, killed with SIGKILL at random moments, then judged.

`make crash` runs 200 rounds, `make crash ROUNDS=20` a short form. Exit code 1 if anything is wrong.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from random import Random
from statistics import median

from kill_rounds import Record, kill_rounds
from stage import Stage

from bench.steady import machine
from relay import log


async def run(rounds: int, rate: float, longest: float, seed: int) -> Record:
    with tempfile.TemporaryDirectory(prefix="houdini-relay-crash-") as name:
        async with Stage(Path(name), seed=seed) as stage:
            return await kill_rounds(stage, rounds, rate=rate, longest=longest, chance=Random(seed))


def table(record: Record, rate: float, seed: int) -> str:
    verdict = record.verdict
    rows: dict[str, object] = {
        "kills": record.kills,
        "updates that had to arrive": verdict.updates,
        "events in the store at a kill": len(record.committed),
        "of them still to be delivered then": len(record.waiting),
        "deliveries acknowledged": verdict.deliveries,
        "repeated under the same id": verdict.repeated,
        "lost": len(verdict.lost),
        "doubled": len(verdict.doubled),
        "out of order": len(verdict.out_of_order),
        "altered or wrongly signed": len(verdict.altered) + len(verdict.wrongly_signed),
        "other faults": len(record.faults) if verdict.ok else "see below",
        "start to ready, p50": f"{median(record.to_ready):.1f} s",
        "start to ready, max": f"{max(record.to_ready):.1f} s",
        "lives that got ready": len(record.to_ready),
    }
    head = f"crash: {record.seconds:.0f} s at {rate:g} updates/s, seed {seed}; {machine()}"
    lines = [head, "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()), ""]
    return "\n".join([*lines, *record.faults, "verdict: " + ("NOT FINE" if record.faults else "fine")])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="how many kills (default 200)")
    parser.add_argument("--rate", type=float, default=20.0, help="updates per second (default 20)")
    parser.add_argument("--longest", type=float, default=3.0, help="the longest life in seconds, once ready")
    parser.add_argument("--seed", type=int, default=1, help="picks orders and moments (default 1)")
    given = parser.parse_args()
    log.configure("error", "auto")
    record = asyncio.run(run(given.rounds, given.rate, given.longest, given.seed))
    print(table(record, given.rate, given.seed))
    sys.exit(1 if record.faults else 0)


if __name__ == "__main__":
    main()
