"""`check --connect`: every host a relay needs, named with what came of it."""

import asyncio
import json
import socket
import threading
from contextlib import contextmanager

import pytest
from click.testing import CliRunner
from reach_kit import Forbidden, Names, a_target

from relay.cli import main
from relay.clock import SystemClock
from relay.delivery.trial import Trials

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@contextmanager
def listening():
    """Accepts and closes, in a thread: the command has a loop of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        received = []

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    received.append(connection.recv(1))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield port, received
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def config(tmp_path, port, *targets):
    path = tmp_path / "config.yaml"
    lines = [f"  - {{name: {name}, url: {url!r}, secrets: [{WHSEC}]{more}}}" for name, url, more in targets]
    path.write_text(
        f"upstream: {{websocket_url: 'ws://127.0.0.1:{port}/ws', rest_url: 'http://127.0.0.1:{port}', "
        "partner_id: p, secret: CANARY}\ntargets:\n" + "\n".join(lines)
    )
    return str(path)


def test_everything_is_reached_and_nothing_is_posted(tmp_path):
    with listening() as (port, received):
        path = config(tmp_path, port, ("shop", f"http://127.0.0.1:{port}/hooks/CANARY", ""))
        result = CliRunner().invoke(main, ["check", "--connect", "-c", path])
    assert result.exit_code == 0, result.output
    assert f"{path}: fine\n" in result.output
    assert result.output.count("fine: ") == 3
    assert "fine: target 127.0.0.1" in result.output
    assert "CANARY" not in result.output
    assert received == [b""] * 3


def test_what_cannot_be_reached_is_named_and_the_exit_code_says_so(tmp_path):
    oauth2 = (
        f", auth: {{oauth2: {{token_url: 'http://127.0.0.1:{closed_port()}/t', client_id: a, client_secret: CANARY}}}}"
    )
    with listening() as (port, _):
        path = config(tmp_path, port, ("shop", f"http://127.0.0.1:{port}/hooks", oauth2))
        result = CliRunner().invoke(main, ["check", "--connect", "-c", path])
        machine = CliRunner().invoke(main, ["check", "--connect", "--json", "-c", path])
        plain = CliRunner().invoke(main, ["check", "-c", path])
    assert result.exit_code == machine.exit_code == 1
    assert "fine, but not everything can be reached" in result.output
    assert "FAILED: token server 127.0.0.1: connect: Connection refused" in result.output
    assert all(len(line) <= 80 or "/" in line for line in result.output.splitlines())
    document = json.loads(machine.output)
    assert document["ok"] is False
    (target,) = document["targets"]
    assert [(host["what"], host["problem"]) for host in target["hosts"]] == [
        ("target", None),
        ("token server", "connect: Connection refused"),
    ]
    assert [host["problem"] for host in document["upstream"]["hosts"]] == [None, None]
    assert "CANARY" not in result.output + machine.output
    assert plain.exit_code == 0


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


async def test_a_certificate_file_that_is_missing_is_told():
    target = a_target("https://shop.example.com/", tls={"ca_file": "/nowhere/ca.pem"})
    ((*_, problem),) = await tried(target, Names(shop_example_com=["127.0.0.1"]))
    assert problem == "request: tls.ca_file of target shop cannot be used: No such file or directory"


async def test_the_upstream_may_have_any_address():
    async with Forbidden() as listener:
        trial = await Trials(Names(up_example_com=["127.0.0.1"]), SystemClock(), "0", 5.0).upstream(
            f"ws://up.example.com:{listener.port}/ws"
        )
    assert (trial.what, trial.problem) == ("upstream", None)


@pytest.mark.parametrize("option", ["--connect", "--json"])
def test_the_options_are_documented(option):
    assert option in CliRunner().invoke(main, ["check", "--help"]).output
