"""Commands on a PostgreSQL store: beside instances that run on it, and without any."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.factories import event
from support.instances import instance, instances, wall_ms
from support.needs import missing
from support.postgres import shared_server
from support.stores import Bench, delivered, up_to

from relay.cli import main
from relay.config import load
from relay.config.secrets import secret_values
from relay.simulator.child import free_port
from relay.store.postgres import PostgresStore

CONFIG = """\
upstream:
  {{websocket_url: "ws://127.0.0.1:1/ws", rest_url: "http://127.0.0.1:1", partner_id: me, secret: "${{NOT_SET:-here}}"}}
targets: [{{name: alpha, url: "https://shop.example.com/", secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw]}}]
admin: {{listen: "127.0.0.1:{port}"}}
store: {{url: {url}}}
"""


class Screen:
    """Commands with a configuration of their own."""

    def __init__(self, config: Path, url: str) -> None:
        self.config, self.url = config, url
        self.configure(f'"{url}"')

    def configure(self, url: str) -> None:
        self.config.write_text(CONFIG.format(port=free_port(), url=url))

    async def type(self, *arguments: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "-c", str(self.config)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr


@pytest.fixture
async def screen(tmp_path: Path) -> AsyncIterator[Screen]:
    async with shared_server().database() as url:
        yield Screen(tmp_path / "config.yaml", url)


async def furnish(url: str) -> None:
    """Two events, of which alpha has the first."""
    bench = Bench(lambda: PostgresStore(url, wall_ms, lambda _seconds: None))
    await bench.open()
    now_ms = wall_ms()
    await bench.add(event("order-1", 4, webhook_id="evt_1", at_ms=now_ms), now_ms=now_ms)
    await bench.add(event("order-1", 5, sequence=2, webhook_id="evt_2", at_ms=now_ms), now_ms=now_ms)
    (head,) = await bench.claim("alpha", now_ms=now_ms)
    await bench.settle(delivered(head), now_ms=now_ms)
    await bench.store.close()


async def test_looking_without_any_instance(screen: Screen):
    await furnish(screen.url)
    code, out, err = await screen.type("deliveries", "list", "--json")
    assert (code, [one["status"] for one in json.loads(out)["items"]]) == (0, ["pending"] * 3 + ["delivered"])
    shown = screen.url.partition("?")[0]
    assert f"read from the store {shown}." in err
    assert json.loads((await screen.type("events", "show", "evt_1", "--json"))[1])["order"] == "order-1"
    assert json.loads((await screen.type("orders", "show", "order-1", "--json"))[1])["events"] == 2
    assert json.loads((await screen.type("deliveries", "show", "1", "--json"))[1])["attempts"][0]["outcome"] == "ok"
    assert [one["pending"] for one in json.loads((await screen.type("targets", "list", "--json"))[1])["items"]] == [
        1,
        2,
    ]
    code, out, _ = await screen.type("status")
    assert (code, "does not run" in out, "nothing is received or sent" in out) == (3, True, True)
    assert await screen.type("orders", "show", "nobody-knows-it") == (
        2,
        "",
        f"Nobody answers at admin.listen; this is read from the store {shown}.\n"
        "houdini-relay: there is no order of this id here\n",
    )


async def test_looking_and_looking_after_beside_instances(screen: Screen):
    await furnish(screen.url)
    async with instances(screen.url, 2) as (one, other):
        await one.lead(instance("one"))
        await other.lead(instance("two"))
        (head,) = (await one.claim("alpha", up_to(5), wall_ms())).deliveries
        await one.renew()
        found = json.loads((await screen.type("targets", "list", "--json"))[1])["items"]
        assert [(target["name"], target["in_flight"]) for target in found] == [("alpha", 1), ("beta", 0)]
        code, out, _ = await screen.type("status")
        assert (code, "this instance does not run" in out, "other instances receive and send" in out) == (3, True, True)
        flat = " ".join(out.split())
        assert "host-of-one one: leads (epoch 2)" in flat
        assert "host-of-two two: follows" in flat
        document = json.loads((await screen.type("status", "--json"))[1])
        assert [one["leads"] for one in document["instances"]] == [True, False]
        assert (await screen.type("store", "check"))[:2] == (0, f"{screen.url.partition('?')[0]}: fine\n")
        assert (await screen.type("store", "migrate"))[1].endswith(": up to date\n")
        code, out, _ = await screen.type("store", "prune", "--older-than", "1h", "--json")
        assert (code, json.loads(out)["deliveries"], json.loads(out)["bytes"]) == (0, 0, None)
        await one.settle([delivered(head)], lambda standing, _settlement: standing, wall_ms())
        assert (await other.backlog())["alpha"].pending == 0


async def test_preparing_a_database(screen: Screen):
    code, _, err = await screen.type("deliveries", "list")
    assert (code, "nothing of a relay is in it; `houdini-relay store migrate` prepares it" in err) == (3, True)
    assert (await screen.type("store", "check"))[0] == 3
    code, out, _ = await screen.type("store", "migrate", "--json")
    assert (code, json.loads(out)["applied"]) == (0, ["0001_initial.sql"])
    assert (await screen.type("deliveries", "list"))[:2] == (0, "No deliveries.\n")


async def test_a_newer_schema_is_left_alone(screen: Screen):
    await screen.type("store", "migrate")
    await shared_server().ask(
        "UPDATE relay_schema SET version = 99", database=screen.url.rpartition("/")[2].split("?")[0]
    )
    for command in (("store", "migrate"), ("store", "check"), ("deliveries", "list"), ("store", "prune")):
        code, _, err = await screen.type(*command)
        assert (code, "run the newer version again" in err) == (3, True), command


async def test_back_ups_are_the_databases_own_business(screen: Screen, tmp_path: Path):
    code, out, err = await screen.type("store", "backup", str(tmp_path / "copy"))
    assert (code, out, "pg_dump" in err) == (2, "", True)
    code, out, err = await screen.type("store", "copy", "--to", screen.url)
    assert (code, out, "works on a SQLite file only" in err) == (2, "", True)


@pytest.mark.parametrize("command", [("deliveries", "list"), ("status",), ("store", "check"), ("store", "migrate")])
async def test_a_database_that_is_away_or_refuses_is_a_sentence_without_the_password(
    screen: Screen, command: tuple[str, ...]
):
    screen.configure('"postgresql://relay:hunter2@127.0.0.1:1/x?sslmode=disable"')
    code, out, err = await screen.type(*command)
    assert (code, out) == (3, "")
    assert "postgresql://relay@127.0.0.1:1/x: it cannot be reached" in err
    assert "hunter2" not in err


async def test_without_the_driver_every_command_says_what_to_install(screen: Screen, monkeypatch: pytest.MonkeyPatch):
    for name in [
        name for name in sys.modules if name.startswith(("asyncpg", "relay.store.postgres", "relay.store.copying"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    for command in (("deliveries", "list"), ("status",), ("store", "check"), ("store", "migrate"), ("store", "prune")):
        code, _, err = await screen.type(*command)
        assert (code, "pip install 'houdini-relay[postgres]'" in err) == (3, True), command


async def test_the_password_from_a_file_or_a_variable(screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    await furnish(screen.url)
    file = tmp_path / "url"
    file.write_text(screen.url.replace("postgres@", "postgres:hunter22@") + "\n")
    screen.configure(f'{{file: "{file}"}}')
    code, out, _ = await screen.type("store", "check")
    assert (code, "hunter22" in out, "postgres@127" in out) == (0, False, True)
    settings = await asyncio.to_thread(load, screen.config, environ={"NOT_SET": "x"})
    assert "hunter22" in await asyncio.to_thread(lambda: set(secret_values(settings)))
    assert "hunter22" not in f"{settings!r} {settings.model_dump_json()}"
    file.unlink()
    code, _, err = await screen.type("store", "check")
    assert (code, "store.url cannot be read: file" in err) == (3, True)
    screen.configure('"' + screen.url.replace("postgres@", "postgres:${RELAY_TEST_PASSWORD}@") + '"')
    code, _, err = await screen.type("deliveries", "list")
    assert (code, "store.url cannot be read: the environment variable RELAY_TEST_PASSWORD is not set" in err) == (
        3,
        True,
    )
    monkeypatch.setenv("RELAY_TEST_PASSWORD", "hunter22")
    assert (await screen.type("deliveries", "list"))[0] == 0


async def test_a_dump_that_was_restored_is_a_sound_store_with_the_same_deliveries(screen: Screen):
    await furnish(screen.url)
    server, name = shared_server(), screen.url.rpartition("/")[2].partition("?")[0]
    before = json.loads((await screen.type("deliveries", "list", "--json"))[1])
    dump = server.command("pg_dump", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", name)
    if not Path(dump[-8]).exists():
        missing("pg_dump is not installed")
    script = await asyncio.to_thread(subprocess.run, dump, capture_output=True, check=True, timeout=30, cwd="/")
    async with server.database() as url:
        load = [*server.command("psql"), "-q", "-v", "ON_ERROR_STOP=1", url]
        await asyncio.to_thread(subprocess.run, load, input=script.stdout, check=True, timeout=30, cwd="/")
        screen.configure(f'"{url}"')
        assert (await screen.type("store", "check"))[0] == 0
        assert json.loads((await screen.type("deliveries", "list", "--json"))[1]) == before


async def test_check_connect_says_whether_the_database_can_be_reached(screen: Screen):
    code, out, _ = await screen.type("check", "--connect", "--json")
    assert (code, json.loads(out)["store"]) == (1, {"problem": None}), "the upstream of this configuration is not there"
    assert "fine" in (await screen.type("check", "--connect"))[1].partition("store ")[2].splitlines()[1]
    screen.configure('"postgresql://relay:hunter2@127.0.0.1:1/x?sslmode=disable"')
    code, out, _ = await screen.type("check", "--connect")
    assert (code, "hunter2" in out) == (1, False)
    assert "FAILED: store postgresql://relay@127.0.0.1:1/x: it cannot be reached" in " ".join(out.split())
