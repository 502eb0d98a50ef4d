"""Who gets in, for how long, and that no other page can use somebody's being in."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from admin_kit import TOKEN, AdminRoom, served
from browser_kit import Browser
from structlog.testing import capture_logs
from support.clock import JumpClock
from test_admin_gate import code

from relay.admin.auth import LOGIN_FAILURES
from relay.admin.sessions import COOKIE, LIFETIME, MOST_SESSIONS
from relay.secret import Secret

PAGES = (
    "/",
    "/deliveries",
    "/deliveries/1",
    "/events",
    "/events/evt_1",
    "/orders/o",
    "/targets/alpha",
    "/search?q=1",
    "/targets/alpha/replay",
)
POSTS = (
    "/logout",
    "/backfill",
    "/deliveries/1/retry",
    "/deliveries/1/cancel",
    "/targets/alpha/pause",
    "/targets/alpha/resume",
    "/targets/alpha/test",
    "/targets/alpha/replay",
    "/targets/alpha/forget",
)


async def test_pages_are_for_people_who_are_signed_in(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        for path in PAGES:
            shown = await browser.get(path)
            assert shown.status == 303, path
            assert shown.location.startswith("/login"), path
        for path in POSTS:
            shown = await browser.post(path)
            assert (shown.status, shown.location.split("?")[0]) == (303, "/login"), path
        assert room.sweeps == []
        assert not (await room.bench.standing()).stopped


async def test_signing_in_leads_to_what_was_asked_for(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        asked = await browser.get("/deliveries?status=dead&target=alpha")
        door = await browser.get(asked.location)
        assert door.status == 200
        with capture_logs() as lines:
            entered = await browser.post("/login", {"token": TOKEN, "next": door.fields["next"]})
        assert (entered.status, entered.location) == (303, "/deliveries?status=dead&target=alpha")
        assert [line["event"] for line in lines] == ["admin_signed_in"]
        assert (await browser.get(entered.location)).status == 200


async def test_the_cookie_is_for_this_server_alone_and_no_script_sees_it(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        before = (await browser.get("/login")).cookies[COOKIE]
        cookie = (await browser.sign_in()).cookies[COOKIE]
        for one in (before, cookie):
            assert one["httponly"]
            assert one["samesite"] == "Strict"
            assert one["path"] == "/"
            assert one["domain"] == ""
            assert not one["secure"]
        assert cookie["max-age"] == str(int(LIFETIME))
        assert len(cookie.value) >= 43, "256 bits"
        assert cookie.value != before.value, "what somebody else may have planted is worth nothing"


async def test_over_tls_the_cookie_stays_there(tmp_path: Path):
    """TLS ends in front of us. The browser's own word for it counts, a proxy's header does not."""
    async with served(tmp_path) as room, Browser(room) as browser:
        await browser.get("/login")
        named = {"host": "localhost:8443", "origin": "https://localhost:8443"}
        assert (await browser.post("/login", {"token": TOKEN}, **named)).cookies[COOKIE]["secure"]
    async with served(tmp_path) as room, Browser(room) as browser:
        await browser.get("/login")
        forwarded = {"x-forwarded-proto": "https"}
        assert not (await browser.post("/login", {"token": TOKEN}, **forwarded)).cookies[COOKIE]["secure"]


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", "\u00e9", "x" * 5000])
async def test_a_wrong_token_opens_nothing(tmp_path: Path, token: str):
    async with served(tmp_path) as room, Browser(room) as browser:
        shown = await browser.sign_in(token)
        assert shown.status == 401
        assert "this is not the token" in shown.words
        assert token == "" or token not in shown.text
        assert (await browser.get("/")).status == 303


async def test_guesses_are_limited_with_those_of_the_api(tmp_path: Path):
    clock = JumpClock()
    async with served(tmp_path, clock=clock) as room, Browser(room) as browser:
        for _ in range(LOGIN_FAILURES - 1):
            assert (await browser.sign_in("guess")).status == 401
        assert code(await room.ask("GET", "/api/v1/status", token="guess"))[0] == 401
        shown = await browser.sign_in()
        assert shown.status == 429
        assert int(shown.headers["retry-after"]) >= 1
        clock.move(7)
        assert (await browser.sign_in()).status == 303


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/%0d%0aset-cookie:%20a=b\r\nx: y",
        "/\tx",
        "",
    ],
)
async def test_signing_in_never_leads_off(tmp_path: Path, wanted: str):
    async with served(tmp_path) as room, Browser(room) as browser:
        assert (await browser.sign_in(next=wanted)).location == "/"


async def test_signing_out(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        stolen = (await browser.sign_in()).cookies[COOKIE].value
        await browser.get("/")
        left = await browser.post("/logout")
        assert (left.status, left.location) == (303, "/login")
        assert (await browser.get("/")).status == 303
        answer = await room.ask("GET", "/api/v1/status", token=None, headers={"cookie": f"{COOKIE}={stolen}"})
        assert code(answer) == (401, "unauthorized"), "it is forgotten here, too"


async def test_a_session_ends_after_twelve_hours(tmp_path: Path):
    clock = JumpClock()
    async with served(tmp_path, clock=clock) as room, Browser(room) as browser:
        value = (await browser.sign_in()).cookies[COOKIE].value
        headers = {"cookie": f"{COOKIE}={value}"}
        clock.move(LIFETIME - 1)
        assert (await room.ask("GET", "/api/v1/status", token=None, headers=headers))[0] == 200
        clock.move(1)
        assert (await room.ask("GET", "/api/v1/status", token=None, headers=headers))[0] == 401


async def test_another_token_signs_everybody_out(tmp_path: Path):
    current = [TOKEN]
    async with served(tmp_path, token=Secret(lambda: current[0], "file")) as room, Browser(room) as browser:
        await browser.sign_in()
        assert (await browser.get("/")).status == 200
        current[0] = "the-next-token-5678"
        assert (await browser.get("/")).status == 303


async def test_the_oldest_of_many_sessions_ends(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        first = (await browser.sign_in()).cookies[COOKIE].value
        for _ in range(MOST_SESSIONS):
            last = (await browser.sign_in()).cookies[COOKIE].value
        for value, expected in ((first, 401), (last, 200)):
            headers = {"cookie": f"{COOKIE}={value}"}
            assert (await room.ask("GET", "/api/v1/status", token=None, headers=headers))[0] == expected


async def test_the_cookie_opens_the_api_as_the_token_does(tmp_path: Path):
    async with served(tmp_path) as room, Browser(room) as browser:
        value = (await browser.sign_in()).cookies[COOKIE].value
        headers = {"cookie": f"{COOKIE}={value}"}
        for path in ("/api/v1/status", "/api/v1/deliveries", "/api/v1/keys"):
            assert (await room.ask("GET", path, token=None, headers=headers))[0] == 200
        both = {**headers, "authorization": "Bearer wrong"}
        assert code(await room.ask("GET", "/api/v1/status", token=None, headers=both)) == (401, "unauthorized")
        foreign = {**headers, "origin": "http://127.0.0.1:1"}
        answer = await room.ask("POST", "/api/v1/backfill", token=None, headers=foreign, json={})
        assert code(answer) == (403, "foreign_origin")
        assert room.sweeps == []


@pytest.mark.parametrize("with_token", [True, False])
async def test_only_forms_of_our_own_pages_do_anything(tmp_path: Path, with_token: bool):
    changes = {} if with_token else {"token": None}
    async with served(tmp_path, **changes) as room, Browser(room) as browser, Browser(room) as other:
        for one in (browser, other):
            if with_token:
                await one.sign_in()
            await one.get("/")
        secrets = {"": "none", "0" * 64: "guessed", "\u00e9" * 64: "nonsense", other.secret: "another browser's"}
        for secret, whose in secrets.items():
            for path in POSTS:
                shown = await browser.post(path, {"form_secret": secret})
                assert shown.status == 403, (path, whose)
                assert "out of date" in shown.words
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
            for path in (*POSTS, "/login"):
                assert (await browser.post(path, origin=origin)).status == 403, (path, origin)
        assert room.sweeps == []
        assert not (await room.bench.standing()).stopped
        assert (await browser.post("/backfill")).status == 303
        assert len(room.sweeps) == 1


async def test_a_form_without_a_cookie_does_nothing(tmp_path: Path):
    async with served(tmp_path, token=None) as room:
        async with Browser(room) as browser:
            await browser.get("/")
            secret = browser.secret
        async with Browser(room) as fresh:
            assert (await fresh.post("/backfill", {"form_secret": secret})).status == 403
        assert room.sweeps == []


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded; charset=utf-7",
    ],
)
async def test_a_form_has_one_form(tmp_path: Path, kind: str):
    async with served(tmp_path) as room, Browser(room) as browser:
        await browser.sign_in()
        for path in (*POSTS, "/login"):
            assert (await browser.post(path, **{"content-type": kind})).status == 415, path
        assert room.sweeps == []


async def test_a_form_that_is_not_utf_8_or_too_long(tmp_path: Path):
    async with served(tmp_path, token=None) as room:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        assert (await room.ask("POST", "/backfill", headers=headers, data=b"form_secret=\xff"))[0] in (400, 403)
        assert (await room.ask("POST", "/backfill", headers=headers, data=b"a=" + b"x" * 70_000))[0] == 413
        assert room.sweeps == []


async def test_without_a_token_configured_nobody_signs_in(tmp_path: Path):
    async with served(tmp_path, token=None) as room, Browser(room) as browser:
        shown = await browser.get("/")
        assert shown.status == 200
        assert "Sign out" not in shown.words
        assert (await browser.get("/login")).location == "/"


async def test_a_foreign_host_gets_no_page_and_no_file(tmp_path: Path):
    """DNS rebinding: not even the page for signing in."""
    async with served(tmp_path, token=None) as room, Browser(room) as browser:
        for path in ("/", "/login", "/static/app.js", *PAGES):
            assert (await browser.get(path, host="evil.example")).status == 403, path


async def test_nothing_that_was_planted_signs_in(tmp_path: Path):
    async with served(tmp_path) as room:
        for value in ("", "x", "x" * 43, "x" * 9000, "%00", "\u00e9"):
            headers: dict[str, Any] = {"cookie": f"{COOKIE}={value}", "accept": "text/html"}
            assert await status_of(room, headers) in (303, 400), value


async def status_of(room: AdminRoom, headers: dict[str, str]) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(room.url + "/", headers=headers, allow_redirects=False) as answer,
    ):
        return answer.status
