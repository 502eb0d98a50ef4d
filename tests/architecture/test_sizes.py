"""A person should be able to hold each file in the head."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "relay").rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 300, 50


def test_files_and_functions_are_short():
    for path, text in texts():
        assert len(text.splitlines()) <= LONGEST_FILE, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert (node.end_lineno or 0) - node.lineno + 1 <= LONGEST_FUNCTION, f"{path}: {node.name}"


def test_exceptions_to_the_rules_have_a_reason():
    reason = re.compile(r"#\s*(noqa: [A-Z0-9, ]+|type: ignore\[[\w-]+\])\s+(-|#) \w")
    for path, text in texts():
        for line in text.splitlines():
            assert not re.search(r"#\s*(noqa|type:\s*ignore)", line) or reason.search(line), f"{path}: {line}"


def texts() -> Iterator[tuple[Path, str]]:
    for path in MODULES:
        yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


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
