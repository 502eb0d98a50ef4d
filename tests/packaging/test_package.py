"""What is shipped: the wheel, the container's recipe, the unit, the pins. Running them for real is a later part."""

import re
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from relay.daemon import DRAIN_GRACE, Exit

ROOT = Path(__file__).parents[2]
PINS = ("constraints.txt", "constraints-run.txt", "constraints-build.txt")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (built,) = folder.glob("houdini_relay-*.whl")
    return built


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    source = {
        str(path.relative_to(ROOT)) for path in (ROOT / "relay").rglob("*") if path.suffix in (".py", ".sql", ".typed")
    }
    inside = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert inside == source
    assert any(name.endswith("LICENSE") for name in names)


def test_the_wheel_runs_without_the_source_tree(wheel: Path, tmp_path: Path):
    """The SQL files are read from inside the installed package."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (tmp_path / "config.yaml").write_text(
        "upstream: {websocket_url: 'ws://127.0.0.1:1/', rest_url: 'http://127.0.0.1:1/', partner_id: p, secret: s}\n"
        "targets: [{name: t, url: 'http://127.0.0.1:1/', secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw]}]\n"
    )
    command = [
        sys.executable,
        "-P",
        "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from relay.cli import main; main()",
    ]
    done = subprocess.run(
        [*command, "store", "migrate"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "applied 0001_initial.sql" in done.stdout


@pytest.mark.parametrize("name", PINS)
def test_pins_have_hashes_and_name_no_index(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://|--(index|find)|file:", text)
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert blocks
    for block in blocks:
        assert re.match(r"[a-z0-9._-]+==\S+", block), block[:60]
        assert "--hash=sha256:" in block, block[:60]


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime = [*project["dependencies"], *project["optional-dependencies"]["postgres"]]
    for name, wanted in (
        ("constraints-run.txt", runtime),
        ("constraints.txt", [*runtime, *project["optional-dependencies"]["dev"]]),
    ):
        pinned = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
        assert {re.split(r"[><=\[ ]", one)[0].lower() for one in wanted} <= pinned


def unit() -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign] # as the module's documentation says
    parser.read(ROOT / "systemd" / "houdini-relay.service")
    return parser


def test_the_unit_fits_the_daemon():
    service = unit()["Service"]
    assert service["Type"] == "notify"
    assert int(service["RestartPreventExitStatus"]) == Exit.CONFIG
    assert int(service["TimeoutStopSec"]) > DRAIN_GRACE + 10
    assert service["DynamicUser"] == "yes"
    assert " run --config " in service["ExecStart"]


def test_the_container_is_run_as_nobody_and_gets_its_signals():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    final = lines[max(index for index, line in enumerate(lines) if line.startswith("FROM")) :]
    assert "USER 10001" in final
    assert 'ENTRYPOINT ["houdini-relay"]' in final
    assert any(line.startswith("HEALTHCHECK") for line in final)
    assert "VOLUME /var/lib/houdini-relay" in final
    assert sum("--require-hashes" in line for line in lines) == 2
