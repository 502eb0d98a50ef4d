"""`make fuzz`: every way in from outside, for SECONDS each, with made-up and damaged input; exit code 1 on a finding.

What must hold is in `tests/fuzz/surfaces.py`; Hypothesis makes the input and shrinks what it finds.
"""

import argparse
import sys
import traceback
from time import monotonic

from fuzz.surfaces import SURFACES, Surface
from hypothesis import HealthCheck, given, seed, settings

EXAMPLES = 500
"""A round: then the next begins with another seed, until the time is up."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("surfaces", nargs="*", metavar="SURFACE", help=f"{', '.join(SURFACES)} (default: all)")
    parser.add_argument("--seconds", type=float, default=600.0, help="for each surface (default 600)")
    parser.add_argument("--seed", type=int, default=1, help="the first round's; the next ones count on (default 1)")
    given = parser.parse_args()
    if unknown := set(given.surfaces) - SURFACES.keys():
        parser.error(f"no such surface: {', '.join(sorted(unknown))}")
    found = [run(SURFACES[name], given.seconds, given.seed) for name in given.surfaces or SURFACES]
    sys.exit(1 if any(found) else 0)


def run(surface: Surface, seconds: float, first_seed: int) -> bool:
    """Fuzz one surface; whether something was found."""
    executed, began, number = 0, monotonic(), first_seed

    def check(given: object) -> None:
        nonlocal executed, began
        if executed == 0:
            began = monotonic()  # making the first input may take seconds
        if executed == 0 or monotonic() - began < seconds:
            executed += 1
            surface.check(given)

    while executed == 0 or monotonic() - began < seconds:
        try:
            _round(surface, check, number)
        except Exception:
            traceback.print_exc()
            _say(surface.name, executed, monotonic() - began, f"a finding in the round with seed {number}")
            return True
        number += 1
    _say(surface.name, executed, monotonic() - began, "nothing found")
    return False


def _round(surface: Surface, check: object, number: int) -> None:
    wanted = settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
    )
    seed(number)(wanted(given(surface.inputs)(check)))()  # type: ignore[operator]  # Hypothesis wraps any function


def _say(*words: object) -> None:
    name, executed, seconds, result = words
    print(f"{name:13} {executed:>9,} executions in {seconds:.0f} s: {result}", flush=True)


if __name__ == "__main__":
    main()
