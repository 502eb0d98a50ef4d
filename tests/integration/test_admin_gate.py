"""Failure mode 128: loopback is no boundary for a browser. Who is let in, and how a refusal looks."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from admin_kit import KEY_IN_URL, TOKEN, WEBHOOK_SECRET, AdminRoom, served
from structlog.testing import capture_logs
from support.clock import JumpClock

from relay import log
from relay.admin import middleware
from relay.admin.auth import LOGIN_FAILURES
from relay.errors import SecretUnreadable
from relay.secret import Secret

POSTS = (
    "/api/v1/backfill",
    "/api/v1/audit",
    "/api/v1/store/backup",
    "/api/v1/replay",
    "/api/v1/deliveries/1/retry",
    "/api/v1/deliveries/1/cancel",
    "/api/v1/targets/alpha/pause",
    "/api/v1/targets/alpha/resume",
    "/api/v1/targets/alpha/test",
    "/api/v1/targets/alpha/forget",
)


def code(answer: tuple[int, Any, Any]) -> tuple[int, str]:
    """The status and the error's code; every error has the one shape."""
    status, document, _ = answer
    assert set(document) == {"error"}
    assert set(document["error"]) == {"code", "message"}
    return status, document["error"]["code"]


def assert_no_effect(room: AdminRoom) -> None:
    assert room.sweeps == []
    assert room.source.windows == 0


async def test_health_and_metrics_take_any_host_and_no_token(tmp_path: Path):
    async with served(tmp_path) as room:
        for path in ("/healthz", "/readyz", "/metrics"):
            status, _, answer = await room.ask("GET", path, token=None, headers={"host": "anything.example"})
            assert status == 200, path
            assert answer.headers["server"] == "houdini-relay"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("token", [None, "wrong", "", TOKEN[:-1], TOKEN + "x", "\u00e9" * 5])
async def test_no_token_or_a_wrong_one_opens_nothing(tmp_path: Path, token: str | None):
    async with served(tmp_path) as room:
        for path in ("/api/v1/status", "/", "/nothing/here", "/api/v1/backfill"):
            answer = await room.ask("GET", path, token=token)
            assert code(answer) == (401, "unauthorized")
            assert answer[2].headers["www-authenticate"].startswith("Bearer")
        assert_no_effect(room)
    async with served(tmp_path) as room:  # so many guesses would be refused for being many
        for path in POSTS:
            assert code(await room.ask("POST", path, token=token, json={})) == (401, "unauthorized")
        assert_no_effect(room)


async def test_the_right_token_opens(tmp_path: Path):
    async with served(tmp_path) as room:
        assert (await room.ask("GET", "/api/v1/status"))[0] == 200
        assert (await room.ask("GET", "/api/v1/status", token=None, headers={"authorization": f"bearer {TOKEN}"}))[
            0
        ] == 200
        basic = await room.ask("GET", "/api/v1/status", token=None, headers={"authorization": f"Basic {TOKEN}"})
        assert code(basic) == (401, "unauthorized")


async def test_two_authorization_headers_are_refused(tmp_path: Path):
    async with served(tmp_path) as room:
        one = f"Authorization: Bearer {TOKEN}\r\n"
        assert await raw(room, f"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n{one}{one}\r\n") != 200


async def test_without_a_token_configured_none_is_needed(tmp_path: Path):
    async with served(tmp_path, token=None) as room:
        assert (await room.ask("GET", "/api/v1/status", token=None))[0] == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:9", 200),
        ("localhost:8787", 200),
        ("LOCALHOST", 200),
        ("[::1]:80", 200),
        ("127.9.9.9", 200),
        ("relay.internal", 200),
        ("Relay.Internal:8443", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("relay.internal.evil.example", 403),
        ("169.254.169.254", 403),
        ("[::ffff:127.0.0.1]", 403),
        ("0.0.0.0", 403),
        ("2130706433", 400),
        ("user@localhost", 400),
        ("localhost/evil", 400),
        ("localhost evil.example", 400),
        ("localhost:99999", 400),
        ("", 400),
    ],
)
async def test_only_our_own_names_are_answered_to(tmp_path: Path, host: str, expected: int):
    """DNS rebinding: the browser believes the name, so the name must be one of ours."""
    async with served(tmp_path, token=None, allowed_hosts=["relay.internal"]) as room:
        assert await raw(room, f"GET /api/v1/status HTTP/1.1\r\nHost: {host}\r\n\r\n") == expected
        head = f"POST /api/v1/backfill HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        assert await raw(room, head + "Content-Length: 2\r\n\r\n{}") == (202 if expected == 200 else expected)
        assert len(room.sweeps) == (expected == 200)


