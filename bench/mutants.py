"""`make mutants`: every small change that cosmic-ray can make to the pure core, and whether a test notices.

Each module is judged by its own unit tests alone, in a copy of the tree, on a draw of its mutants.
`MODULE=delivery/retry` restricts it to one. The survivors are printed with their place and operator; what they mean is
in docs/reliability.md.
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

CORE = {
    "http_date": ("http_date",),
    "standing": ("standing",),
    "delivery/answer": ("sender_reader",),
    "delivery/breaker": ("breaker",),
    "delivery/envelope": ("envelope",),
    "delivery/guard": ("guard",),
    "delivery/pacing": ("pacing",),
    "delivery/request": ("request",),
    "delivery/retry": ("retry",),
    "delivery/routing": ("routing",),
    "delivery/signer": ("signer",),
    "upstream/diff": ("diff", "planner"),
    "upstream/planner": ("planner", "diff"),
    "upstream/protocol": ("protocol",),
    "upstream/splice": ("splice", "protocol"),
    "upstream/subscription": ("subscription",),
    "upstream/throttling": ("throttling",),
}
"""Module below `relay` -> its unit tests. Decisions as functions of values, and nothing else."""
TREE = Path("build/mutants")
TOOL = Path("build/mutants-tools/bin/cosmic-ray").absolute()
TIMEOUT = 30
_JOBS = "SELECT job_id FROM mutation_specs ORDER BY operator_name, occurrence, start_pos_row, start_pos_col, job_id"
_PYTEST = (
    "-m pytest -x -q -p no:cacheprovider -p no:schemathesis -p no:xdist -p no:benchmark -p no:cov -o addopts= "
    "--hypothesis-profile=quick"
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"{', '.join(CORE)} (default: all)")
    parser.add_argument("--each", type=int, default=40, help="mutants of a module that are tried (default 40)")
    parser.add_argument("--paths", action="store_true", help="only print the files, separated by commas")
    given = parser.parse_args()
    if given.paths:
        print(",".join(f"relay/{module}.py" for module in CORE))
        return
    if unknown := set(given.modules) - CORE.keys():
        parser.error(f"no such module: {', '.join(sorted(unknown))}")
    shutil.rmtree(TREE, ignore_errors=True)
    modules = given.modules or list(CORE)
    total = killed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        judged = pool.map(lambda module: judge(module, given.each), modules)
        for module, (made, results) in zip(modules, judged, strict=True):
            lived = [one for one in results if not one["killed"]]
            total, killed = total + len(results), killed + len(results) - len(lived)
            print(f"{module}: {made} mutants, {len(results)} tried, {len(results) - len(lived)} killed", flush=True)
            for one in lived:
                print(f"  {one['place']} {one['operator']} {one['definition']}: {one['change']}", flush=True)
    print(f"all: {killed} of {total} tried are killed, {100 * killed / max(1, total):.1f} %")


def judge(module: str, each: int) -> tuple[int, Sequence[dict[str, Any]]]:
    """Mutate one module and run its tests on at most `each` mutants; how many there are, and what came of these."""
    tests = " ".join(f"tests/unit/test_{name}.py" for name in CORE[module])
    tree = _copied(TREE / module.replace("/", "-"))
    settings = tree / "mutants.toml"
    settings.write_text(
        f'[cosmic-ray]\nmodule-path = "relay/{module}.py"\ntimeout = {TIMEOUT}\nexcluded-modules = []\n'
        f'test-command = "{Path(sys.executable)} {_PYTEST} {tests}"\n[cosmic-ray.distributor]\nname = "local"\n'
    )
    session = "mutants.sqlite"
    subprocess.run([TOOL, "init", settings.name, session], cwd=tree, check=True)
    made = _draw(tree / session, each)
    subprocess.run([TOOL, "exec", settings.name, session], cwd=tree, check=True)
    dumped = subprocess.run([TOOL, "dump", session], cwd=tree, check=True, capture_output=True, text=True).stdout
    return made, [_result(*json.loads(line)) for line in dumped.splitlines()]


def _copied(tree: Path) -> Path:
    """A tree of its own: modules are judged side by side, and each is written over while it is."""
    for part in ("relay", "tests"):
        shutil.copytree(part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "config.example.yaml"):
        shutil.copy(part, tree / part)
    return tree


def _draw(session: Path, each: int) -> int:
    """Leave a draw of the mutants, always the same one, in the tool's database; how many there were."""
    with closing(sqlite3.connect(session)) as connection, connection:
        jobs = [row[0] for row in connection.execute(_JOBS)]
        drawn = set(Random(1).sample(jobs, min(each, len(jobs))))
        for job in set(jobs) - drawn:
            for table in ("mutation_specs", "work_items"):
                connection.execute(f"DELETE FROM {table} WHERE job_id = ?", (job,))  # noqa: S608 - of this file
    return len(jobs)


def _result(work: dict[str, Any], result: dict[str, Any] | None) -> dict[str, Any]:
    mutation = work["mutations"][0]
    changed = [line for line in ((result or {}).get("diff") or "").splitlines()[2:] if line[:1] in "+-"]
    return {
        "killed": result is not None and result["test_outcome"] != "survived",
        "place": f"{mutation['module_path']}:{mutation['start_pos'][0]}",
        "operator": mutation["operator_name"].removeprefix("core/"),
        "definition": mutation.get("definition_name") or "",
        "change": " -> ".join(line[1:].strip() for line in changed if not line.startswith(("---", "+++"))),
    }


if __name__ == "__main__":
    main()
