"""What the packaging tests share: the two distributions and one Debian tree, made once per run."""

import fcntl
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from build_kit import Distributions, build
from support.needs import missing, require_root, require_tool

ROOT = Path(__file__).parents[2]
IN_THE_TREE = ("systemd", "systemd-sysv", "dbus", "procps", "python3", "python3-venv", "make")


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def source(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a stranger has unpacked: the source distribution, and none of this work tree's other files."""
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(distributions.sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return unpacked


@pytest.fixture(scope="session")
def debian_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar file of a small Debian with systemd and Python, of this machine's release."""
    require_root()
    require_tool("mmdebstrap")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    tree = shared / "debian.tar"
    with _only_one_process(shared / "debian.lock"):
        if not tree.exists():
            _make_debian(tree)
    return tree


@contextmanager
def _only_one_process(lock: Path) -> Iterator[None]:
    """Several pytest workers want the tree; the first makes it, the others wait."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _make_debian(tree: Path) -> None:
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines() if "=" in line
    )
    suite = release.get("VERSION_CODENAME", "stable").strip('"')
    partial = tree.with_suffix(".part.tar")
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(IN_THE_TREE)}", suite, str(partial)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    if done.returncode != 0:
        missing(f"no Debian tree could be made (root, network?): {done.stderr.strip()[-400:]}")
    partial.rename(tree)
