"""Every log line has a name of `relay.log_names`, and `docs/logs.md` says of each how loud it is and what it means."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from relay.log_names import Log

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
MODULES = sorted((ROOT / "relay").rglob("*.py"))
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
LOGGERS = ("log", "_log", "structlog.get_logger()")


def calls(text: str) -> Iterator[tuple[ast.expr, str | None, int]]:
    """Each log call of a module: what is said, how loud (None: it depends), where."""
    if "import structlog" not in text:  # whatever `log` is there, it is no logger
        return
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if ast.unparse(node.func.value) not in LOGGERS:
            continue
        if node.func.attr == "log":
            yield node.args[1], None, node.lineno
        elif node.func.attr not in ("configure", "redact", "clean", "register_secrets"):
            yield node.args[0], LEVELS[node.func.attr], node.lineno


@cache
def used() -> dict[str, set[str | None]]:
    found: dict[str, set[str | None]] = defaultdict(set)
    for path in MODULES:
        for said, level, _line in calls(path.read_text(encoding="utf-8")):
            found[ast.unparse(said).removeprefix("Log.")].add(level)
    return found


@cache
def documented() -> dict[str, tuple[str, str, str]]:
    """name -> level, meaning, what to do."""
    rows = re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \| ([^|]+) \| ([^|]*) ?\|$", DOCUMENT, re.MULTILINE)
    assert len({name for name, *_ in rows}) == len(rows), "a name is documented twice"
    return {name: (level, meaning.strip(), do.strip()) for name, level, meaning, do in rows}


def test_every_line_has_a_name_that_is_a_constant():
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        for said, _level, line in calls(text):
            where = f"{path.relative_to(ROOT)}, line {line}: {ast.unparse(said)}"
            assert re.fullmatch(r"Log\.[A-Z_]+", ast.unparse(said)), where
            assert ast.unparse(said).removeprefix("Log.") in Log.__members__, where
        # What is not called by one of these names would not be looked at above.
        loggers = re.findall(r"^(.*)structlog\.get_logger\(\)(.*)$", text, re.MULTILINE)
        assert all(before in ("log = ", "_log = ") or after.startswith(".") for before, after in loggers), path
        assert not re.search(r"getattr\(_?log", text), path


def test_every_name_is_used_and_called_as_it_is_written():
    assert used().keys() == Log.__members__.keys()
    assert all(one.value == one.name.lower() for one in Log)


def test_the_document_has_every_name_and_nothing_else():
    assert documented().keys() == {one.value for one in Log}


def test_the_document_says_how_loud_and_what_it_means():
    for name in Log:
        level, meaning, do = documented()[name]
        assert meaning == name.meaning
        levels, known = set(level.split(", ")), used()[name.name]
        assert levels <= set(LEVELS), name
        if None in known:  # the level depends on what has happened: the document names all there are
            assert len(levels) > 1, name
            assert known - {None} <= levels, name
        else:
            assert levels == known, name
        assert do or "error" not in levels, f"{name}: an error is what somebody has to act on"
