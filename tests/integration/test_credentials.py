"""How we identify ourselves, over real sockets: fixed credentials, and tokens from a scripted token server."""

import asyncio
import base64
import json
import re
import ssl
import subprocess
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from reach_kit import SECRET, Names, a_client, a_delivery, a_target, attempted

from relay.clock import SystemClock
from relay.errors import SecretUnreadable
from relay.model import FailureKind, Outcome
from relay.secret import Secret


class Http:
    """A server whose `answer(request)` the test gives; `requests` holds (path, headers, body)."""

    def __init__(self, answer, tls=None):
        self._answer = answer
        self._tls = tls
        self.requests = []

    async def __aenter__(self):
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc_info):
        await self._runner.cleanup()

    async def _handle(self, request):
        self.requests.append((request.path, request.headers, await request.read()))
        answer = self._answer(request)
        return await answer if asyncio.iscoroutine(answer) else answer

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"

    def authorizations(self):
        return [headers.get("authorization") for _, headers, _ in self.requests]


def basic(userinfo):
    return "Basic " + base64.b64encode(userinfo.encode()).decode()


def fine(request):
    return web.Response(text="ok")


def numbered():
    """Tokens t1, t2, ..."""
    count = 0

    def answer(request):
        nonlocal count
        count += 1
        return web.json_response({"access_token": f"t{count}", "token_type": "Bearer", "expires_in": 3600})

    return answer


def accepting(*tokens):
    """A target that answers 401 to any other token, and repeats the header as echoing receivers do."""

    def answer(request):
        given = request.headers.get("authorization", "")
        good = given in [f"Bearer {token}" for token in tokens]
        return web.Response(status=200 if good else 401, text=f"you sent {given}")

    return answer


def oauth2(url, **more):
    return {"oauth2": {"token_url": url, "client_id": "the id", "client_secret": "s:cret", **more}}


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ({"bearer": "tok-12345"}, "Bearer tok-12345"),
        ({"basic": {"username": "me", "password": "p:wörd"}}, basic("me:p:wörd")),
    ],
)
async def test_fixed_credentials_are_sent_and_never_kept(auth, expected):
    async with Http(lambda request: web.Response(status=500, text=str(dict(request.headers)))) as receiver:
        attempt = await attempted(a_target(receiver.url, auth=auth))
    assert receiver.authorizations() == [expected]
    assert expected.split(" ")[1].encode() not in attempt.response_body


async def test_userinfo_of_the_url_becomes_basic_credentials():
    async with Http(fine) as receiver:
        url = f"http://me:p%40ss@127.0.0.1:{receiver.port}/hooks"
        assert (await attempted(a_target(url))).outcome is Outcome.OK
    assert receiver.authorizations() == [basic("me:p@ss")]


async def test_a_token_is_asked_for_as_the_standard_says():
    async with Http(numbered()) as tokens, Http(fine) as receiver:
        target = a_target(receiver.url, auth=oauth2(tokens.url + "oauth/token", scope="a b"))
        attempt = await attempted(target)
    assert attempt.outcome is Outcome.OK
    assert receiver.authorizations() == ["Bearer t1"]
    ((path, headers, body),) = tokens.requests
    assert path == "/oauth/token"
    assert headers["authorization"] == basic("the+id:s%3Acret")
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert headers["user-agent"].startswith("houdini-relay/")
    assert parse_qs(body.decode()) == {"grant_type": ["client_credentials"], "scope": ["a b"]}


async def test_sixteen_attempts_at_once_ask_for_one_token():
    async with Http(numbered()) as tokens, Http(fine) as receiver:
        client = a_client(a_target(receiver.url, auth=oauth2(tokens.url)))
        attempts = await asyncio.gather(*(client.attempt(a_delivery()) for _ in range(16)))
        await client.close()
    assert [attempt.outcome for attempt in attempts] == [Outcome.OK] * 16
    assert len(tokens.requests) == 1
    assert receiver.authorizations() == ["Bearer t1"] * 16


async def test_a_401_gets_one_fresh_token_and_one_more_post():
    async with Http(numbered()) as tokens, Http(accepting("t2")) as receiver:
        attempt = await attempted(a_target(receiver.url, auth=oauth2(tokens.url)))
    assert attempt.outcome is Outcome.OK
    assert receiver.authorizations() == ["Bearer t1", "Bearer t2"]
    ids = [(headers["webhook-id"], headers["relay-attempt"]) for _, headers, _ in receiver.requests]
    assert ids == [("evt_1", "1")] * 2


async def test_a_second_401_is_the_result_and_the_next_attempts_make_no_storm():
    async with Http(numbered()) as tokens, Http(accepting("never")) as receiver:
        client = a_client(a_target(receiver.url, auth=oauth2(tokens.url)))
        attempts = [await client.attempt(a_delivery()) for _ in range(4)]
        await client.close()
    assert [attempt.status_code for attempt in attempts] == [401] * 4
    assert len(tokens.requests) == 2
    assert len(receiver.requests) == 5
    assert b"t2" not in attempts[0].response_body.replace(b"sent", b"")


