"""The container image, built by buildah and run by podman, with storage of its own and without any registry."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any

from build_kit import Interpreter
from machine_kit import CERTIFICATES

IMAGE = "houdini-relay"
BASE = "docker.io/library/python:3.13-slim"
_LIMITS = '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=8192:8192"]\n[engine]\nruntime = "runc"\n'
_BASE_NEEDS_NOT = ("test", "__pycache__", "idlelib", "tkinter", "turtledemo", "site-packages", "config-*")
_COMMAND_SECONDS = 400.0


class Containers:
    """Images and containers below one folder; nothing of the machine's own is seen or changed."""

    def __init__(self, network: str) -> None:
        # Podman takes no long path here.
        self._folder = folder = Path(mkdtemp(prefix="relay-"))
        self._storage = ("--root", str(folder / "storage"), "--runroot", str(folder / "run"))
        self._network = network
        (folder / "containers.conf").write_text(_LIMITS, encoding="utf-8")

    def podman(
        self, *arguments: str, check: bool = True, source: IO[bytes] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run podman; `source` is its standard input."""
        return self._run("podman", "--cgroup-manager", "cgroupfs", *arguments, check=check, source=source)

    def _run(
        self, program: str, *arguments: str, check: bool = True, source: IO[bytes] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [program, *self._storage, *arguments],
            stdin=source or subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
            env={**os.environ, "CONTAINERS_CONF": str(self._folder / "containers.conf")},
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{program} {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def import_base(self, tree: Path, python: Interpreter | None) -> None:
        """Make the image that the Dockerfile begins with: this Debian, and `python` in /usr/local if there is one."""
        root = self._folder / "base"
        root.mkdir()
        subprocess.run(["tar", "-C", str(root), "-xf", str(tree)], check=True, timeout=60)
        if python is None or python.prefix == Path("/usr"):
            (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        else:
            _copy_python(python, root)
        with subprocess.Popen(["tar", "-C", str(root), "-cf", "-", "."], stdout=subprocess.PIPE) as packing:
            self.podman("import", "--quiet", "-", BASE, source=packing.stdout)
        assert packing.returncode == 0
        shutil.rmtree(root)

    def build(self, source: Path) -> None:
        """As `docker build` does, on this machine's network and with its certificates."""
        lent: list[str] = []
        if CERTIFICATES.exists():
            settings = self._folder / "pip.conf"
            settings.write_text(f"[global]\ncert = {CERTIFICATES}\n", encoding="utf-8")
            lent = ["-v", f"{CERTIFICATES}:{CERTIFICATES}:ro", "-v", f"{settings}:/etc/pip.conf:ro"]
        options = ("--pull=never", "--isolation", "chroot", "--network", "host", "--format", "docker")
        self._run("buildah", "bud", *options, *lent, "-t", IMAGE, str(source))

    def create(self, name: str, *options: str, command: tuple[str, ...] = ()) -> None:
        """Start a container as docs/operations.md says, on the network where the stand-ins are."""
        fixed = ("--read-only", "--cap-drop", "all", "--stop-timeout", "35", "--network", f"ns:{self._network}")
        self.podman("run", "-d", "--name", name, *fixed, *options, IMAGE, *command)

    def about(self, name: str) -> dict[str, Any]:
        (found,) = json.loads(self.podman("inspect", name).stdout)
        return dict(found)

    def execute(self, name: str, *command: str) -> str:
        """What a command inside prints."""
        return self.podman("exec", name, *command).stdout.strip()

    def close(self) -> None:
        self.podman("rm", "-f", "-t", "1", "-a", check=False)
        self.podman("umount", "-a", check=False)
        shutil.rmtree(self._folder)


def _copy_python(python: Interpreter, root: Path) -> None:
    """Its libraries are those of the same Debian release, which the tree has because Debian's own Python is in it."""
    version = python.program.name
    local = root / "usr/local"
    ignore = shutil.ignore_patterns(*_BASE_NEEDS_NOT)
    shutil.copytree(python.prefix / "lib" / version, local / "lib" / version, ignore=ignore)
    for library in (python.prefix / "lib").glob("libpython*"):
        shutil.copy(library, local / "lib", follow_symlinks=False)
    shutil.copy(python.prefix / "bin" / version, local / "bin" / version)
    for alias in ("python", "python3"):
        (local / "bin" / alias).symlink_to(version)
    subprocess.run(["ldconfig", "-r", str(root)], check=True, timeout=60)


@contextmanager
def private_network(name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A loopback of its own: its path, and what runs a command on it. The image's ports are fixed, ours are shared."""
    with ExitStack() as undo:
        subprocess.run(["ip", "netns", "add", name], check=True, timeout=10)
        undo.callback(subprocess.run, ["ip", "netns", "delete", name], check=True, timeout=10)
        inside = ("ip", "netns", "exec", name)
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True, timeout=10)
        yield f"/run/netns/{name}", inside
