"""docs/reliability.md names tests that exist, and leaves no failure mode of its groups out."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
SUBSCRIPTION, BACKFILL, PERSISTENCE = range(38, 46), range(55, 73), range(73, 92)


def test_every_failure_mode_of_the_groups_has_a_row():
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)]
    assert set(numbers) >= {*SUBSCRIPTION, *BACKFILL, *PERSISTENCE}
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(("path", "name"), sorted(set(re.findall(r"`(\w+/\w+\.py)::(\w+)`", TEXT))))
def test_every_named_test_exists(path: str, name: str):
    source = (ROOT / "tests" / path).read_text(encoding="utf-8")
    assert re.search(rf"^(async def|def|class) {name}\(", source, re.MULTILINE)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:tests|relay)/[\w/]+\.py)`", TEXT))))
def test_every_named_file_exists(path: str):
    assert (ROOT / path).exists()


def test_every_named_target_of_make_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`make (\w+)", TEXT)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
