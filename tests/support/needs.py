"""What a test needs of the machine. Missing means skipped; in CI, where REQUIRE_ALL is set, it means failed."""

import os
import shutil
from glob import glob
from importlib.util import find_spec

import pytest


def require_tool(name: str) -> None:
    """A program on the path."""
    if shutil.which(name) is None:
        missing(f"{name} is not installed")


def require_root() -> None:
    if os.geteuid() != 0:
        missing("only root can do this")


def require_library(pattern: str) -> str:
    """The path of a library that may lie in one of several folders."""
    found = sorted(glob(pattern))
    if not found:
        missing(f"no library like {pattern}")
    return found[0]


def require_module(name: str) -> None:
    """A package of the `dev` extra that not every machine can have."""
    if find_spec(name) is None:
        missing(f"the package {name} is not installed")


def missing(sentence: str) -> None:
    """Skip with this reason; in CI fail with it."""
    if os.environ.get("REQUIRE_ALL"):
        pytest.fail(sentence)
    pytest.skip(sentence, allow_module_level=True)
