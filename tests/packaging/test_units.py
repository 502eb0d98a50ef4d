"""The two systemd units as text: they fit the daemon, are hardened, and differ only in whose they are."""

import re
import subprocess
from pathlib import Path

import pytest
from support.needs import require_tool

from relay.daemon import DRAIN_GRACE, Exit

UNITS = Path(__file__).parents[2] / "systemd"
PLAIN, TEMPLATE = UNITS / "houdini-relay.service", UNITS / "houdini-relay@.service"
BOTH = pytest.mark.parametrize("unit", [PLAIN, TEMPLATE], ids=lambda path: path.name)


def settings(unit: Path) -> list[str]:
    """Its lines, comments and empty ones aside."""
    return [line for line in unit.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def value(unit: Path, name: str) -> str:
    (found,) = (line.split("=", 1)[1] for line in settings(unit) if line.startswith(f"{name}="))
    return found


@BOTH
def test_a_unit_fits_the_daemon(unit: Path):
    assert value(unit, "Type") == "notify"
    assert int(value(unit, "RestartPreventExitStatus")) == Exit.CONFIG
    assert int(value(unit, "TimeoutStopSec")) > DRAIN_GRACE + 10
    assert value(unit, "Restart") == "always"
    assert value(unit, "StartLimitIntervalSec") == "0"
    assert value(unit, "DynamicUser") == "yes"
    assert " run --config " in value(unit, "ExecStart")


def test_an_instance_shares_nothing_with_another_unit():
    own = {line.split("=")[0] for line in settings(TEMPLATE) if "%i" in line}
    assert own == {"Description", "ExecStart", "LoadCredential", "WorkingDirectory", "StateDirectory", "User"}
    # A directory inside another unit's state directory would be that unit's, too.
    states = value(PLAIN, "StateDirectory"), value(TEMPLATE, "StateDirectory")
    assert all("/" not in state for state in states)
    assert value(TEMPLATE, "WorkingDirectory") == f"%S/{states[1]}"


def test_what_is_not_an_instances_own_is_the_same_in_both():
    common = [line for line in settings(TEMPLATE) if "%i" not in line]
    counterparts = {line.split("=")[0] for line in settings(TEMPLATE) if "%i" in line} - {"User"}
    assert common == [line for line in settings(PLAIN) if line.split("=")[0] not in counterparts]


@BOTH
def test_a_unit_is_confined(unit: Path):
    """1.1 with systemd 252: what is left are the network that it is for, and the system's own root directory."""
    require_tool("systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert re.search(r"Overall exposure level for \S+ \d", done.stdout), done.stderr
    assert done.returncode == 0, done.stdout