async def test_a_missing_or_doubled_host_is_refused(tmp_path: Path):
    async with served(tmp_path, token=None) as room:
        assert await raw(room, "GET /api/v1/status HTTP/1.0\r\n\r\n") == 400
        assert await raw(room, "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n") == 400


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:8787", True),
        ("http://LOCALHOST:8787", True),
        ("https://localhost:8787", True),
        ("http://localhost", False),
        ("http://localhost:1", False),
        ("http://evil.example", False),
        ("http://evil.example:8787", False),
        ("http://localhost:8787.evil.example", False),
        ("http://evil.example@localhost:8787", False),
        ("http://localhost:8787/path", False),
        ("null", False),
        ("", False),
        ("file://", False),
        ("chrome-extension://abc", False),
    ],
)
async def test_only_our_own_pages_may_ask(tmp_path: Path, origin: str, allowed: bool):
    async with served(tmp_path) as room:
        headers = {"host": "localhost:8787", "origin": origin}
        for method, path in (("GET", "/api/v1/status"), ("POST", "/api/v1/backfill")):
            answer = await room.ask(method, path, headers=headers, json={} if method == "POST" else None)
            if allowed:
                assert answer[0] in (200, 202)
                assert "access-control-allow-origin" not in answer[2].headers
            else:
                assert code(answer) == (403, "foreign_origin")
        assert len(room.sweeps) == allowed


async def test_a_page_on_the_default_port_is_our_own_with_and_without_it(tmp_path: Path):
    async with served(tmp_path) as room:
        for host, origin in (("localhost", "http://localhost:80"), ("localhost:443", "https://localhost")):
            assert (await room.ask("GET", "/api/v1/status", headers={"host": host, "origin": origin}))[0] == 200


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "text/plain; application/json",
        "application/json; charset=utf-16",
        "application/jsonx",
        None,
    ],
)
async def test_what_a_form_can_send_changes_nothing(tmp_path: Path, kind: str | None):
    async with served(tmp_path) as room:
        for path in POSTS:
            headers = {} if kind is None else {"content-type": kind}
            skip = {"skip_auto_headers": ["content-type"]} if kind is None else {}
            assert code(await room.ask("POST", path, headers=headers, data=b"{}", **skip)) == (415, "not_json")
        assert_no_effect(room)


async def test_encoded_bodies_are_refused(tmp_path: Path):
    async with served(tmp_path) as room:
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        assert (await room.ask("POST", "/api/v1/backfill", headers=headers, data=b"{}"))[0] in (400, 415)
        assert_no_effect(room)


async def test_json_with_a_charset_is_json(tmp_path: Path):
    async with served(tmp_path) as room:
        headers = {"content-type": "application/json; charset=UTF-8"}
        assert (await room.ask("POST", "/api/v1/backfill", headers=headers, data=b"{}"))[0] == 202
        assert (await room.ask("POST", "/api/v1/backfill", headers={"content-type": "application/json"}, data=b""))[
            0
        ] == 202


async def test_long_bodies_are_refused_whether_they_say_so_or_not(tmp_path: Path):
    async with served(tmp_path) as room:
        body = json.dumps({"since": "x" * 70_000}).encode()
        headers = {"content-type": "application/json"}
        assert code(await room.ask("POST", "/api/v1/audit", headers=headers, data=body)) == (413, "too_large")

        async def chunks() -> Any:
            for start in range(0, len(body), 8192):
                yield body[start : start + 8192]

        assert code(await room.ask("POST", "/api/v1/audit", headers=headers, data=chunks())) == (413, "too_large")
        head = f"POST /api/v1/audit HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        announced = "Content-Type: application/json\r\nContent-Length: 70000\r\n\r\n"
        assert await raw(room, head + announced) == 413, "refused before it is read"
        assert_no_effect(room)


@pytest.mark.parametrize("body", [b"{", b"[]", b"1", b'{"since": 5}', b'{"nope": 1}', b'"\xff"', b"[" * 60_000])
async def test_bodies_that_do_not_fit_are_refused(tmp_path: Path, body: bytes):
    async with served(tmp_path) as room:
        answer = await room.ask("POST", "/api/v1/audit", headers={"content-type": "application/json"}, data=body)
        assert code(answer) == (400, "bad_body")
        assert "nope" not in answer[1]["error"]["message"]
        assert_no_effect(room)


async def test_methods(tmp_path: Path):
    async with served(tmp_path) as room:
        for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "POST"):
            answer = await room.ask(method, "/api/v1/status")
            assert code(answer) == (405, "method_not_allowed")
            assert answer[2].headers["allow"] == "GET,HEAD"
        for path in POSTS:
            for method in ("GET", "PUT", "DELETE", "OPTIONS"):
                assert code(await room.ask(method, path)) == (405, "method_not_allowed")
        status, text, answer = await room.ask("HEAD", "/api/v1/status")
        assert (status, text) == (200, "")
        assert int(answer.headers["content-length"]) > 100
        assert_no_effect(room)


