"""Installing: by wheel for every supported Python, and by `make install` into a folder that a packager looks after."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from build_kit import VERSIONS, Distributions, interpreter
from support.needs import missing, require_tool

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_wheel_installs_and_works(version: str, distributions: Distributions, tmp_path: Path):
    """As pipx does it: an environment of its own, and of every dependency the newest that is allowed."""
    python = interpreter(version)
    if python is None:
        missing(f"there is no Python {version} here")
        return
    inside = tmp_path / "venv"
    uv = (sys.executable, "-m", "uv")
    run(*uv, "venv", "--quiet", "--python", str(python.program), str(inside))
    run(*uv, "pip", "install", "--quiet", "--python", str(inside / "bin/python"), str(distributions.wheel))
    command = str(inside / "bin/houdini-relay")
    assert run(command, "--version").strip().endswith(distributions.wheel.name.split("-")[1])
    verdict = json.loads(run(command, "demo", "--orders", "5", "--rate", "50", "--calm", "--json"))
    assert verdict["ok"], verdict


def test_a_staged_install_does_not_know_where_it_was_staged(source: Path, tmp_path: Path):
    require_tool("make")
    stage, copy = tmp_path / "stage", tmp_path / "source"
    shutil.copytree(source, copy)
    # One dependency shows as much as all of them.
    pins = re.split(r"\n(?=\S)", (copy / "constraints-run.txt").read_text())
    (copy / "constraints-run.txt").write_text(next(pin for pin in pins if pin.startswith("click==")) + "\n")
    # The umask is that of a careful administrator; the service's user must be able to read it all the same.
    run("make", "-C", str(copy), "install", f"DESTDIR={stage}", f"PYTHON={sys.executable}", umask=0o077)
    found = {str(path.relative_to(stage)) for path in stage.rglob("*") if "opt" not in path.relative_to(stage).parts}
    assert {
        "etc/houdini-relay",
        "usr/local/bin/houdini-relay",
        "usr/local/lib/systemd/system/houdini-relay.service",
        "usr/local/lib/systemd/system/houdini-relay@.service",
        "usr/share/doc/houdini-relay/operations.md",
        "usr/share/doc/houdini-relay/monitoring/alerts.yml",
        "usr/share/doc/houdini-relay/examples/deploy/compose.yaml",
    } <= found
    pages = list((stage / "usr/share/doc/houdini-relay").rglob("*.md"))
    assert len(pages) > 20
    assert [dead for page in pages for dead in dead_links(page, stage)] == []
    assert os.readlink(stage / "usr/local/bin/houdini-relay") == "/opt/houdini-relay/bin/houdini-relay"
    assert (stage / "opt/houdini-relay/bin/houdini-relay").read_text().startswith("#!/opt/houdini-relay/bin/python")
    files = [path for path in stage.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in files if str(stage).encode() in path.read_bytes()] == []
    assert [path for path in files if not path.stat().st_mode & 0o004] == []
    assert [path for path in stage.rglob("*") if path.is_dir() and path.stat().st_mode & 0o005 != 0o005] == []
    assert list((stage / "opt").rglob("relay/__pycache__/daemon.*.pyc"))


def dead_links(page: Path, stage: Path) -> list[str]:
    """What a page refers to by a path that is not there, or is outside of what was staged."""
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    goals = {link: (page.parent / link).resolve() for link in links}
    return [f"{page.name}: {link}" for link, goal in goals.items() if not (goal.exists() and stage in goal.parents)]


def run(*command: str, umask: int = 0o022) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, umask=umask)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
