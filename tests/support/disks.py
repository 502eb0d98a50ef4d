"""Disks that are small, full or failing, made by the real kernel or by a preloaded shim."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("faultdisk.c")


def cannot(reason: str) -> None:
    """Skip with the reason; where REQUIRE_ALL is set that is a failure."""
    if os.environ.get("REQUIRE_ALL"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of this size."""
    if os.geteuid() != 0:
        cannot("only root can mount a small disk")
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False)
    if made.returncode != 0:
        cannot("a tmpfs cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def build_shim(folder: Path) -> Path:
    """Compile the failing disk."""
    compiler = shutil.which("cc")
    if compiler is None:
        cannot("cc is not installed")
    built = folder / "faultdisk.so"
    subprocess.run(
        [str(compiler), "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", built, SOURCE, "-ldl"], check=True
    )
    return built


def failing(shim: Path, calls: str, at: int, match: str = "relay.db", when: Path | None = None) -> Mapping[str, str]:
    """Environment in which the `at`-th matching call fails with EIO."""
    found = {"LD_PRELOAD": str(shim), "FAULT_CALLS": calls, "FAULT_AT": str(at), "FAULT_MATCH": match}
    return found if when is None else found | {"FAULT_WHEN": str(when)}
