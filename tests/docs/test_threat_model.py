"""docs/threat-model.md names tests that exist, and leaves no letter and no boundary out."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("path", "name"), sorted(set(re.findall(r"`(\w+/\w+\.py)::(\w+)`", TEXT))))
def test_every_named_test_exists(path: str, name: str):
    source = (ROOT / "tests" / path).read_text(encoding="utf-8")
    assert re.search(rf"^(async def|def|class) {name}\(", source, re.MULTILINE)


def test_every_threat_has_its_letter_and_a_test():
    rows = re.findall(r"^\| ([A-Z]) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", TEXT, re.MULTILINE)
    assert len(rows) > 30
    assert {letter for letter, *_ in rows} == set("STRIDE")
    assert all("::" in proof for *_, proof in rows)


def test_every_boundary_is_there():
    headings = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    expected = ["Upstream", "Configuration and secrets", "Store", "Targets", "Admin server", "Supply chain"]
    assert headings == [*expected, "What is left"]
