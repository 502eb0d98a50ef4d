"""A Debian that boots a real systemd in a container of its own, on the network of this machine."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from stand_ins import wait_for

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_NAMESPACES = ("-m", "-u", "-i", "-p", "-n", "-C", "--root", "--wd")
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
_BOOT_SECONDS = 60.0
_COMMAND_SECONDS = 400.0


class Machine:
    """A booted one; commands run in it as root."""

    def __init__(self, root: Path, first_process: int) -> None:
        self.root = root
        self._enter = ("nsenter", "-t", str(first_process), *_NAMESPACES, "--")

    def run(self, *command: str, text: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command and wait for its end; `text` is its standard input."""
        done = subprocess.run(
            [*self._enter, *command],
            input=text or "",
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
            env=_ENVIRONMENT,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def shows(self, unit: str, name: str) -> str:
        """A property of a unit, as `systemctl show` prints it."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def start(self, unit: str) -> None:
        """Start a unit; a failure shows its journal."""
        if self.run("systemctl", "restart", unit, check=False).returncode != 0:
            raise AssertionError(self.run("journalctl", "--no-pager", "-u", unit).stdout[-4000:])

    def pid(self, unit: str) -> int:
        """The main process, 0 without one; a number that means something inside the machine only."""
        return int(self.shows(unit, "MainPID"))

    def read(self, path: str) -> str:
        """A file as it is seen from inside."""
        return self.run("cat", path).stdout


@contextmanager
def booted(tree: Path, folder: Path) -> Iterator[Machine]:
    """Unpack the tree below `folder`, boot it, shut it down and remove it."""
    root = folder / f"machine-{os.getpid()}"
    root.mkdir()
    subprocess.run(["tar", "-C", str(root), "-xf", str(tree)], check=True, timeout=60)
    _lend_certificates(root)
    console = folder / "console.log"
    # Without a registered machine nothing outlives us if we are killed, and no machined is needed.
    command = ["systemd-nspawn", "-D", str(root), "--register=no", "--keep-unit", "--boot", "--console=pipe"]
    with console.open("wb") as output:
        nspawn = psutil.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        )
    try:
        yield _once_up(root, nspawn, console)
    finally:
        _shut_down(nspawn)
        shutil.rmtree(root)


def _lend_certificates(root: Path) -> None:
    """Installing asks a package registry, which this machine may know under a certificate of its own."""
    if CERTIFICATES.exists():
        inside = root / CERTIFICATES.relative_to("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CERTIFICATES, inside)
        (root / "etc/pip.conf").write_text(f"[global]\ncert = {CERTIFICATES}\n", encoding="utf-8")


def _once_up(root: Path, nspawn: psutil.Popen, console: Path) -> Machine:
    def first_processes() -> list[int]:
        assert nspawn.poll() is None, console.read_text(encoding="utf-8", errors="replace")[-2000:]
        return [child.pid for child in nspawn.children()]

    wait_for(first_processes, _BOOT_SECONDS, "a process in the container")
    machine = Machine(root, first_processes()[0])
    # Before systemd answers, the command itself fails; "degraded" would be a unit of the tree, none of ours.
    state: Sequence[str] = ("systemctl", "is-system-running")
    wait_for(lambda: machine.run(*state, check=False).stdout.strip() == "running", _BOOT_SECONDS, "systemd to be up")
    return machine


def _shut_down(nspawn: psutil.Popen) -> None:
    nspawn.send_signal(signal.SIGTERM)
    try:
        nspawn.wait(30)
    except psutil.TimeoutExpired:
        for process in (*nspawn.children(recursive=True), nspawn):
            process.kill()
        nspawn.wait(10)
