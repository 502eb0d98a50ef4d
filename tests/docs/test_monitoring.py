"""Alert rules, their runbook and the dashboard speak of metrics that exist, and do what they say."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from support.needs import require_tool

from relay.metrics import PREFIX, Metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "monitoring"
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
CASES = yaml.safe_load((FOLDER / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))
OF_PROMETHEUS = {"job", "instance"}
OF_PROCESS = {
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_max_fds",
}


def known() -> dict[str, set[str]]:
    """Every series name without the prefix -> its labels."""
    found: dict[str, set[str]] = {name: set() for name in OF_PROCESS}
    for metric in vars(Metrics("test")).values():
        if not isinstance(metric, MetricWrapperBase):
            continue
        labels = set(metric._labelnames)  # nothing public names the labels of a metric without children
        (family,) = metric.describe()
        name = family.name.removeprefix(PREFIX + "_")
        if family.type == "histogram":
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            found[f"{name}_total" if family.type == "counter" else name] = labels
    return found


KNOWN = known()


def assert_known(expression: str) -> set[str]:
    """Only series and labels that there are; returns the labels that its series have."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    labels = set(OF_PROMETHEUS)
    for name, selector in re.findall(rf"{PREFIX}_(\w+)(\{{[^}}]*\}})?", bare):
        assert name in KNOWN, (name, expression)
        assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= KNOWN[name] | OF_PROMETHEUS, expression
        labels |= KNOWN[name]
    for clause in re.findall(r"\b(?:by|without|on|ignoring) \(([^)]*)\)", bare):
        assert {label.strip() for label in clause.split(",")} <= labels, expression
    return labels


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def dashboard_expressions() -> Iterator[str]:
    yield from (target["expr"] for panel in panels() for target in panel["targets"])
    yield from (one["expr"] for one in DASHBOARD["annotations"]["list"])


def promtool(*arguments: str, text: str | None = None, folder: Path = FOLDER) -> str:
    require_tool("promtool")
    done = subprocess.run(["promtool", *arguments], cwd=folder, input=text, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_metrics_document_names_the_labels():
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", text, re.MULTILINE)
    for name, kind, labels in rows:
        series = f"{name}_sum" if kind == "histogram" else name
        assert set(re.findall(r"`(\w+)`", labels)) == KNOWN[series], name
    assert all(f"`{name}`" in text for name in OF_PROCESS)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_says_what_is_wrong_and_what_to_do(alert: dict[str, Any]):
    labels = assert_known(alert["expr"])
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert alert["annotations"]["runbook"] == f"docs/monitoring.md#{alert['alert'].lower()}"
    for text in alert["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels


def test_every_alert_has_a_runbook_section_and_nothing_else_has():
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (HoudiniRelay\w+)\n\n\S", text, re.MULTILINE)
    assert sorted(sections) == sorted(alert["alert"] for alert in ALERTS)


@pytest.mark.parametrize("name", [alert["alert"] for alert in ALERTS])
def test_every_alert_is_tested_before_while_and_after(name: str):
    for case in CASES:
        looks = [name in str(look.get("exp_samples")) for look in case["promql_expr_test"]]
        if looks[0] is False and True in looks and looks[-1] is False:
            return
    pytest.fail(f"{name} has no case in which it begins and ends")


def test_inputs_of_the_cases_are_series_that_there_are():
    for case in CASES:
        for series in case.get("input_series", ()):
            assert_known(series["series"])


def test_rules_are_valid():
    promtool("check", "rules", "alerts.yml")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_rules_fire_and_recover():
    promtool("test", "rules", "alerts_test.yml")


def test_the_dashboard_shows_known_metrics():
    for panel in panels():
        for target in panel["targets"]:
            labels = assert_known(target["expr"])
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels, panel["title"]
    for variable in DASHBOARD["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable.get("definition", ""))
        assert asked is None or asked[2] in assert_known(asked[1])
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} >= {"datasource", "target"}


def test_every_metric_is_alerted_about_or_shown():
    used = " ".join([*dashboard_expressions(), *(alert["expr"] for alert in ALERTS)])
    unused = {name for name in KNOWN if f"{PREFIX}_{name}" not in used}
    assert {name for name in unused if not name.endswith(("_sum", "_count"))} == {"process_virtual_memory_bytes"}


def test_every_panel_explains_itself_and_none_covers_another():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["title"]
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]


def test_the_dashboards_expressions_are_valid(tmp_path: Path):
    rules = []
    for number, expression in enumerate(dashboard_expressions()):
        plain = re.sub(r"\$(job|instance|target)\b", ".*", expression).replace("$__rate_interval", "5m")
        assert "$" not in plain, expression
        rules.append({"record": f"panel:{number}", "expr": plain})
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", "panels.yml", folder=tmp_path)