async def test_paths_that_try_to_slip_past_the_token(tmp_path: Path):
    async with served(tmp_path) as room:
        for path in (
            "/healthz/../api/v1/status",
            "/healthz/%2e%2e/api/v1/status",
            "/healthz%2f..%2fapi/v1/status",
            "//api/v1/status",
            "/api//v1/status",
            "/api/v1/status/",
            "/API/V1/STATUS",
            "/api/v1/status;/healthz",
            "/healthz/",
            "/healthz%00",
            "http://evil.example/api/v1/status",
        ):
            got = await raw(room, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert got in (400, 401), path


async def test_errors_have_one_shape_and_nothing_unexpected_is_shown(tmp_path: Path):
    async with served(tmp_path) as room:
        assert code(await room.ask("GET", "/nothing")) == (404, "not_found")
        room.source.error = RuntimeError("canary-detail")
        with capture_logs() as lines:
            answer = await room.ask("POST", "/api/v1/audit", json={})
        assert code(answer) == (500, "internal_error")
        assert "canary" not in json.dumps(answer[1])
        assert [line["event"] for line in lines if line["log_level"] == "error"] == ["admin_request_failed"]


async def test_a_request_that_takes_too_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(middleware, "REQUEST_DEADLINE", 0.2)
    async with served(tmp_path) as room:
        reader, writer = await asyncio.open_connection("127.0.0.1", room.admin.port)
        head = "POST /api/v1/backfill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Authorization: Bearer {TOKEN}\r\nContent-Length: 10\r\n\r\n{{".encode())
        async with asyncio.timeout(5):
            assert b" 504 " in await reader.readline()
        writer.close()
        assert_no_effect(room)


async def test_wrong_tokens_are_limited_and_time_heals(tmp_path: Path):
    clock = JumpClock()
    async with served(tmp_path, clock=clock) as room:
        for _ in range(LOGIN_FAILURES):
            assert code(await room.ask("GET", "/api/v1/status", token="guess")) == (401, "unauthorized")
        answer = await room.ask("GET", "/api/v1/status", token="guess")
        assert code(answer) == (429, "too_many_failures")
        assert 1 <= int(answer[2].headers["retry-after"]) <= 7
        assert code(await room.ask("GET", "/api/v1/status"))[0] == 429
        assert (await room.ask("GET", "/healthz", token=None))[0] == 200
        clock.move(7)
        assert (await room.ask("GET", "/api/v1/status"))[0] == 200


async def test_many_guesses_at_once_count_like_many_in_a_row(tmp_path: Path):
    async with served(tmp_path) as room:
        answers = await asyncio.gather(*(room.ask("GET", "/api/v1/status", token="guess") for _ in range(40)))
        assert sum(answer[0] == 401 for answer in answers) <= LOGIN_FAILURES + 1


async def test_asking_without_a_token_is_no_guess(tmp_path: Path):
    async with served(tmp_path) as room:
        for _ in range(LOGIN_FAILURES + 5):
            assert (await room.ask("GET", "/api/v1/status", token=None))[0] == 401
        assert (await room.ask("GET", "/api/v1/status"))[0] == 200


async def test_a_token_that_cannot_be_read_lets_nobody_in(tmp_path: Path):
    def unreadable() -> str:
        raise SecretUnreadable("file /run/secrets/token cannot be read")

    async with served(tmp_path, token=Secret(unreadable, "file")) as room:
        with capture_logs() as lines:
            for _ in range(3):
                assert code(await room.ask("GET", "/api/v1/status")) == (503, "token_unreadable")
        assert [line["event"] for line in lines] == ["admin_token_unreadable"]


async def test_no_answer_shows_a_secret(tmp_path: Path):
    canaries = (TOKEN, KEY_IN_URL, WEBHOOK_SECRET, "canary-upstream-secret")
    log.register_secrets(canaries)
    async with served(tmp_path) as room:
        room.board.upstream.last_error = "the upstream said canary-upstream-secret"
        room.board.store_failure = f"said {TOKEN}"
        room.source.reason = f"because of {TOKEN}"
        texts = []
        for path in ("/healthz", "/readyz", "/metrics", "/api/v1/status", f"/{TOKEN}"):
            texts.append(str((await room.ask("GET", path))[1]))
        for path in POSTS:
            texts.append(str((await room.post(path))[1]))
            texts.append(str((await room.post(path, {"path": f"/x/{TOKEN}", "since": TOKEN, "target": TOKEN}))[1]))
        for canary in canaries:
            assert canary not in "".join(texts)
        assert "[redacted]" in "".join(texts)


async def raw(room: AdminRoom, request: str) -> int:
    """The status that these very bytes get."""
    reader, writer = await asyncio.open_connection("127.0.0.1", room.admin.port)
    try:
        async with asyncio.timeout(5):
            writer.write(request.encode())
            return int((await reader.readline()).split()[1])
    finally:
        writer.close()
        await writer.wait_closed()
