"""What is told, once, and when it is over: conditions against what is open."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from relay.config import TargetSettings
from relay.config.event_types import NOTICE_TYPES
from relay.delivery.envelope import compose
from relay.delivery.notice_facts import Deaths, Disk, Facts, Refusal, Target, Upstream
from relay.delivery.notice_rules import judge
from relay.delivery.routing import routed
from relay.model import Event, iso_utc
from relay.notice import NoticeType, is_about, make_notice
from relay.standing import Breaker, Standing

NOW = 1_795_330_000_000
MINUTE = 60_000
HEALTHY = Upstream(subscribed=True)
SOON, LATER = NOW + MINUTE, NOW + 60 * MINUTE


def lost(minutes: float, **changes: Any) -> Upstream:
    return Upstream(False, NOW - round(minutes * MINUTE), minutes * 60, **{"error": "no route to host", **changes})


def target(pending: int = 0, oldest: float | None = None, **standing: Any) -> Target:
    return Target(Standing(**standing), pending, None if oldest is None else NOW - round(oldest * MINUTE))


def opened(minutes: float) -> dict[str, Any]:
    since = NOW - round(minutes * MINUTE)
    return {"breaker": Breaker.OPEN, "breaker_changed_ms": since, "last_error": "status 500"}


class Watch:
    """Looks one after the other, each with what the one before left open."""

    def __init__(self) -> None:
        self.open: Mapping[str, int] = {}
        self.at_ms = NOW

    def look(self, running: float = 3600.0, **facts: Any) -> list[str]:
        notices, self.open = judge(Facts(self.at_ms, running, **{"upstream": HEALTHY, **facts}), self.open)
        self.notices = notices
        return [f"{notice.type.removeprefix('relay.')} {notice.lane.removeprefix('relay:')}" for notice in notices]

    @property
    def data(self) -> dict[str, Any]:
        (notice,) = self.notices
        found: dict[str, Any] = json.loads(notice.body)
        return found


def data_of(notice: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(notice.body)
    return found


class TestUpstream:
    def test_it_is_down_after_five_minutes_and_recovers_once(self):
        watch = Watch()
        assert watch.look(upstream=lost(4.9)) == []
        assert watch.look(upstream=lost(5)) == ["upstream.down upstream"]
        assert watch.data["error"] == "no route to host"
        assert watch.data["since"] == iso_utc(NOW - 5 * MINUTE)
        assert watch.look(upstream=lost(6)) == []
        watch.at_ms = SOON
        assert watch.look() == ["upstream.recovered upstream"]
        assert (watch.data["since"], watch.data["until"]) == (iso_utc(NOW - 5 * MINUTE), iso_utc(SOON))
        assert watch.look() == []
        assert watch.open == {}

    def test_who_was_not_down_does_not_recover(self):
        watch = Watch()
        assert [*watch.look(upstream=lost(2)), *watch.look()] == []

    def test_time_when_the_relay_itself_was_stopped_makes_nobody_down(self):
        watch = Watch()
        assert watch.look(upstream=replace(lost(3 * 24 * 60), tried=59)) == []
        assert watch.look(upstream=replace(lost(3 * 24 * 60), tried=60)) == ["upstream.down upstream"]

    def test_refused_credentials_are_told_at_once_and_stay_told_between_tries(self):
        watch = Watch()
        assert watch.look(upstream=lost(0.1, refused_ms=NOW - 5_000)) == ["upstream.auth_failed upstream"]
        assert watch.data["since"] == iso_utc(NOW - 5_000)
        assert watch.look(upstream=lost(0.2)) == []  # connecting again
        assert watch.look(upstream=lost(0.3, refused_ms=NOW)) == []
        assert watch.look(upstream=lost(6, refused_ms=NOW)) == ["upstream.down upstream"]
        assert watch.look() == ["upstream.recovered upstream"]

    def test_while_nothing_is_known_of_it_nothing_changes(self):
        watch = Watch()
        watch.look(upstream=lost(6))
        assert watch.look(upstream=None) == []
        assert watch.look() == ["upstream.recovered upstream"]


class TestTargets:
    def test_a_breaker_that_stays_open_is_told_and_its_closing_too(self):
        watch = Watch()
        assert watch.look(targets={"a": target(3, **opened(4.9))}) == []
        assert watch.look(targets={"a": target(3, **opened(5))}) == ["target.failing a"]
        assert {"target": "a", "pending": 3, "error": "status 500"}.items() <= watch.data.items()
        assert watch.look(targets={"a": target(9, **opened(5))}) == []
        assert watch.look(targets={"a": target()}) == ["target.recovered a"]
        assert watch.look(targets={"a": target()}) == []

    def test_one_that_opened_anew_unseen_is_told_again_and_recovers_once(self):
        watch = Watch()
        watch.look(targets={"a": target(**opened(60))})
        assert watch.look(targets={"a": target(**opened(1))}) == []
        assert watch.look(targets={"a": target(**opened(5))}) == ["target.failing a"]
        assert watch.look(targets={"a": target()}) == ["target.recovered a"]

    def test_a_lag_is_told_once_and_over_only_when_it_is_well_over(self):
        watch = Watch()
        assert watch.look(targets={"a": target(1, 14.9)}) == []
        assert watch.look(targets={"a": target(1, 15)}) == ["target.lagging a"]
        assert watch.data["since"] == iso_utc(NOW - 15 * MINUTE)
        for minutes in (20, 14, 15, 6, 16):
            assert watch.look(targets={"a": target(1, minutes)}) == []
        assert watch.look(targets={"a": target(1, 4.9)}) == ["target.recovered a"]

    def test_one_recovery_for_two_alarms_and_not_before_both_are_over(self):
        watch = Watch()
        assert watch.look(targets={"a": target(1, 20, **opened(20))}) == ["target.failing a", "target.lagging a"]
        assert watch.look(targets={"a": target(1, 20)}) == []
        assert watch.look(targets={"a": target()}) == ["target.recovered a"]
        assert watch.open == {}

    @pytest.mark.parametrize("stopped", [{"paused_ms": NOW}, {"paused_by_config": True}, {"configured": False}])
    def test_a_stopped_one_neither_lags_nor_fails(self, stopped: dict[str, Any]):
        assert Watch().look(targets={"a": target(5, 600, **opened(600), **stopped)}) == []

    def test_a_pause_neither_ends_an_alarm_nor_repeats_it(self):
        watch = Watch()
        watch.look(targets={"a": target(1, 20)})
        assert watch.look(targets={"a": target(1, 20, paused_ms=NOW)}) == []
        assert watch.look(targets={"a": target(1, 20)}) == []
        assert watch.look(targets={"a": target()}) == ["target.recovered a"]

    def test_the_time_of_a_pause_is_no_lag(self):
        watch = Watch()
        assert watch.look(targets={"a": target(1, 600, resumed_ms=NOW - 14 * MINUTE)}) == []
        assert watch.look(targets={"a": target(1, 600, resumed_ms=NOW - 15 * MINUTE)}) == ["target.lagging a"]

    def test_a_relay_that_has_just_started_gives_them_a_minute(self):
        watch = Watch()
        behind = {"a": target(1, 600, **opened(600))}
        assert watch.look(running=59, targets=behind) == []
        assert watch.look(running=60, targets=behind) == ["target.failing a", "target.lagging a"]

    def test_parked_is_told_at_once_each_time_and_ends_in_silence(self):
        watch = Watch()
        assert watch.look(running=0, targets={"a": target(7, parked_ms=NOW)}) == ["target.parked a"]
        assert watch.data["advice"].endswith("houdini-relay targets resume a")
        assert watch.look(targets={"a": target(7, parked_ms=NOW)}) == []
        assert watch.look(targets={"a": target(7, parked_ms=NOW + 1)}) == ["target.parked a"]
        assert watch.look(targets={"a": target()}) == []
        assert watch.open == {}

    def test_who_left_the_configuration_is_forgotten(self):
        watch = Watch()
        watch.look(targets={"a": target(1, 20), "b": target(1, 20)})
        assert watch.look(targets={"a": target(1, 20, configured=False)}) == []
        assert watch.open == {}


class TestTheRest:
    def test_a_disk_is_told_of_when_low_and_again_when_full_but_not_on_its_way_back(self):
        watch = Watch()
        low, full = Disk(True, False, 900 << 20), Disk(True, True, 200 << 20)
        assert watch.look(disk=low) == ["store.disk_low store"]
        assert watch.data["freeMib"] == 900
        watch.at_ms += 1
        assert [watch.look(disk=low), watch.look(disk=full), watch.look(disk=full)] == [
            [],
            ["store.disk_low store"],
            [],
        ]
        assert [watch.look(disk=low), watch.look(), watch.open] == [[], [], {}]
        assert [watch.look(disk=full), watch.look(disk=low)] == [["store.disk_low store"], []]

    def test_a_refused_configuration_is_told_once_for_what_is_wrong_with_it(self):
        watch = Watch()
        assert watch.look(refusal=Refusal(NOW, ("a: wrong",))) == ["config.refused config"]
        assert watch.data["problems"] == ["a: wrong"]
        assert watch.look(refusal=Refusal(SOON, ("a: wrong",))) == []  # the same file once more
        assert watch.look(refusal=Refusal(LATER, ("b: wrong",))) == ["config.refused config"]
        assert [watch.look(), watch.open] == [[], {}]

    def test_deaths_are_counted_by_reason(self):
        watch = Watch()
        deaths = Deaths("a", NOW, {"exhausted": 3, "refused": 2}, ("evt_1", "evt_2"))
        assert watch.look(deaths=[deaths]) == ["delivery.dead a"]
        said = watch.data
        assert said["reasons"] == {"exhausted": 3, "refused": 2}
        assert (said["count"], said["first"]) == (5, ["evt_1", "evt_2"])
        assert said["what"] == "5 changes of orders were given up undelivered at a (3 exhausted, 2 refused)"
        assert watch.open == {}


def every_notice() -> list[Event]:
    watch, found = Watch(), []
    trouble = {
        "upstream": lost(6, refused_ms=NOW),
        "targets": {
            "orders-backend": target(12, 20, **opened(6)), "billing": target(3, parked_ms=NOW, last_error="status 410")
        },
        "disk": Disk(True, True, 200 << 20),
        "refusal": Refusal(NOW, ("config.yaml:12:5: targets[0].url: a URL begins with https://",)),
        "deaths": [Deaths("orders-backend", NOW, {"refused": 1}, ("evt_1",))],
    }  # fmt: skip
    for facts in (trouble, {"targets": {"orders-backend": target()}}):
        watch.look(**facts)
        found += watch.notices
    return found


@pytest.mark.parametrize("format", ["standard", "raw", "cloudevents", "slack"])
def test_every_notice_makes_sense_in_every_format(format: str):
    told = every_notice()
    assert {one.type for one in told} == set(NOTICE_TYPES) - {NoticeType.TEST, NoticeType.GAP_EXCEEDS_WINDOW}
    for one in told:
        body = json.loads(compose(one, format, "partner-1"))
        said = data_of(one)
        assert said["what"]
        assert said["since"]
        assert said["advice"]
        if format == "slack":
            assert body["text"].startswith(f"*{one.type}*")
            assert said["what"] in body["text"]
            assert said["advice"] in body["text"]
            continue
        assert body["data"] == said
        assert "relay" not in body
        assert body["type"].removeprefix("com.houdiniswap.") == one.type
        if format == "cloudevents":
            assert (body["id"], "relay:" + body["subject"]) == (one.webhook_id, one.lane)


def test_the_id_follows_from_type_subject_and_since():
    def id_of(kind: NoticeType = NoticeType.DOWN, subject: str = "a", since: int = 1, at: int = 2) -> str:
        return make_notice(kind, subject, since, at, "what", "advice", {}).webhook_id

    assert id_of() == id_of(at=3)
    assert len({id_of(), id_of(NoticeType.FAILING), id_of(subject="b"), id_of(since=2)}) == 4


def test_what_others_say_is_cut_and_never_breaks_the_body():
    strange = "\ud800\x1b" * 5_000
    facts = {"error": strange, "problems": [strange], "gone": None}
    one = make_notice(NoticeType.DOWN, "a", 1, 2, "what", "advice", facts)
    assert len(one.body) < 6_000
    assert "gone" not in data_of(one)
    assert "\x1b" not in json.loads(compose(one, "slack", "p"))["text"]


def test_nobody_is_told_about_itself():
    values = {"url": "https://x.example.com/", "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]}
    targets = [TargetSettings.model_validate({"name": n, "events": ["relay.*"], **values}) for n in ("a", "upstream")]
    for one in NOTICE_TYPES:
        notice = make_notice(NoticeType(one), "a", 1, 2, "what", "advice", {})
        about_a = one.startswith(("relay.target.", "relay.delivery."))
        assert routed(targets, notice) == (("upstream",) if about_a else ("a", "upstream"))
        assert is_about(notice, "a") is about_a
    down = make_notice(NoticeType.DOWN, "upstream", 1, 2, "what", "advice", {})
    assert routed(targets, down) == ("a", "upstream")  # a target may be called so
