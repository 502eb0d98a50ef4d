"""The proof of several instances: three on one database under load, and troubles at random, then judged.

Instances are killed, or frozen past their lease, the leader's connections are cut, the database is stopped; their
clocks differ by ten minutes. `make chaos` runs 40 rounds, `make chaos ROUNDS=5` a short form. Exit code 1 if anything
is wrong. It needs PostgreSQL's programs, root and faketime.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from random import Random
from statistics import median

from instance_rounds import Record, cast, play, random_troubles
from stage import Stage
from support.postgres import new_server

from bench.steady import machine
from relay import log


async def run(rounds: int, rate: float, seed: int) -> Record:
    with tempfile.TemporaryDirectory(prefix="houdini-relay-chaos-") as name:
        async with Stage(Path(name), seed=seed) as stage, cast(stage, new_server(())) as instances:
            return await play(instances, random_troubles(rounds, Random(seed)), rate)


def table(record: Record, rate: float, seed: int) -> str:
    verdict, takeovers = record.verdict, record.takeovers or [0.0]
    rows: dict[str, object] = {
        **dict(sorted(record.troubles.items())),
        "terms in which something was ingested": record.epochs,
        "takeover after a crash, median": f"{median(takeovers):.1f} s",
        "takeover after a crash, worst": f"{max(takeovers):.1f} s",
        "updates that had to arrive, at each of two targets": verdict.updates,
        "deliveries acknowledged": verdict.deliveries,
        "repeated under the same id": f"{verdict.repeated} ({verdict.repeated / max(1, verdict.deliveries):.2%})",
        "lost": len(verdict.lost),
        "doubled": len(verdict.doubled),
        "out of order": len(verdict.out_of_order),
        "altered or wrongly signed": len(verdict.altered) + len(verdict.wrongly_signed),
        "faults": len(record.faults),
    }
    head = f"chaos: {record.seconds:.0f} s at {rate:g} updates/s, seed {seed}; {machine()}"
    lines = [head, "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()), ""]
    return "\n".join([*lines, *record.faults, "verdict: " + ("NOT FINE" if record.faults else "fine")])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="how many troubles (default 40)")
    parser.add_argument("--rate", type=float, default=40.0, help="updates per second (default 40)")
    parser.add_argument("--seed", type=int, default=1, help="picks orders and troubles (default 1)")
    given = parser.parse_args()
    log.configure("error", "auto")
    record = asyncio.run(run(given.rounds, given.rate, given.seed))
    print(table(record, given.rate, given.seed))
    sys.exit(1 if record.faults else 0)


if __name__ == "__main__":
    main()
