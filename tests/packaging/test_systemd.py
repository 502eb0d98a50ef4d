"""Both units under a real systemd, installed by the very steps that docs/operations.md gives."""

import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from time import monotonic
from typing import Any

import pytest
import yaml
from machine_kit import Machine, booted
from stand_ins import WEBHOOK_SECRET, StandIns, stand_ins, wait_for
from support.needs import require_root, require_tool

from relay.daemon import Exit
from relay.simulator.child import free_port

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PLAIN, EU, US = "houdini-relay", "houdini-relay@eu", "houdini-relay@us"
UNIT_TEXT = (ROOT / "systemd/houdini-relay.service").read_text(encoding="utf-8")
SECRET = {"credential": "houdini-secret"}
INSTALLED_AS = "/usr/local/lib/systemd/system"


class Site:
    """A machine with three relays on it, and what they talk to."""

    def __init__(self, machine: Machine, around: StandIns) -> None:
        self.machine = machine
        self.around = around
        self.ports = {unit: free_port() for unit in (PLAIN, EU, US)}

    def config(self, unit: str) -> str:
        """What the operator writes; the paths are those of the documentation."""
        instance = unit.partition("@")[2]
        settings = self.around.settings(self.ports[unit], SECRET, target=instance or "shop")
        settings["store"] = {"url": f"sqlite:////var/lib/{unit.replace('@', '-')}/relay.db"}
        if unit == PLAIN:
            settings["targets"][0]["secrets"] = [{"credential": "shop-secret"}]
        return yaml.safe_dump(settings)

    def ask(self, unit: str, path: str) -> tuple[int, str]:
        """The admin server's answer; 0 when nobody listens."""
        url = f"http://127.0.0.1:{self.ports[unit]}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def until_ready(self, *units: str) -> None:
        """These run and are ready, and no other does: what arrives comes from them."""
        others = [unit for unit in self.ports if unit not in units]
        self.machine.run("systemctl", "stop", *others)
        for unit in units:
            self.machine.start(unit)
        for unit in units:
            wait_for(lambda unit=unit: self.ask(unit, "/readyz")[0] == 200, 30, f"{unit} is ready")


