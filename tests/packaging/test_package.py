"""What is shipped: the two distributions, built the same way twice, the pins, and the container's recipe."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from build_kit import Distributions, build

ROOT = Path(__file__).parents[2]
NEEDED = {
    "SECURITY.md",
    "mkdocs.yml",
    "LICENSE",
    "README.md",
    "Makefile",
    "Dockerfile",
    ".dockerignore",
    "config.example.yaml",
    "systemd/houdini-relay.service",
    "systemd/houdini-relay@.service",
}
PINS = tuple(f"constraints{of}.txt" for of in ("", "-run", "-build", "-docs", "-audit"))


@pytest.fixture
def wheel(distributions: Distributions) -> Path:
    return distributions.wheel


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    source = {str(path.relative_to(ROOT)) for path in files_below(ROOT / "relay")}
    inside = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert inside == source
    assert any(name.endswith("LICENSE") for name in names)


def test_the_wheel_runs_without_the_source_tree(wheel: Path, tmp_path: Path):
    """The SQL files are read from inside the installed package."""
    shutil.unpack_archive(wheel, tmp_path, "zip")
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


def test_the_sdist_holds_what_installing_building_and_testing_need(distributions: Distributions):
    with tarfile.open(distributions.sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert set(PINS) | NEEDED <= names
    source = {str(path.relative_to(ROOT)) for top in ("relay", "tests", "docs") for path in files_below(ROOT / top)}
    assert source <= names
    allowed = {"relay", "tests", "bench", "docs", "examples", "systemd", ".ci"}
    strangers = {name for name in names if "/" in name and name.split("/")[0] not in allowed}
    assert not strangers
    assert not [name for name in names if re.search(r"\.(pyc|db|db-wal|log)$|(^|/)config\.yaml$|\.venv", name)]


def files_below(folder: Path) -> list[Path]:
    """What belongs to the project, not what running it has left there."""
    leftovers = {"__pycache__", "node_modules"}
    return [path for path in folder.rglob("*") if path.is_file() and not leftovers.intersection(path.parts)]


def test_the_same_files_give_the_same_bytes(distributions: Distributions, source: Path, tmp_path: Path):
    """Elsewhere, at another time, by somebody with another umask: who has the source can prove what was published."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(source, copy)
    for path in copy.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(path.stat().st_mode & 0o700)
    again = build(copy, tmp_path / "dist", umask=0o077)
    assert again.wheel.name == distributions.wheel.name
    assert again.wheel.read_bytes() == distributions.wheel.read_bytes()
    assert again.sdist.name == distributions.sdist.name
    assert again.sdist.read_bytes() == distributions.sdist.read_bytes()


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


def test_the_container_is_run_as_nobody_and_gets_its_signals():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    final = lines[max(index for index, line in enumerate(lines) if line.startswith("FROM")) :]
    assert "USER 10001" in final
    assert 'ENTRYPOINT ["houdini-relay"]' in final
    assert any(line.startswith("HEALTHCHECK") for line in final)
    assert "VOLUME /var/lib/houdini-relay" in final
    assert sum("--require-hashes" in line for line in lines) == 2
