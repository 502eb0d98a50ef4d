"""Building the distributions, and the Python versions this machine has."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13")
_ABOUT = "import json, sys, venv, ensurepip; print(json.dumps([list(sys.version_info[:2]), sys.base_prefix]))"


@dataclass(frozen=True)
class Distributions:
    """The two files that are published."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class Interpreter:
    """A Python that can make virtual environments."""

    program: Path
    prefix: Path


def build(source: Path, into: Path, umask: int = 0o022) -> Distributions:
    """Build wheel and source distribution of the project in `source`."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(into)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=60, umask=umask)
    (wheel,) = into.glob("houdini_relay-*.whl")
    (sdist,) = into.glob("houdini_relay-*.tar.gz")
    return Distributions(wheel, sdist)


def interpreter(version: str) -> Interpreter | None:
    """The first Python of that version that runs: on the path, from pyenv, or from uv; None without one."""
    name = f"python{version}"
    home = Path.home()
    candidates = [
        *filter(None, [shutil.which(name)]),
        *sorted(home.glob(f".pyenv/versions/{version}.*/bin/{name}")),
        *sorted(home.glob(f".local/share/uv/python/cpython-{version}.*/bin/{name}")),
    ]
    for program in candidates:
        done = subprocess.run([program, "-c", _ABOUT], capture_output=True, text=True, timeout=20, check=False)
        if done.returncode == 0:
            found, prefix = json.loads(done.stdout)
            if ".".join(map(str, found)) == version:
                return Interpreter(Path(program), Path(prefix))
    return None
