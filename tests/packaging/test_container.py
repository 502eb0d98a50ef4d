"""The Dockerfile, built and run: what it may do, how it is watched, how it ends and how it comes back."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest
import yaml
from build_kit import interpreter
from container_kit import BASE, IMAGE, Containers, private_network
from stand_ins import StandIns, stand_ins, wait_for
from support.needs import require_root, require_tool

from relay.daemon import Exit

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(900)]

ADMIN_PORT = 8787
"""That of the image's health check."""


class Harbour:
    """The built image, the stand-ins, and a configuration for them."""

    def __init__(self, containers: Containers, around: StandIns, config: Path) -> None:
        self.containers = containers
        self.around = around
        self.config = config

    def up(self, name: str) -> None:
        """One with a volume of its own, started or started again, until it delivers."""
        if self.containers.podman("container", "exists", name, check=False).returncode == 0:
            self.containers.podman("start", name)
        else:
            files = (f"{name}-data:/var/lib/houdini-relay", f"{self.config}:/etc/houdini-relay/config.yaml:ro")
            secret = f"HOUDINI_SECRET={self.around.upstream['secret']}"
            self.containers.create(name, "-v", files[0], "-v", files[1], "-e", secret)
        self.until_healthy(name)
        self.around.until_more_arrive()

    def until_healthy(self, name: str) -> None:
        check = ("healthcheck", "run", name)
        wait_for(lambda: self.containers.podman(*check, check=False).returncode == 0, 60, f"{name} is healthy")

    def logs(self, name: str) -> str:
        done = self.containers.podman("logs", name)
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def harbour(debian_tree: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    require_root()
    for tool in ("buildah", "podman", "runc", "conmon", "ip"):
        require_tool(tool)
    folder = tmp_path_factory.mktemp("harbour")
    with private_network(f"relay-{os.getpid()}") as (network, inside), stand_ins(folder, inside) as around:
        containers = Containers(network)
        try:
            containers.import_base(debian_tree, interpreter("3.13"))
            containers.build(source)
            settings = around.settings(ADMIN_PORT, "${HOUDINI_SECRET}", target="shop")
            settings["store"] = {"url": "sqlite:////var/lib/houdini-relay/relay.db"}
            config = folder / "config.yaml"
            config.write_text(yaml.safe_dump(settings), encoding="utf-8")
            yield Harbour(containers, around, config)
        finally:
            containers.close()


@pytest.fixture
def relay(harbour: Harbour) -> str:
    """A container that delivers."""
    harbour.up("relay")
    return "relay"


def test_it_runs_as_nobody_and_may_write_only_its_volume(harbour: Harbour, relay: str):
    about = harbour.containers.about(relay)
    assert about["Config"]["User"] == "10001"
    status = dict(
        line.split(":\t")
        for line in harbour.containers.execute(relay, "cat", "/proc/1/status").splitlines()
        if ":\t" in line
    )
    assert status["Uid"].split() == ["10001"] * 4
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    script = "import os, sys; [print(p, os.access(p, os.W_OK)) for p in sys.argv[1:]]"
    places = ("/", "/opt/houdini-relay", "/etc", "/var/lib", "/var/lib/houdini-relay")
    found = dict(
        line.split() for line in harbour.containers.execute(relay, "python", "-c", script, *places).splitlines()
    )
    assert found == {**dict.fromkeys(places, "False"), "/var/lib/houdini-relay": "True"}
    assert "relay.db" in harbour.containers.execute(relay, "ls", "/var/lib/houdini-relay")


def test_the_secret_is_not_in_the_log(harbour: Harbour, relay: str):
    assert harbour.around.upstream["secret"] not in harbour.logs(relay)
    assert '"event": "started"' in harbour.logs(relay)


def test_the_health_check_tells_a_relay_that_stands_still(harbour: Harbour, relay: str):
    assert harbour.containers.about(relay)["Config"]["Healthcheck"]["Test"]
    pid = int(harbour.containers.about(relay)["State"]["Pid"])
    os.kill(pid, 19)
    try:
        assert harbour.containers.podman("healthcheck", "run", relay, check=False).returncode != 0
    finally:
        os.kill(pid, 18)
    harbour.until_healthy(relay)


def test_sigterm_ends_it_in_time_and_in_order(harbour: Harbour, relay: str):
    began = monotonic()
    harbour.containers.podman("stop", relay)
    assert monotonic() - began < 35
    state = harbour.containers.about(relay)["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    assert '"event": "stopped"' in harbour.logs(relay)


def test_after_kill_9_the_volume_holds_all_that_it_needs(harbour: Harbour, relay: str):
    harbour.containers.podman("kill", "-s", "KILL", relay)
    wait_for(lambda: harbour.containers.about(relay)["State"]["Status"] == "exited", 20, "it is dead")
    assert harbour.containers.about(relay)["State"]["ExitCode"] == 137
    seen = len(harbour.around.arrivals())
    harbour.up(relay)
    # An order that was known before the kill goes on counting: the store was not begun anew.
    known = {one["order"]: one["sequence"] for one in harbour.around.arrivals()[:seen]}
    wait_for(
        lambda: any(one["sequence"] > known.get(one["order"], 10**9) for one in harbour.around.arrivals()[seen:]),
        30,
        "an order of before goes on",
    )


def test_a_wrong_configuration_ends_with_its_own_exit_code(harbour: Harbour):
    harbour.containers.create("wrong", "-v", f"{harbour.config}:/etc/houdini-relay/config.yaml:ro")
    try:
        assert harbour.containers.podman("wait", "wrong").stdout.strip() == str(int(Exit.CONFIG))
        assert "HOUDINI_SECRET" in harbour.logs("wrong")
    finally:
        harbour.containers.podman("rm", "-f", "wrong")


def test_the_image_is_small(harbour: Harbour, record_property: Callable[[str, object], None]):
    def size(image: str) -> int:
        (found,) = json.loads(harbour.containers.podman("image", "inspect", image).stdout)
        return int(found["Size"]) // 1_000_000

    added = size(IMAGE) - size(BASE)
    record_property("image_mb", size(IMAGE))
    record_property("image_mb_without_base", added)
    print(f"image {size(IMAGE)} MB, {added} MB of it beside the base image")
    # No compiler, no build tools, no caches: the program, its dependencies and their bytecode.
    assert added < 120
    programs = harbour.containers.podman(
        "run", "--rm", "--network", "none", "--entrypoint", "ls", IMAGE, "/opt/houdini-relay/bin"
    )
    assert "houdini-relay" in programs.stdout.split()
    assert "pip" not in programs.stdout.split()
    names = harbour.containers.podman(
        "run", "--rm", "--network", "none", "--entrypoint", "ls", IMAGE, "/opt", "/"
    ).stdout
    assert not re.search(r"^(build|src)$", names, re.MULTILINE)
