"""`docs/notices.md` names every notice, and every member of `data` that one can have."""

import json
import re
from pathlib import Path

from relay.config.event_types import NOTICE_TYPES
from relay.delivery.notice_facts import Deaths, Disk, Facts, Refusal, Target, Upstream
from relay.delivery.notice_rules import judge
from relay.standing import Breaker, Standing
from relay.store.values import Gap
from relay.upstream.gaps import notice as notice_of_gap

TEXT = (Path(__file__).parents[2] / "docs" / "notices.md").read_text(encoding="utf-8")
NOW = 1_795_330_000_000
HOUR = 3_600_000


def first_column() -> list[str]:
    return re.findall(r"^\| (`[^|]*`) \|", TEXT, re.MULTILINE)


def test_every_notice_has_its_line_and_nothing_else_has():
    found = [cell.strip("`") for cell in first_column() if cell.startswith("`relay.")]
    assert sorted(found) == sorted(NOTICE_TYPES)


def test_every_member_is_explained():
    opened = Standing(breaker=Breaker.OPEN, breaker_changed_ms=NOW - HOUR, last_error="status 500: database is locked")
    parked = Standing(parked_ms=NOW)
    facts = Facts(
        NOW,
        running=HOUR,
        upstream=Upstream(False, NOW - HOUR, 3600.0, NOW, "refused"),
        targets={"a": Target(opened, 1, NOW - HOUR), "b": Target(parked, 1, None)},
        disk=Disk(True, True, 1),
        refusal=Refusal(NOW, ("wrong",)),
        deaths=[Deaths("a", NOW, {"refused": 1}, ("evt_1",))],
    )
    told, still_open = judge(facts, {})
    told += judge(Facts(NOW, HOUR, Upstream(True), {"a": Target(Standing(), 0, None)}), still_open)[0]
    told.append(notice_of_gap(Gap(1, NOW - 50 * HOUR, None, "closed", None, None), NOW))
    members = {name for one in told for name in json.loads(one.body)} - {"what", "since", "advice"}
    explained = {name.strip("` ") for cell in first_column() for name in cell.split(",")}
    assert members == {name for name in explained if not name.startswith("relay.")}