@pytest.fixture(scope="module")
def site(debian_tree: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require_root()
    for tool in ("systemd-nspawn", "nsenter"):
        require_tool(tool)
    folder = tmp_path_factory.mktemp("site")
    with stand_ins(folder) as around, booted(debian_tree, folder) as machine:
        made = Site(machine, around)
        clone = machine.root / "usr/src/houdini-relay"
        shutil.copytree(source, clone)
        (clone / "config.yaml").write_text(made.config(PLAIN), encoding="utf-8")
        (clone / "eu.yaml").write_text(made.config(EU), encoding="utf-8")
        (clone / "secrets").mkdir()
        (clone / "secrets" / "shop").write_text(WEBHOOK_SECRET + "\n", encoding="utf-8")
        for block in documented_steps():
            # bash, as the page says; what is pasted at the prompt of the block with `read`
            machine.run(
                "bash", "-ec", f"umask 077; cd /usr/src/houdini-relay; {block}", text=around.upstream["secret"] + "\n"
            )
        put(machine, "/etc/houdini-relay/us.yaml", made.config(US))
        put(machine, "/etc/houdini-relay/us.houdini-secret", "not-the-secret\n", mode="0600")
        yield made


def documented_steps() -> list[str]:
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    section = text.split("\n## Under systemd\n")[1].split("\n## ")[0]
    found = re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    for unit in ("houdini-relay", "houdini-relay@eu"):
        (begun,) = (at for at, block in enumerate(found) if f"systemctl enable --now {unit}\n" in block)
        assert " check -c " in found[begun - 1], "it is checked before it starts"
    asking = [block for block in found if block.startswith("read -rsp ")]
    assert [block.count("\n") for block in asking] == [1, 1], "a line after it would be pasted as the secret"
    return found


def put(machine: Machine, path: str, text: str, mode: str = "0644") -> None:
    machine.run("install", "-D", "-m", mode, "/dev/stdin", path, text=text)


def test_the_documented_steps_lead_to_verified_deliveries(site: Site):
    for unit in (PLAIN, EU):
        assert site.machine.run("systemctl", "is-enabled", unit).stdout.strip() == "enabled"
        site.until_ready(unit)
        site.around.until_more_arrive()


def test_systemd_finds_nothing_to_complain_about(site: Site):
    units = [f"{INSTALLED_AS}/houdini-relay.service", "houdini-relay@eu.service"]
    done = site.machine.run("systemd-analyze", "verify", *units)
    assert done.stderr == ""


def test_a_start_lasts_until_the_daemon_says_that_it_is_ready(site: Site):
    site.machine.run("systemctl", "stop", PLAIN)
    site.machine.start(PLAIN)
    assert site.ask(PLAIN, "/healthz")[0] == 200
    assert site.machine.shows(PLAIN, "StatusText") == "delivering to 1 target(s)"

    site.machine.run("systemctl", "stop", EU)
    dropin = f"/run/systemd/system/{EU}.service.d/mute.conf"
    command = "/usr/local/bin/houdini-relay run --config /etc/houdini-relay/eu.yaml"
    put(site.machine, dropin, f"[Service]\nExecStart=\nExecStart=/usr/bin/env -u NOTIFY_SOCKET {command}\n")
    try:
        site.machine.run("systemctl", "daemon-reload")
        site.machine.run("systemctl", "start", "--no-block", EU)
        wait_for(lambda: site.ask(EU, "/healthz")[0] == 200, 30, "the muted daemon runs")
        assert site.machine.shows(EU, "ActiveState") == "activating"
    finally:
        site.machine.run("rm", dropin)
        site.machine.run("systemctl", "daemon-reload")
        site.machine.run("systemctl", "stop", EU)


def test_after_kill_9_it_comes_back_and_goes_on(site: Site):
    site.until_ready(PLAIN)
    before, restarts = site.machine.pid(PLAIN), int(site.machine.shows(PLAIN, "NRestarts"))
    site.machine.run("systemctl", "kill", "-s", "KILL", PLAIN)
    wait_for(lambda: site.machine.pid(PLAIN) not in (0, before), 30, "another process")
    assert int(site.machine.shows(PLAIN, "NRestarts")) == restarts + 1
    wait_for(lambda: site.ask(PLAIN, "/readyz")[0] == 200, 30, "ready again")
    site.around.until_more_arrive()


def test_systemd_never_gives_up(site: Site):
    """By default a sixth start within ten seconds is refused, and `Restart=` no longer heeded."""
    for _ in range(7):
        site.machine.start(PLAIN)
        site.machine.run("systemctl", "stop", PLAIN)


def test_a_wrong_configuration_is_not_tried_again(site: Site):
    put(site.machine, "/etc/houdini-relay/wrong.yaml", "upstream: {}\n")
    put(site.machine, "/etc/houdini-relay/wrong.houdini-secret", "s\n", mode="0600")
    unit = "houdini-relay@wrong"
    assert site.machine.run("systemctl", "start", unit, check=False).returncode != 0
    assert site.machine.shows(unit, "ActiveState") == "failed"
    assert int(site.machine.shows(unit, "ExecMainStatus")) == Exit.CONFIG
    assert site.machine.shows(unit, "NRestarts") == "0"
    assert "targets" in site.machine.run("journalctl", "--no-pager", "-o", "cat", "-u", unit).stdout
    site.machine.run("systemctl", "reset-failed", unit)


def test_it_stops_by_itself_in_time(site: Site):
    site.until_ready(PLAIN)
    site.around.until_more_arrive()
    began = monotonic()
    site.machine.run("systemctl", "stop", PLAIN)
    assert monotonic() - began < 35, "TimeoutStopSec"
    assert site.machine.shows(PLAIN, "Result") == "success"
    assert site.machine.shows(PLAIN, "ExecMainStatus") == "0"


def test_the_process_can_do_little_and_its_store_is_its_own(site: Site):
    site.until_ready(PLAIN)
    pid = site.machine.pid(PLAIN)
    about = status_of(site.machine, pid)
    assert int(about["Uid"].split()[0]) >= 61184, "the users that systemd makes up begin there"
    assert {about[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (about["NoNewPrivs"], about["Seccomp"]) == ("1", "2")
    store = "/var/lib/houdini-relay/relay.db"
    owner, mode = site.machine.run("stat", "-Lc", "%u %a", store).stdout.split()
    assert (owner, mode) == (about["Uid"].split()[0], "600")
    assert site.machine.run("stat", "-Lc", "%a", "/var/lib/houdini-relay").stdout.strip() == "700"
    mounts = site.machine.read(f"/proc/{pid}/mountinfo").splitlines()
    assert [line.split()[5].split(",")[0] for line in mounts if line.split()[4] == "/"][-1] == "ro"


def test_units_side_by_side_share_nothing(site: Site):
    site.until_ready(PLAIN, EU)
    site.machine.start(US)
    wait_for(lambda: "auth_failed" in site.ask(US, "/readyz")[1], 30, "the wrong secret of one instance is refused")
    seen: dict[str, dict[str, Any]] = {}
    for unit in (PLAIN, EU, US):
        pid = site.machine.pid(unit)
        root = PurePosixPath("/proc", str(pid), "root")  # the unit's own view of the file system
        seen[unit] = {
            "user": status_of(site.machine, pid)["Uid"],
            "states": site.machine.run("ls", str(root / "var/lib/private")).stdout.split(),
            "secret": site.machine.read(str(root / f"run/credentials/{unit}.service/houdini-secret")).strip(),
        }
    assert len({about["user"] for about in seen.values()}) == 3
    assert [about["states"] for about in seen.values()] == [
        ["houdini-relay"],
        ["houdini-relay-eu"],
        ["houdini-relay-us"],
    ]
    right = site.around.upstream["secret"]
    assert [about["secret"] for about in seen.values()] == [right, right, "not-the-secret"]
    assert [site.ask(unit, "/readyz")[0] for unit in (PLAIN, EU)] == [200, 200], "the others go on"
    site.machine.run("systemctl", "stop", US)


def status_of(machine: Machine, pid: int) -> dict[str, str]:
    lines = machine.read(f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


if "\nExecReload=" in UNIT_TEXT:

    def test_a_reload_keeps_the_process_and_the_deliveries(site: Site):
        site.until_ready(PLAIN)
        before = site.machine.pid(PLAIN)
        site.machine.run("systemctl", "reload", PLAIN)
        assert (site.machine.pid(PLAIN), site.machine.shows(PLAIN, "ActiveState")) == (before, "active")
        site.around.until_more_arrive()


if "\nWatchdogSec=" in UNIT_TEXT:

    def test_a_process_that_stands_still_is_replaced(site: Site):
        site.until_ready(PLAIN)
        before = site.machine.pid(PLAIN)
        site.machine.run("kill", "-STOP", str(before))
        # The watchdog's time, then TimeoutAbortSec because a stopped process cannot even abort, then RestartSec.
        wait_for(lambda: site.machine.pid(PLAIN) not in (0, before), 150, "another process")
        assert "watchdog" in site.machine.run("journalctl", "--no-pager", "-u", PLAIN).stdout.lower()
        wait_for(lambda: site.ask(PLAIN, "/readyz")[0] == 200, 30, "ready again")
