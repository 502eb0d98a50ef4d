"""What a test needs of the machine. Missing means skipped; in CI, where REQUIRE_ALL is set, it means failed."""

import os
import shutil
from glob import glob

import pytest


def require_tool(name: str) -> None:
    """A program on the path."""
    if shutil.which(name) is None:
        _missing(f"{name} is not installed")


def require_root() -> None:
    if os.geteuid() != 0:
        _missing("only root can do this")


def require_library(pattern: str) -> str:
    """The path of a library that may lie in one of several folders."""
    found = sorted(glob(pattern))
    if not found:
        _missing(f"no library like {pattern}")
    return found[0]


def _missing(sentence: str) -> None:
    if os.environ.get("REQUIRE_ALL"):
        pytest.fail(sentence)
    pytest.skip(sentence)
