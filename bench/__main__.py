"""`make bench`: run every case and print its figures. `python -m bench isolation backlog` runs these two."""

import argparse
import asyncio
from collections.abc import Callable

from bench import backlog, growth, idle, isolation, postgres, steady, throughput
from bench.apparatus import machine


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help="steady, throughput, isolation, backlog, growth, idle, postgres (default: all)",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the steady case (default 60)")
    parser.add_argument("--rate", type=float, default=200.0, help="its updates per second (default 200)")
    parser.add_argument("--updates", type=int, default=20_000, help="a round of the throughput case (default 20,000)")
    parser.add_argument("--rounds", type=int, default=5, help="its rounds (default 5)")
    parser.add_argument("--queued", type=int, default=1_000_000, help="deliveries of the backlog case (default 10^6)")
    given = parser.parse_args()
    cases: dict[str, Callable[[], str]] = {
        "steady": lambda: asyncio.run(steady.run(given.rate, given.seconds)),
        "throughput": lambda: asyncio.run(throughput.run(given.updates, given.rounds)),
        "isolation": lambda: asyncio.run(isolation.run()),
        "backlog": lambda: asyncio.run(backlog.run(given.queued)),
        "growth": lambda: asyncio.run(growth.run()),
        "idle": lambda: asyncio.run(idle.run()),
        "postgres": lambda: asyncio.run(postgres.run(postgres.CASES, postgres.QUEUED)),
    }
    if unknown := set(given.cases) - cases.keys():
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    print(machine())
    for name in given.cases or cases:
        print(cases[name](), flush=True)


if __name__ == "__main__":
    main()
