"""Whatever `status`, an exit code or an alert says, a document says what it means and what to do."""

import ast
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
MONITORING = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
TABLE = OPERATIONS.split("| what it says | meaning | what to do |")[1].split("\n\n")[0].splitlines()
STATUS = (ROOT / "relay" / "admin" / "status.py").read_text(encoding="utf-8")

SENTENCES = {
    "it is stopping": "`relay: it is stopping`",
    "board.store_failure": "`store: ...`",
    "nothing is accepted: ": "`store: nothing is accepted`",
    "the changed file was refused": "`configuration: the changed file was refused`",
    "NOBODY_LEADS": "`upstream: no instance holds the connection`",
    "the credentials are refused": "`upstream: the credentials are refused`",
    "no subscription{cause}": "`upstream: no subscription`",
    "subscribed, but still catching up": "`upstream: subscribed, but still catching up`",
    "REST has not answered for ": "`upstream: REST has not answered for N min`",
    " not believed until REST has been asked": "`upstream: N frames not believed until REST has been asked` (a note)",
    " went backward and REST could not confirm it": "`upstream: N frames went backward and REST could not confirm it`",
    " ended dead and ": "`target NAME: N deliveries ended dead`",
    "parked since ": "`target NAME: parked since ...`",
    "paused by the configuration": "`target NAME: paused by ...`",
    "paused by a person since ": "`target NAME: paused by ...`",
    "throttled until ": "`target NAME: throttled until ...` (a note)",
    "nothing is sent although it could be": "`target NAME: nothing is sent although it could be`",
    "breaker open since ": "`target NAME: breaker open since ...`",
    "the last attempt failed: ": "`target NAME: the last attempt failed`",
    "lagging, ": "`target NAME: lagging`",
    "not configured any more (orphaned)": "`target NAME: not configured any more` (a note)",
    "the gap since ": "`gaps: the gap since ... was longer than what REST remembers` (a note)",
}
"""A piece of the sentence in the code -> the row of the table."""


def found_calls() -> list[ast.Call]:
    """Every place at which `status` says something."""
    calls = [node for node in ast.walk(ast.parse(STATUS)) if isinstance(node, ast.Call)]
    said = re.compile(r"found\.(problem|note)|tell|\(?found\.problem if .+")
    return [call for call in calls if said.fullmatch(ast.unparse(call.func))]


def test_every_sentence_of_status_has_a_row_that_says_what_to_do():
    for piece, row in SENTENCES.items():
        assert piece in STATUS, piece
        (line,) = (line for line in TABLE if line.startswith(f"| {row}"))
        assert len(line.split(" | ")) == 3, line


def test_no_sentence_and_no_row_is_forgotten():
    """Two ways of being paused share one call and one row."""
    assert len(found_calls()) == len(SENTENCES) - 1
    rows = [line.split(" | ")[0].removeprefix("| ") for line in TABLE if line.startswith("| `")]
    assert [row for row in rows if not any(row.startswith(known) for known in SENTENCES.values())] == []


def test_every_alert_has_a_section_that_its_link_leads_to():
    groups = yaml.safe_load((ROOT / "docs" / "monitoring" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    alerts = {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
    sections = dict(re.findall(r"^## (HoudiniRelay\w+)\n\n(.+?)(?=\n## |\Z)", MONITORING, re.MULTILINE | re.DOTALL))
    assert sections.keys() == alerts.keys()
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook"] == f"docs/monitoring.md#{name.lower()}"
        assert len(sections[name].split()) > 15, name
