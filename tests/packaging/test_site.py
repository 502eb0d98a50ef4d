"""What is published beside the program: the documentation as a site, and the list of what runs."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(300)]


def make(target: str) -> None:
    done = subprocess.run(["make", target], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_document_is_a_page_and_no_link_is_dead():
    """mkdocs is strict: a link or an anchor that leads nowhere, or a page that no menu has, fails."""
    make("docs")
    site = ROOT / "build" / "site"
    pages = {path.stem for path in site.glob("*.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} | {"index", "CHANGELOG", "SECURITY"} <= pages
    foreign = re.compile(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="?https?://')
    assert not [path.name for path in site.rglob("*.html") if foreign.search(path.read_text(encoding="utf-8"))]
    assert (site / "monitoring" / "alerts.yml").read_bytes() == (ROOT / "docs/monitoring/alerts.yml").read_bytes()


def test_it_lists_what_runs_and_nothing_else():
    make("sbom")
    file = ROOT / "build" / "sbom.cdx.json"
    listed = {(one["name"].lower(), one["version"]) for one in json.loads(file.read_text())["components"]}
    pins = (ROOT / "constraints-run.txt").read_text(encoding="utf-8")
    assert listed == set(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", pins, re.MULTILINE))
    first = file.read_bytes()
    make("sbom")
    assert file.read_bytes() == first
