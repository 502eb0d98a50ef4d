"""What pages are made of: JSON on several lines, the bars of an hour, the verdict, who is signed in."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.admin.pages import back_from, own_path
from relay.admin.pretty import DEEPEST, indented
from relay.admin.sessions import LIFETIME, MOST_SESSIONS, Sessions
from relay.admin.sparkline import HEIGHT, bars
from relay.admin.wording import Verdict, duration, verdict

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.sampled_from([None, (",", ":"), (" , ", " :  ")]))
def test_indenting_changes_spaces_only(value: Any, separators: tuple[str, str] | None):
    text = json.dumps(value, ensure_ascii=False, separators=separators)
    assert indented(text, 1 << 30) == json.dumps(value, ensure_ascii=False, indent=2)


@pytest.mark.parametrize(
    "text", ["1.10", "1E5", "-0.0", "0.37271038265600004", '"\\u00e9\\/"', "100000000000000000001"]
)
def test_values_stay_as_they_came(text: str):
    assert indented(f'{{"a":{text}}}', 1000) == f'{{\n  "a": {text}\n}}'


def test_hostile_nesting_stays_small():
    deep = indented("[" * 50_000 + "]" * 50_000, 1 << 30)
    assert len(deep) < 101_000
    assert deep.count("\n") == 2 * DEEPEST
    assert json.loads(indented('{"a":' * 500 + "1" + "}" * 500, 1 << 30))


def test_what_is_too_long_is_cut():
    text = indented(json.dumps(list(range(10_000))), 1000)
    assert len(text) == 1002
    assert text.endswith("\n…")


def hour(delivered: dict[int, int], failed: dict[int, int]) -> dict[str, Any]:
    return {"delivered": [delivered.get(n, 0) for n in range(60)], "failed": [failed.get(n, 0) for n in range(60)]}


def test_bars_stand_on_one_another_and_stay_inside():
    assert bars(hour({}, {})) == []
    found = bars(hour({0: 1000, 59: 10_000}, {59: 1, 30: 5000}))
    assert [(bar.x, bar.kind) for bar in found] == [
        (0, "delivered"),
        (120, "failed"),
        (236, "delivered"),
        (236, "failed"),
    ]
    assert all(bar.y >= 0 and bar.y + bar.height <= HEIGHT for bar in found)
    assert found[3].y + found[3].height == pytest.approx(found[2].y)
    assert found[3].height >= 2, "one failure beside ten thousand is seen"


def status(**changes: Any) -> dict[str, Any]:
    target = {"state": "active", "pending": 0, "dead": 0, **changes.pop("target", {})}
    upstream = {"state": "subscribed", "in_sync": True, "why_not_in_sync": None, **changes.pop("upstream", {})}
    return {"problems": [], "notes": [], "targets": [target], "upstream": upstream, **changes}


def test_only_when_everything_is_delivered_it_says_so():
    assert verdict(status()).title == "Everything is delivered"
    assert verdict(status()).tone == "good"
    for other in (
        status(target={"pending": 1}),
        status(target={"dead": 1}),
        status(upstream={"state": "waiting", "in_sync": False, "why_not_in_sync": "no subscription"}),
        status(problems=[{}]),
        status(targets=[]),
        status(target={"state": "orphaned"}),
    ):
        assert "delivered" not in verdict(other).title
        assert verdict(other).tone != "good"


def test_verdicts():
    assert verdict(status(problems=[{}, {}], target={"pending": 1})) == Verdict(
        "bad", "2 things need attention", "1 delivery waiting: kept, and not lost."
    )
    assert verdict(status(target={"pending": 7})).sentence == "7 deliveries waiting, and on the way."
    assert "3 deliveries ended dead" in verdict(status(target={"dead": 3})).sentence


@pytest.mark.parametrize(
    ("ms", "text"),
    [(None, "\u2013"), (0.44, "0.4 ms"), (23.4, "23 ms"), (999.4, "999 ms"), (1234, "1.2 s"), (125_000, "2 min 5 s")],
)
def test_durations(ms: float | None, text: str):
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("path", "back"),
    [
        ("/targets/shop/pause", "/targets/shop"),
        ("/deliveries/7/retry", "/deliveries/7"),
        ("/targets/a b/pause", "/targets/a%20b"),
        ("/targets//x/y", "/"),
        ("//evil/x/y", "/"),
        ("/orders/x", "/"),
        ("/", "/"),
    ],
)
def test_the_page_that_a_path_belongs_to(path: str, back: str):
    assert back_from(path) == back


@pytest.mark.parametrize(
    "text", ["//x", "/\\x", "x", "", "https://x/", "/a\nb", "/\u00e9", "/" + "x" * 3000, "\t/x", "/x y"]
)
def test_only_paths_of_our_own_are_followed(text: str):
    assert own_path(text) == "/"
    assert own_path("/deliveries?status=dead&order=a%2Fb") == "/deliveries?status=dead&order=a%2Fb"


def test_sessions():
    sessions = Sessions()
    one, two = sessions.sign_in("token", 0), sessions.sign_in("token", 0)
    assert one != two
    assert sessions.is_signed_in(one, "token", LIFETIME - 1)
    assert not sessions.is_signed_in(one, "token", LIFETIME)
    assert not sessions.is_signed_in(one, "other", 1)
    assert not sessions.is_signed_in(sessions.new_id(), "token", 1)
    sessions.sign_out(one)
    sessions.sign_out("never seen")
    assert not sessions.is_signed_in(one, "token", 1)
    assert sessions.is_signed_in(two, "token", 1)


def test_sessions_are_bounded_and_the_oldest_ends():
    sessions = Sessions()
    ids = [sessions.sign_in("token", 0) for _ in range(MOST_SESSIONS + 5)]
    assert [sessions.is_signed_in(one, "token", 1) for one in ids] == [False] * 5 + [True] * MOST_SESSIONS
    assert not any(one in repr(vars(sessions)) for one in ids), "ids are not kept, only digests of them"


def test_a_form_fits_one_browser_of_one_process():
    sessions = Sessions()
    one, two = sessions.new_id(), sessions.new_id()
    assert sessions.fits(one, sessions.form_secret(one))
    assert not sessions.fits(two, sessions.form_secret(one))
    assert not sessions.fits(one, "")
    assert not sessions.fits(one, "\ud800")
    assert not Sessions().fits(one, sessions.form_secret(one))