async def test_a_401_to_fixed_credentials_is_just_that():
    async with Http(accepting("never")) as receiver:
        attempt = await attempted(a_target(receiver.url, auth={"bearer": "abc"}))
    assert attempt.status_code == 401
    assert len(receiver.requests) == 1


def answering(status=200, body=b"", **headers):
    return lambda request: web.Response(status=status, body=body, headers=headers)


TROUBLE = {
    "refused": (answering(401, b'{"error":"invalid_client","detail":"CANARY"}'), "answered 401 (invalid_client)"),
    "error page": (answering(500, b"<html>CANARY s:cret"), "answered 500"),
    "redirect": (answering(302, location="http://127.0.0.1:1/CANARY"), "answered with a redirect (302), which is not"),
    "no JSON": (answering(200, b"CANARY"), "answered with something that is no JSON object"),
    "no token": (answering(200, b'{"CANARY":1}'), "answered 200 without a usable access_token"),
    "line end": (answering(200, b'{"access_token":"CANARY\\r\\nx: y"}'), "answered 200 without a usable access_token"),
    "another type": (answering(200, b'{"access_token":"t","token_type":"CANARY"}'), "another token_type than bearer"),
    "too large": (answering(200, b'{"access_token":"' + b"t" * 70_000 + b'"}'), "answered with more than 65536 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", TROUBLE)
async def test_without_a_token_nothing_is_posted_and_a_sentence_says_why(case):
    answer, words = TROUBLE[case]
    async with Http(answer) as tokens, Http(fine) as receiver:
        attempt = await attempted(a_target(receiver.url, auth=oauth2(tokens.url)))
    assert (attempt.outcome, attempt.kind, attempt.status_code) == (Outcome.RETRY, FailureKind.AUTH, None)
    assert attempt.error.startswith("auth: the token server 127.0.0.1 ")
    assert words in attempt.error
    assert "CANARY" not in attempt.error
    assert "s:cret" not in attempt.error
    assert receiver.requests == []
    assert len(tokens.requests) == 1


async def test_a_token_server_that_fails_is_asked_once_by_sixteen_attempts():
    async with Http(answering(503)) as tokens, Http(fine) as receiver:
        client = a_client(a_target(receiver.url, auth=oauth2(tokens.url)))
        attempts = await asyncio.gather(*(client.attempt(a_delivery()) for _ in range(16)))
        attempts.append(await client.attempt(a_delivery()))
        await client.close()
    assert {attempt.kind for attempt in attempts} == {FailureKind.AUTH}
    assert len(tokens.requests) == 1


async def test_a_token_server_that_never_answers_costs_the_attempts_own_time_only():
    silent = asyncio.Event()

    async def hang(request):
        await silent.wait()
        return web.Response()

    async with Http(hang) as tokens, Http(fine) as receiver:
        client = a_client(a_target(receiver.url, auth=oauth2(tokens.url), timeout="1s"))
        attempt = await client.attempt(a_delivery())
        await client.close()
        silent.set()
    assert attempt.kind is FailureKind.TIMEOUT
    assert attempt.error == "timeout: nothing could be sent within 1 s"
    assert attempt.duration_ms < 5000
    assert receiver.requests == []


async def test_nobody_there_to_ask():
    async with Http(fine) as gone:
        port = gone.port
    attempt = await attempted(a_target("http://127.0.0.1:1/", auth=oauth2(f"http://127.0.0.1:{port}/")))
    assert attempt.error == "auth: the token server 127.0.0.1 could not be asked: Connection refused"


async def test_a_token_server_without_a_name():
    attempt = await attempted(a_target("http://127.0.0.1:1/", auth=oauth2("https://id.example.com/")), Names())
    assert attempt.error == "auth: the token server id.example.com cannot be reached: no such name"


async def test_an_answer_that_drips_is_cut_off(monkeypatch):
    monkeypatch.setattr("relay.delivery.token_request.FETCH_TIMEOUT", 0.5)

    async def drip(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    async with Http(drip) as tokens:
        attempt = await attempted(a_target("http://127.0.0.1:1/", auth=oauth2(tokens.url)))
    assert attempt.error == "auth: the token server 127.0.0.1 did not answer within 0.5 s"


async def test_a_secret_that_cannot_be_read_is_a_failed_attempt(tmp_path):
    file = tmp_path / "token"
    file.write_text("abc")
    async with Http(fine) as receiver:
        target = await asyncio.to_thread(a_target, receiver.url, auth={"bearer": {"file": str(file)}})
        client = a_client(target)
        assert (await client.attempt(a_delivery())).outcome is Outcome.OK
        file.write_text("rotated")
        assert (await client.attempt(a_delivery())).outcome is Outcome.OK
        file.unlink()
        attempt = await client.attempt(a_delivery())
        await client.close()
    assert receiver.authorizations() == ["Bearer abc", "Bearer rotated"]
    assert attempt.kind is FailureKind.REQUEST
    assert "rotated" not in attempt.error


async def test_the_first_attempt_waits_for_nothing_that_a_later_one_could_not_have():
    """A signing secret that is missing at first is read when it is there."""
    missing = True

    def read():
        if missing:
            raise SecretUnreadable("file /run/secrets/x cannot be read")
        return SECRET

    async with Http(fine) as receiver:
        target = a_target(receiver.url)
        client = a_client(target.model_copy(update={"secrets": (Secret(read, "file /run/secrets/x"),)}))
        first = await client.attempt(a_delivery())
        missing = False
        second = await client.attempt(a_delivery())
        await client.close()
    assert (first.kind, first.error) == (FailureKind.REQUEST, "request: file /run/secrets/x cannot be read")
    assert second.outcome is Outcome.OK


async def test_the_proxy_is_used_for_tokens_too():
    async with Http(numbered()) as proxy:
        target = a_target("https://shop.example.com/", auth=oauth2("http://127.0.0.1:9/token"), proxy=proxy.url)
        attempt = await attempted(target, Names())
    assert proxy.requests[0][0] == "/token"
    assert attempt.kind is FailureKind.PROXY  # it has no tunnel to the receiver


async def test_a_token_server_whose_certificate_is_not_trusted(tmp_path, openssl):
    certificate, context = self_signed(tmp_path)
    async with Http(numbered(), context) as tokens, Http(fine) as receiver:
        url = f"https://127.0.0.1:{tokens.port}/"
        refused = await attempted(a_target(receiver.url, auth=oauth2(url)))
        trusted = await attempted(a_target(receiver.url, auth=oauth2(url), tls={"ca_file": certificate}))
    assert refused.kind is FailureKind.AUTH
    assert "certificate refused, self-signed certificate" in refused.error
    assert trusted.outcome is Outcome.OK


def self_signed(folder):
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return str(certificate), context


@pytest.mark.parametrize("spell", [str, lambda secret: secret.removeprefix("whsec_"), lambda s: s.replace("/", "\\/")])
async def test_a_signing_secret_that_the_receiver_names_is_not_kept(spell):
    """Verifiers print what they compare, and some write every slash of JSON as `\\/`."""
    secret = "whsec_MfKQ9r8GK/qrTwjUPD8ILPZIo2LaLaSw"
    told = json.dumps({"computed with": spell(secret)}).replace("\\\\", "\\").encode()
    async with Http(answering(401, told)) as receiver:
        attempt = await attempted(a_target(receiver.url, secrets=[secret]))
    assert attempt.status_code == 401
    assert b"[redacted]" in attempt.response_body
    assert b"qrTwjUPD8ILPZIo2" not in attempt.response_body


async def test_the_echo_of_a_token_is_not_kept():
    answer = answering(200, json.dumps({"access_token": "LONG-TOKEN-1"}).encode())
    async with Http(answer) as tokens, Http(accepting("never")) as receiver:
        attempt = await attempted(a_target(receiver.url, auth=oauth2(tokens.url)))
    assert attempt.response_body == b"you sent [redacted]"
    assert SystemClock().wall_ms() >= attempt.at_ms


async def test_both_posts_and_both_tokens_share_one_deadline():
    never = asyncio.Event()

    async def hang(request):
        await never.wait()
        return web.Response()

    def answer(request):
        return hang(request) if request.headers["authorization"] == "Bearer t2" else web.Response(status=401)

    async with Http(numbered()) as tokens, Http(answer) as receiver:
        attempt = await attempted(a_target(receiver.url, auth=oauth2(tokens.url), timeout="2s"))
        never.set()
    assert attempt.kind is FailureKind.TIMEOUT
    assert 1900 < attempt.duration_ms < 6000
    assert receiver.authorizations() == ["Bearer t1", "Bearer t2"]


async def test_a_token_that_takes_half_the_time_leaves_half_for_the_post():
    never = asyncio.Event()
    numbers = numbered()

    async def slow(request):
        await asyncio.sleep(0.5)
        return numbers(request)

    async def hang(request):
        await never.wait()
        return web.Response()

    async with Http(slow) as tokens, Http(hang) as receiver:
        attempt = await attempted(a_target(receiver.url, auth=oauth2(tokens.url), timeout="2s"))
        never.set()
    assert attempt.kind is FailureKind.TIMEOUT
    left = re.search(r"within ([0-9.]+) s", attempt.error)
    assert float(left[1]) <= 1.5
    assert len(receiver.requests) == 1


async def test_a_signing_secret_is_kept_from_the_first_attempt_on(tmp_path):
    """Another content of its file counts at a reload, which docs/configuration.md says of it."""
    file = tmp_path / "secret"
    file.write_text(SECRET)
    async with Http(fine) as receiver:
        target = await asyncio.to_thread(a_target, receiver.url, secrets=[{"file": str(file)}])
        client = a_client(target)
        assert (await client.attempt(a_delivery())).outcome is Outcome.OK
        file.unlink()
        assert (await client.attempt(a_delivery())).outcome is Outcome.OK
        await client.close()
