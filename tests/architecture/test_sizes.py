"""A person should be able to hold each file in the head."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "relay").rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 300, 50


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno + 1 <= LONGEST_FUNCTION, node.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_exceptions_to_the_rules_have_a_reason(path: Path):
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.search(r"#\s*(noqa|type:\s*ignore)", line):
            assert re.search(r"#\s*(noqa: [A-Z0-9, ]+|type: ignore\[[\w-]+\])\s+(-|#) \w", line), line


def test_every_room_of_the_map_is_in_the_architecture_document():
    document = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in MODULES:
        if path.name.startswith("__") or path.parent.name in ("simulator", "cli", "config", "relay"):
            continue
        if path.parent.name == "store" and path.name in ("rows.py", "migrate.py", "lock.py"):
            continue
        if path.parent.name == "store" and path.name.startswith("postgres") and "`store/postgres*.py`" in document:
            continue
        assert path.name in document or f"`{path.parent.name}/`" in document, path.name
