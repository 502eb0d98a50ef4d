"""`check --connect`: every host a relay needs, named with what came of it."""

import asyncio
import json
import socket

import pytest
from click.testing import CliRunner
from reach_kit import Forbidden, Names, a_target
from support.in_thread import PARTNER, UPSTREAM_SECRET, upstream_and_receiver

from relay.cli import main
from relay.clock import SystemClock
from relay.delivery.trial import Trials

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def servers():
    with upstream_and_receiver(WHSEC) as both:
        yield both


def config(tmp_path, upstream, *targets, secret=UPSTREAM_SECRET, **urls):
    """A file with these targets, (name, URL, more) each."""
    path = tmp_path / "config.yaml"
    lines = [f"  - {{name: {name}, url: {url!r}, secrets: [{WHSEC}]{more}}}" for name, url, more in targets]
    websocket = urls.get("websocket", upstream.websocket_url)
    rest = urls.get("rest", upstream.rest_url)
    path.write_text(
        f"upstream: {{websocket_url: {websocket!r}, rest_url: {rest!r}, partner_id: {PARTNER}, secret: {secret}}}\n"
        "targets:\n" + "\n".join(lines)
    )
    return str(path)


def check(path, *options):
    return CliRunner().invoke(main, ["check", *options, "-c", path])


def found(result):
    """The lines of what was tried, each in one piece."""
    text = result.output.replace("\n              ", " ")
    return [line.strip() for line in text.splitlines() if line.startswith(" " * 12)]


def test_every_step_is_taken_and_nothing_is_posted(tmp_path, servers):
    upstream, receiver = servers
    path = config(tmp_path, upstream, ("shop", f"http://127.0.0.1:{receiver.port}/hooks/CANARY", ""))
    result = check(path, "--connect")
    assert result.exit_code == 0, result.output
    assert f"{path}: fine\n" in result.output
    assert found(result) == [
        "fine: upstream WebSocket 127.0.0.1",
        "fine: upstream REST 127.0.0.1",
        "fine: credentials accepted by the WebSocket",
        "fine: subscription to all orders acknowledged",
        "fine: REST lists 0 order(s), the last 48 h",
        "fine: target 127.0.0.1",
    ]
    assert "CANARY" not in result.output
    assert not receiver.arrivals


def test_a_test_event_is_posted_when_asked_for(tmp_path, servers):
    upstream, receiver = servers
    url = f"http://127.0.0.1:{receiver.port}/hooks/CANARY"
    path = config(tmp_path, upstream, ("shop", url, ""), ("ledger", url.replace("hooks", "ledger"), ""))
    result = check(path, "--connect", "--send-test")
    assert result.exit_code == 0, result.output
    assert sum(line.startswith("fine: test event: status 200 in") for line in found(result)) == 2
    assert [json.loads(one.body)["type"] for one in receiver.arrivals] == ["relay.test"] * 2
    assert all(one.acknowledged for one in receiver.arrivals)  # so the signature holds
    document = json.loads(check(path, "--connect", "--send-test", "--json").output)
    assert [one["test"]["status_code"] for one in document["targets"]] == [200, 200]
    assert [step["ok"] for step in document["upstream"]["steps"]] == [True] * 3


def test_a_receiver_that_believes_no_signature_fails_the_check(tmp_path, servers):
    upstream, receiver = servers
    receiver.misbehaviour.fail_rate = 1.0
    path = config(tmp_path, upstream, ("shop", f"http://127.0.0.1:{receiver.port}/", ""))
    result = check(path, "--connect", "--send-test")
    assert result.exit_code == 1
    (line,) = (line for line in found(result) if "test event" in line)
    assert line.startswith("FAILED: test event: status 500: told to fail (")
    assert line.endswith(" ms) -> see the receiver's own log: it was reached, and failed")


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (302, "redirects are not followed"),
        (400, "compare its secret"),
        (401, "compare its secret"),
        (404, "correct the path of its URL"),
        (410, "it wants nothing more"),
        (422, "make it answer 2xx"),
        (503, "see the receiver's own log"),
    ],
)
def test_what_to_do_goes_by_the_status(tmp_path, servers, status: int, advice: str):
    upstream, receiver = servers
    receiver.misbehaviour.fail_rate, receiver.misbehaviour.status = 1.0, status
    path = config(tmp_path, upstream, ("shop", f"http://127.0.0.1:{receiver.port}/", ""))
    (line,) = (line for line in found(check(path, "--connect", "--send-test")) if "test event" in line)
    assert f"status {status}: told to fail" in line
    assert advice in " ".join(line.partition(" -> ")[2].split())


def test_wrong_credentials_are_told_from_a_host_that_is_away(tmp_path, servers):
    upstream, receiver = servers
    target = ("shop", f"http://127.0.0.1:{receiver.port}/", "")
    wrong = check(config(tmp_path, upstream, target, secret="CANARY-wrong"), "--connect")
    assert wrong.exit_code == 1
    lines = found(wrong)
    assert [line for line in lines if line.startswith("FAILED")] == lines[2:4]
    assert all(line.endswith("check upstream.partner_id and upstream.secret") for line in lines[2:4])
    assert "CANARY" not in wrong.output
    away = check(config(tmp_path, upstream, target, websocket=f"ws://127.0.0.1:{closed_port()}/ws"), "--connect")
    assert away.exit_code == 1
    assert found(away)[0].startswith("FAILED: upstream WebSocket 127.0.0.1: connect: Connection refused -> start what")
    assert not any("credentials" in line for line in found(away))


