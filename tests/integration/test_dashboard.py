"""The dashboard's pages show what the API says; what strangers wrote stays text; forms do what the API does."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from admin_kit import KEY_IN_URL, TOKEN, WEBHOOK_SECRET, AdminRoom, served, target
from browser_kit import Browser, Shown
from msgspec.structs import replace
from support.factories import event
from support.stores import again, dead, delivered

from relay import log
from relay.board import UpstreamState
from relay.model import Attempt, DeadReason, DeliveryStatus, FailureKind, OrderFacts, Origin, Outcome, Timings
from relay.standing import Breaker
from relay.store.values import Settlement

ORDER = "pQ1rpLoLCMhKo1oL2cJ4jk"
BODY = b'{"houdiniId":"pQ1rpLoLCMhKo1oL2cJ4jk","inAmount":0.37271038265600004,"n":1.10,"e":1E5,"deep":{"a":[1,{}]}}'
ATTACKS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "{{7*7}}{% raw %}",
    "</pre></td></table><h1>owned</h1>",
    "javascript:alert(1)",
    "<svg/onload=alert(1)>\u202e\u2028\x1b[2J",
)
_VOID = frozenset({"meta", "link", "img", "input", "rect", "br"})


class Outline(HTMLParser):
    """Every tag with its attributes, and whether they are nested well."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of {tag} is given twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def find(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def assert_harmless(shown: Shown) -> Outline:
    """Nothing on the page runs, loads or leads anywhere but what templates say."""
    outline = Outline(shown.text)
    assert [one.get("src") for one in outline.find("script")] in ([], ["/static/app.js"])
    for tag, attributes in outline.tags:
        assert tag not in ("iframe", "object", "embed", "base", "style"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("style", "srcdoc", "formaction"), (tag, name)
            if name in ("href", "src", "action"):
                assert re.match(r"[/#](?![/\\])", value or ""), (tag, name, value)
    assert "owned" not in [tag for tag, _ in outline.tags]
    return outline


async def open_browser(room: AdminRoom, browser: Browser) -> None:
    room.board.upstream.last_message_ms = room.clock.wall_ms()
    await browser.sign_in()
    await browser.get("/login")


async def live(room: AdminRoom) -> None:
    """An order with two events: delivered at alpha, dead and pending at beta."""
    now = room.clock.wall_ms()
    for sequence, status in ((1, 0), (2, 4)):
        facts = OrderFacts(sequence, status, None if sequence == 1 else 0, ("status",), Origin.WEBSOCKET)
        made = event(ORDER, status, sequence, at_ms=now - 60_000 + sequence, body=BODY, facts=facts)
        await room.bench.add(made, targets=["alpha", "beta"], now_ms=now - 60_000 + sequence)
        await room.bench.settle(*(delivered(one, now) for one in await room.bench.claim("alpha", now_ms=now)))
        if sequence == 1:
            await room.bench.settle(*map(dead, await room.bench.claim("beta", now_ms=now)))
    await room.bench.settle(*(again(one, now + 90_000) for one in await room.bench.claim("beta", now_ms=now)))


async def test_when_all_is_well_it_says_so(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        shown = await browser.get("/")
        assert shown.status == 200
        assert "<title>Everything is delivered" in shown.text
        for word in ("Everything is delivered", "subscribed", "In sync with REST yes", "alpha", "beta", "active"):
            assert word in shown.words, word
        assert "attention" not in shown.words
        assert "No attempt in the last hour." in shown.words


async def test_what_is_wrong_stands_there_with_what_to_do(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        room.board.upstream.state = UpstreamState.AUTH_FAILED
        room.board.upstream.in_sync = False
        await room.store.begin_gap(room.clock.wall_ms() - 90_000, "credentials refused (4401)")
        await room.store.pause("beta", room.clock.wall_ms())
        await live(room)
        shown, (_, status) = await browser.get("/"), await room.get("/api/v1/status")
        assert "2 things need attention" in shown.words
        assert "Everything is delivered" not in shown.text
        for one in (*status["problems"], *status["notes"]):
            for text in (one["subject"], one["message"].split(" since ")[0], one["advice"]):
                assert text in shown.words
        assert re.search(r"open for 1 min 3\d s", shown.words)
        assert "credentials refused (4401)" in shown.words


async def test_the_last_hour_of_a_target(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        now = room.clock.mono()
        for _ in range(20):
            room.board.recent.note("alpha", True, 40.0, now)
        room.board.recent.note("alpha", False, 0.0, now)
        _, status = await room.get("/api/v1/status")
        hour = status["targets"][0]["last_hour"]
        assert (hour["delivered"][-1], hour["failed"][-1], len(hour["failed"])) == (20, 1, 60)
        shown = await browser.get("/")
        outline = assert_harmless(shown)
        assert [one["class"] for one in outline.find("rect")] == ["delivered", "failed"]
        assert 'aria-label="The last hour: 20 attempts delivered, 1 failed"' in shown.text
        assert f"p50 {hour['latency_ms']['p50']:.0f} ms" in shown.words


async def test_an_order_s_life(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        await live(room)
        shown = await browser.get(f"/orders/{ORDER}")
        order = ["order.waiting", "alpha delivered", "beta dead", "order.finished", "after WAITING", "beta pending"]
        places = [shown.words.index(word) for word in order]
        assert places == sorted(places)
        assert "0.37271038265600004" in shown.words
        assert_harmless(shown)


async def test_a_body_is_shown_as_it_came(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        await live(room)
        shown = await browser.get(f"/events/evt_{ORDER}_2")
        for text in ("0.37271038265600004", '"n": 1.10', '"e": 1E5', '"a": [ 1, {} ]', "webhook-signature"):
            assert text in shown.words, text


async def test_a_delivery_and_its_attempts(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        await room.bench.add(event(ORDER, 4), targets=["alpha"])
        found = await room.bench.claim()
        attempt = Attempt(
            1_000,
            15_000.0,
            Outcome.RETRY,
            kind=FailureKind.TIMEOUT,
            error="timeout: no answer within 15 s",
            response_body=b"line one\nline two",
            headers={"retry-after": "7"},
            timings=Timings(1.0, 2.5, 30.0, None),
        )
        await room.bench.settle(*(Settlement(one, attempt, DeliveryStatus.PENDING, due_ms=9_000) for one in found))
        shown = await browser.get("/deliveries/1")
        for word in ("timeout: no answer within 15 s", "retry", "15.0 s", "name 1.0 ms · connect 2.5 ms · TLS 30 ms"):
            assert word in shown.words, word
        assert "<pre>line one\nline two</pre>" in shown.text
        assert "retry-after 7" in shown.words


async def test_filters_and_paging_of_lists(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        await live(room)
        for number in range(60):
            await room.bench.add(event(f"other-{number:02}", 4), targets=["alpha"])
        first = await browser.get("/deliveries?status=pending&target=alpha&type=&order=&since=&until=")
        assert "other-59" in first.words
        assert "other-09" not in first.words
        following = re.search(r'href="(/deliveries\?[^"]*cursor=[^"]*)" rel="next"', first.text)
        assert following is not None
        second = await browser.get(following[1].replace("&amp;", "&"))
        assert "other-09" in second.words
        assert "other-59" not in second.words
        assert 'rel="next"' not in second.text
        assert '<option value="pending" selected>' in second.text
        events = await browser.get(f"/events?order={ORDER}")
        assert "order.finished" in events.words
        assert "other" not in events.words


@pytest.mark.parametrize("query", ["since=nonsense", "limit=0", "cursor=!", "nope=1", "target=NO", "status=gone"])
async def test_a_filter_that_cannot_be_used_is_explained(tmp_path: Path, query: str):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        for path in ("/deliveries", "/events"):
            shown = await browser.get(f"{path}?{query}")
            assert shown.status == 200
            assert 'role="alert"' in shown.text.replace('id="stale" class="stale" role="alert"', "")


async def test_search_finds_orders_events_and_deliveries(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        await live(room)
        await room.bench.add(event("a/b?c#d%2F", 4), targets=["alpha"])
        assert (await browser.get(f"/search?q=+{ORDER}+")).location == f"/orders/{ORDER}"
        assert (await browser.get(f"/search?q=evt_{ORDER}_1")).location == f"/events/evt_{ORDER}_1"
        assert (await browser.get("/search?q=2")).location == "/deliveries/2"
        odd = await browser.get("/search?q=a%2Fb%3Fc%23d%252F")
        assert odd.location == "/orders/a%2Fb%3Fc%23d%252F"
        assert "order.finished" in (await browser.get(odd.location)).words
        for nothing in ("", "nope", "999", "%00", "%ED%A0%80", "../../etc", "x" * 3000):
            assert (await browser.get(f"/search?q={nothing}")).status == 404


async def test_a_dead_delivery_is_sent_again(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        await room.bench.add(event(ORDER, 4), targets=["alpha"])
        await room.bench.settle(*map(dead, await room.bench.claim()))
        assert "Send again" in (await browser.get("/deliveries/1")).words
        done = await browser.post("/deliveries/1/retry")
        assert (done.status, done.location) == (303, "/deliveries/2?done=replayed")
        shown = await browser.get(done.location)
        assert "It is sent again, as this new delivery." in shown.words
        assert "pending replay 1" in shown.words
        assert "Attempt now" in shown.words
        assert room.control.woken == ["alpha"]
        assert (await browser.post("/deliveries/2/cancel")).location == "/deliveries/2?done=cancelled"
        assert await room.bench.statuses(ORDER) == [DeadReason.EXHAUSTED, "cancelled"]


async def test_pause_resume_and_test(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        assert "Pause" in (await browser.get("/targets/alpha")).words
        done = await browser.post("/targets/alpha/pause")
        assert done.location == "/targets/alpha?done=paused"
        shown = await browser.get(done.location)
        assert "Paused. What comes is kept" in shown.words
        assert "Resume" in shown.words
        assert (await browser.post("/targets/alpha/pause")).location.endswith("was_paused")
        assert (await browser.post("/targets/alpha/resume")).location.endswith("=resumed")
        assert (await browser.post("/targets/alpha/resume")).location.endswith("=was_resumed")
        assert "Probe now" not in (await browser.get("/targets/alpha")).text
        await room.bench.add(event("order-1", 4), targets=["alpha"])
        (head,) = await room.bench.claim("alpha", now_ms=room.clock.wall_ms())
        opened: dict[str, Any] = {"breaker": Breaker.OPEN, "probe_due_ms": room.clock.wall_ms() + 3_600_000}
        await room.bench.settle(again(head, 1), judge=lambda standing, _: replace(standing, **opened))
        assert "Probe now" in (await browser.get("/targets/alpha")).text
        shown = (await browser.get("/deliveries/1")).words
        assert re.search(r"Next attempt waits for its target's breaker, next probe in (1 h|59 min)", shown), shown
        probed = await browser.post("/targets/alpha/resume")
        assert "Only its breaker was open: it is probed now." in (await browser.get(probed.location)).words
        room.control.answer = Attempt(1_000, 8.0, Outcome.GONE, status_code=410, error="status 410: <b>gone</b>")
        tested = await browser.post("/targets/alpha/test")
        assert tested.status == 200
        assert "status 410: <b>gone</b>" in tested.words
        assert "data-live" not in tested.text, "loading it again would ask for another page"


async def test_replay_counts_first_and_sends_what_it_counted(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        now = room.clock.wall_ms()
        for number in range(3):
            await room.bench.add(event(f"order-{number}", 4, at_ms=now - 1000), targets=["alpha"], now_ms=now - 1000)
        await room.bench.settle(*map(dead, await room.bench.claim(now_ms=now)))
        listed = await browser.get("/deliveries?status=dead&since=1h")
        link = re.search(r'href="(/targets/alpha/replay\?[^"]*)"', listed.text)
        assert link is not None
        counted = await browser.get(link[1].replace("&amp;", "&"))
        assert "3 events would be sent again" in counted.words
        assert await room.bench.claim(now_ms=room.clock.wall_ms()) == [], "nothing is sent before"
        assert counted.fields["since"].endswith("Z"), "a moment, not an hour that moves on"
        done = await browser.post("/targets/alpha/replay", counted.fields)
        assert done.location == "/targets/alpha?done=replay"
        assert len(await room.bench.claim(now_ms=room.clock.wall_ms())) == 3
        assert "0 events would be sent again" in (await browser.get("/targets/alpha/replay")).words


@pytest.mark.parametrize("query", ["status=pending", "status=%3Cb%3E", "since=x", "since=1h&until=2h"])
async def test_a_replay_that_cannot_be_is_explained(tmp_path: Path, query: str):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        shown = await browser.get(f"/targets/alpha/replay?{query}")
        assert "would be sent" not in shown.words
        assert '<p class="flash bad" role="alert">' in shown.text
        refused = await browser.post("/targets/alpha/replay", {"status": "pending"})
        assert refused.status == 400


async def test_an_orphan_is_forgotten(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        await room.bench.add(event(ORDER, 4), targets=["beta"])
        room.targets = [target("alpha")]
        await room.bench.configure("alpha")
        shown = await browser.get("/targets/beta")
        assert "orphaned" in shown.words
        assert "Forget beta" in shown.words
        assert "Pause" not in shown.words
        assert (await browser.post("/targets/alpha/forget")).status == 409
        assert (await browser.post("/targets/beta/forget")).location == "/?done=forgotten"
        assert await room.bench.statuses(ORDER, "beta") == ["cancelled"]


async def test_what_cannot_be_done_is_explained_on_a_page(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        await live(room)
        room.targets = [target("alpha", paused=True), target("beta")]
        for path, status, text in (
            ("/deliveries/1/cancel", 409, "this delivery has ended"),
            ("/deliveries/999/retry", 404, "no delivery of this id"),
            ("/targets/nope/pause", 404, "no target of this name"),
            ("/targets/alpha/resume", 409, "the configuration pauses this target"),
        ):
            shown = await browser.post(path)
            assert shown.status == status
            assert text in shown.words
            assert f'href="{path.rpartition("/")[0]}">Go back' in shown.text
        for path in (
            "/targets/nope",
            "/orders/nope",
            "/events/nope",
            "/deliveries/x",
            "/nothing",
            "/static/../auth.py",
        ):
            assert (await browser.get(path)).status == 404, path


async def test_programs_get_the_one_shape_of_errors_everywhere(tmp_path: Path):
    async with served(tmp_path) as room:
        for path in ("/orders/nope", "/nothing", "/static/nope.js"):
            status, document, _ = await room.ask("GET", path)
            assert (status, set(document)) == (404, {"error"})


async def test_headers_of_pages_and_files(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        kinds = {
            "/static/app.js": "text/javascript",
            "/static/base.css": "text/css",
            "/static/icon.svg": "image/svg+xml",
        }
        for path in ("/", "/deliveries", "/login", "/nothing", *kinds):
            shown = await browser.get(path)
            assert shown.headers["cache-control"] == "no-store"
            assert shown.headers["x-content-type-options"] == "nosniff"
            assert shown.headers["x-frame-options"] == "DENY"
            policy = shown.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            if path in kinds:
                assert shown.headers["content-type"].startswith(kinds[path])
            else:
                assert "unsafe" not in policy
                assert "script-src 'self'" in policy
                assert "form-action 'self'" in policy
                assert "base-uri 'none'" in policy
                assert shown.headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("attack", ATTACKS)
async def test_whatever_strangers_write_stays_text(tmp_path: Path, attack: str):
    """A status reason, a body, a header, an error, an order's id and fields, a gap's cause, what the socket said."""
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        room.board.upstream.last_error = room.board.upstream.sweep_problem = f"closed: {attack}"
        room.board.upstream.state = UpstreamState.CONNECTING
        room.board.upstream.first_sweep_done = room.board.upstream.in_sync = False
        await room.store.begin_gap(1_000, attack)
        order = f"o{attack}"
        body = json.dumps({"houdiniId": order, attack: attack, "amount": 1.5}).encode()
        facts = OrderFacts(1, 4, None, (attack,), Origin.WEBSOCKET)
        await room.bench.add(event(order, 4, body=body, facts=facts, webhook_id="evt_x"), targets=["alpha"])
        attempt = Attempt(
            1_000,
            1.0,
            Outcome.REFUSED,
            status_code=422,
            error=f"status 422 {attack}",
            response_body=attack.encode(),
            headers={"server": attack, "x-request-id": attack},
        )
        found = await room.bench.claim()
        await room.bench.settle(
            *(Settlement(one, attempt, DeliveryStatus.DEAD, reason=DeadReason.REFUSED) for one in found),
            judge=lambda standing, _: standing.__class__(last_error=attack, failures=1),
        )
        room.control.answer = attempt
        pages = ["/", "/deliveries", "/events", "/deliveries/1", "/events/evt_x", "/targets/alpha"]
        for path in pages:
            shown = await browser.get(path)
            assert shown.status == 200, path
            assert_harmless(shown)
        tested = await browser.post("/targets/alpha/test")
        assert_harmless(tested)
        visible = attack.split("\u202e")[0]
        assert visible in (await browser.get("/deliveries/1")).words
        assert "\x1b" not in tested.text
        assert "\u202e" not in tested.text
        found_order = await browser.get("/search?" + query(q=order))
        assert found_order.status == 303
        assert_harmless(await browser.get(found_order.location))


@pytest.mark.parametrize("attack", ATTACKS)
async def test_whatever_the_address_says_stays_text(tmp_path: Path, attack: str):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        told = query(order=attack, since=attack, status=attack, type=attack, target=attack, cursor=attack, done=attack)
        for path in ("/deliveries", "/events", "/targets/alpha/replay", "/", "/targets/alpha"):
            assert_harmless(await browser.get(f"{path}?{told}"))
        assert_harmless(await browser.get("/login?" + query(next=attack)))
        for folder in ("orders", "events", "deliveries", "targets"):
            shown = await browser.get(f"/{folder}/" + query(x=attack)[2:])
            assert shown.status == 404
            assert_harmless(shown)


async def test_no_page_is_without_bound(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        body = b'{"houdiniId":"big","deep":' + b"[" * 900 + b"]" * 900 + b',"x":"' + b"<" * 300_000 + b'"}'
        await room.bench.add(event("big", 4, body=body), targets=["alpha"])
        attempt = Attempt(1, 1.0, Outcome.RETRY, error="e" * 100_000, response_body=b"<" * 4096)
        found = await room.bench.claim()
        await room.bench.settle(*(Settlement(one, attempt, DeliveryStatus.PENDING, due_ms=2) for one in found))
        for path in ("/orders/big", "/events/evt_big_1", "/deliveries/1", "/targets/alpha"):
            shown = await browser.get(path)
            assert shown.status == 200
            assert len(shown.text) < 400_000, path
            assert_harmless(shown)


async def test_no_page_shows_a_secret(tmp_path: Path):
    canaries = (TOKEN, KEY_IN_URL, WEBHOOK_SECRET, "canary-upstream-secret")
    log.register_secrets(canaries)
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        said = " ".join(canaries)
        room.board.upstream.last_error = room.board.store_failure = said
        await room.store.begin_gap(1_000, said)
        body = json.dumps({"houdiniId": "o", "note": said}).encode()
        await room.bench.add(event("o", 4, body=body), targets=["alpha"])
        attempt = Attempt(1, 1.0, Outcome.RETRY, error=said, response_body=said.encode(), headers={"server": said})
        found = await room.bench.claim()
        await room.bench.settle(*(Settlement(one, attempt, DeliveryStatus.PENDING, due_ms=2) for one in found))
        texts = []
        for path in ("/", "/deliveries", "/events", "/orders/o", "/events/evt_o_1", "/deliveries/1", "/targets/alpha"):
            shown = await browser.get(path)
            assert shown.status == 200, path
            texts.append(shown.text)
        texts += [(await browser.get(f"/orders/{TOKEN}")).text, (await browser.get("/login")).text]
        for canary in canaries:
            assert canary not in "".join(texts)
        assert "[redacted]" in "".join(texts)


async def test_a_store_in_trouble_is_said_on_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        await room.store.close()
        shown = await browser.get("/")
        assert shown.status == 503
        assert "store:" in shown.words


async def test_every_page_has_its_landmarks_and_labels(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        await open_browser(room, browser)
        await live(room)
        for path in (
            "/",
            "/deliveries?status=dead",
            "/events",
            f"/orders/{ORDER}",
            "/deliveries/1",
            f"/events/evt_{ORDER}_1",
            "/targets/beta",
            "/targets/beta/replay",
        ):
            outline = assert_harmless(await browser.get(path))
            ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
            assert len(set(ids)) == len(ids), path
            assert len(outline.find("main")) == len(outline.find("h1")) == 1, path
            assert outline.find("html") == [{"lang": "en"}]
            assert outline.find("a")[0]["href"] == "#main"
            labels = {one.get("for") for one in outline.find("label")}
            for tag in ("input", "select"):
                for one in outline.find(tag):
                    assert one.get("type") == "hidden" or one["id"] in labels, (path, one)
            for one in outline.find("section"):
                assert one["aria-labelledby"] in ids, (path, one)


def query(**fields: str) -> str:
    return urlencode(fields)
