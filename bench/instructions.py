"""`make instructions`: how many processor instructions a hot function takes, counted by valgrind's callgrind.

Unlike a time the count hardly differs between runs, so `bench/instructions.json` is kept in the repository and a
regression shows in review. It depends on the Python and the libraries: compare counts of one machine only.
"""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

KEPT = Path(__file__).with_name("instructions.json")
COUNTED = ("read a frame", "plan its event", "build the request")
FEW, MANY = 100, 600
"""Calls of two runs, whose difference leaves out what comes before."""


def main() -> None:
    if len(sys.argv) > 1:
        from micro.hot import calls

        call = calls()[sys.argv[1]]
        for _ in range(int(sys.argv[2])):
            call()
        return
    before = json.loads(KEPT.read_text()) if KEPT.exists() else {"calls": {}}
    counts = {name: (_count(name, MANY) - _count(name, FEW)) // (MANY - FEW) for name in COUNTED}
    for name, count in counts.items():
        known = before["calls"].get(name)
        change = "" if known is None else f", {100 * (count - known) / known:+.1f} % against the one that is kept"
        print(f"{name}: {count:,} instructions{change}")
    KEPT.write_text(json.dumps({"python": platform.python_version(), "calls": counts}, indent=2) + "\n")


def _count(name: str, calls: int) -> int:
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [*tool, sys.executable, "-m", "bench.instructions", name, str(calls)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise RuntimeError(f"callgrind said nothing of its count: {done.stderr[-500:]}")
    return int(found[1])


if __name__ == "__main__":
    main()