def test_a_subscription_that_is_not_acknowledged_is_the_step_that_fails(tmp_path, servers):
    upstream, receiver = servers
    upstream.faults.update({"mute": True})
    path = config(tmp_path, upstream, ("shop", f"http://127.0.0.1:{receiver.port}/", ""))
    path_text = (tmp_path / "config.yaml").read_text().replace("upstream: {", "upstream: {handshake_timeout: 300ms, ")
    (tmp_path / "config.yaml").write_text(path_text)
    result = check(path, "--connect")
    assert result.exit_code == 1
    assert "fine: WebSocket opened" in found(result)
    assert "FAILED: connected, but no welcome came in time" in found(result)


def test_what_cannot_be_reached_is_named_and_the_exit_code_says_so(tmp_path, servers):
    upstream, receiver = servers
    oauth2 = (
        f", auth: {{oauth2: {{token_url: 'http://127.0.0.1:{closed_port()}/t', client_id: a, client_secret: CANARY}}}}"
    )
    path = config(tmp_path, upstream, ("shop", f"http://127.0.0.1:{receiver.port}/hooks", oauth2))
    result = check(path, "--connect", "--send-test")
    machine = check(path, "--connect", "--json")
    assert result.exit_code == machine.exit_code == 1
    assert "the configuration is fine, but not everything answers" in result.output
    assert "FAILED: token server 127.0.0.1: connect: Connection refused" in result.output
    assert all(len(line) <= 80 or "/" in line for line in result.output.splitlines())
    document = json.loads(machine.output)
    assert document["ok"] is False
    (target,) = document["targets"]
    assert [(host["what"], host["problem"]) for host in target["hosts"]] == [
        ("target", None),
        ("token server", "connect: Connection refused"),
    ]
    assert not receiver.arrivals  # no test where a host cannot be reached
    assert "CANARY" not in result.output + machine.output
    assert check(path).exit_code == 0


def test_a_test_event_without_connecting_is_asked_for_wrongly(tmp_path, servers):
    upstream, receiver = servers
    result = check(config(tmp_path, upstream, ("shop", f"http://127.0.0.1:{receiver.port}/", "")), "--send-test")
    assert result.exit_code == 2
    assert "--send-test goes with --connect" in result.output


async def tried(target, names, seconds=5.0):
    run = Trials(names, SystemClock(), "0", seconds)
    return [(trial.what, trial.host, trial.addresses, trial.problem) for trial in await run.target(target)]


async def test_a_block_by_policy_is_told_with_the_key_to_set():
    names = Names(shop_example_com=["10.0.0.7"])
    async with Forbidden() as listener:
        ((what, host, addresses, problem),) = await tried(a_target("https://shop.example.com/"), names)
    assert (what, host, addresses) == ("target", "shop.example.com", ("10.0.0.7",))
    assert problem == (
        "forbidden: 10.0.0.7 is a private address (10.0.0.0/8); if this receiver is meant, "
        "add its network to this target's allow_networks"
    )
    assert listener.accepted == 0


async def test_the_proxy_is_what_is_dialled():
    names = Names(proxy_example_com=["127.0.0.1"])
    target = a_target("https://shop.example.com/", proxy="http://proxy.example.com:3128")
    ((what, host, _, problem),) = await tried(target, names)
    assert (what, host) == ("target", "proxy.example.com")
    assert problem.startswith("forbidden: 127.0.0.1 is a loopback address")


async def test_a_name_that_does_not_exist_and_one_that_never_answers():
    class Hanging(Names):
        async def resolve(self, host, port):
            if host == "hangs.example.com":
                await asyncio.Event().wait()
            return await super().resolve(host, port)

    ((*_, problem),) = await tried(a_target("https://nowhere.example.com/"), Names())
    assert problem == "dns: no such name"
    ((*_, problem),) = await tried(a_target("https://hangs.example.com/"), Hanging(), seconds=0.1)
    assert problem.startswith("timeout: no answer within 0.1 s")


async def test_what_to_do_is_said_once():
    run = Trials(Names(shop_example_com=["10.0.0.7"]), SystemClock(), "0", 5.0)
    (unknown,) = await run.target(a_target("https://nowhere.example.com/"))
    (forbidden,) = await run.target(a_target("https://shop.example.com/"))
    assert unknown.advice.startswith("correct the name")
    assert forbidden.advice is None  # its problem names the key to set


async def test_a_certificate_file_that_is_missing_is_told():
    target = a_target("https://shop.example.com/", tls={"ca_file": "/nowhere/ca.pem"})
    ((*_, problem),) = await tried(target, Names(shop_example_com=["127.0.0.1"]))
    assert problem == "request: tls.ca_file of target shop cannot be used: No such file or directory"


async def test_the_upstream_may_have_any_address():
    async with Forbidden() as listener:
        trial = await Trials(Names(up_example_com=["127.0.0.1"]), SystemClock(), "0", 5.0).upstream(
            "WebSocket", f"ws://up.example.com:{listener.port}/ws"
        )
    assert (trial.what, trial.problem) == ("upstream WebSocket", None)


@pytest.mark.parametrize("option", ["--connect", "--send-test", "--json"])
def test_the_options_are_documented(option):
    assert option in CliRunner().invoke(main, ["check", "--help"]).output
