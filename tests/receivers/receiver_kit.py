"""An example receiver as a real process: started, posted to, killed, and asked what it took."""

import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from standardwebhooks import Webhook
from support.disks import cannot, small_disk

from relay.simulator.child import free_port

EXAMPLES = Path(__file__).parents[2] / "examples" / "receivers"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
PATH = "/hooks/houdini"
CUT = 0
"""Stands for a status when the connection ended without one."""
START_SECONDS, ANSWER_SECONDS = 30.0, 20.0
SMALL_DISK = "512k"

Taken = list[tuple[str, bytes]]
"""Webhook ids and bodies in the order in which they were taken."""


def signed(webhook_id: str, body: bytes, *, secret: str = SECRET, age: float = 0.0) -> dict[str, str]:
    """The headers of a delivery, signed by the official library."""
    at = datetime.fromtimestamp(int(time.time() - age), tz=UTC)
    signature = Webhook(secret).sign(msg_id=webhook_id, timestamp=at, data=body.decode())
    return {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
        "relay-attempt": "1",
    }


class Files:
    """Remembers in a file: a place in a folder, and what breaks it is a full disk."""

    def __init__(self, read: Callable[[str], Taken]) -> None:
        self.taken = read

    def place(self, folder: Path) -> str:
        return str(folder / "state")

    @contextmanager
    def failing(self, folder: Path) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
        """A place, what makes writing to it fail, and what mends it."""
        with small_disk(folder / "disk", SMALL_DISK) as disk:
            filler = disk / "filler"

            def fill() -> None:
                with filler.open("wb", buffering=0) as file, suppress(OSError):
                    while True:
                        file.write(bytes(4096))

            yield self.place(disk), fill, filler.unlink


def read_sqlite(state: str) -> Taken:
    if not os.path.exists(state):
        return []
    with closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'work'").fetchall():
            return []
        rows = db.execute("SELECT webhook_id, CAST(body AS BLOB) FROM work ORDER BY number").fetchall()
    return [(webhook_id, bytes(body)) for webhook_id, body in rows]


def read_journal(state: str) -> Taken:
    lines = Path(state).read_bytes().splitlines(keepends=True) if os.path.exists(state) else []
    entries = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [(entry["webhookId"], entry["body"].encode()) for entry in entries]


SQLITE, JOURNAL = Files(read_sqlite), Files(read_journal)


@dataclass
class Receiver:
    """One of the examples; `command` may hold `{port}`."""

    command: Sequence[str]
    store: Files
    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    secret: str | None = SECRET
    state: str = ""
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self, state: str | None = None, port: int | None = None) -> None:
        """Start it, or start it again; returns once it listens."""
        self.state = state or self.state or self.store.place(self.folder)
        self.port = port or free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "PYTHON", "AWS_"))}
        given = {"PORT": str(self.port), "RELAY_STATE": self.state, **self.environ}
        if self.secret is not None:
            given["RELAY_SECRET"] = self.secret
        with (self.folder / "receiver.log").open("ab") as log:
            command = [part.format(port=self.port) for part in self.command]
            # A session of its own: some servers fork workers, and all of them have to end.
            self.process = subprocess.Popen(
                command, env=kept | given, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self._until_it_listens()

    def _until_it_listens(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}: {self.last_words()}")
            try:
                with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)) as trial:
                    trial.connect()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"it does not listen: {self.last_words()}")

    def last_words(self) -> str:
        return (self.folder / "receiver.log").read_text(errors="replace")[-1500:]

    def kill(self) -> None:
        """SIGKILL: no chance to finish anything."""
        if self.process is not None:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def taken(self) -> Taken:
        return self.store.taken(self.state)

    def count(self, webhook_id: str) -> int:
        return [taken for taken, _ in self.taken()].count(webhook_id)

    def post(self, body: bytes | Iterable[bytes], headers: Mapping[str, str], method: str = "POST") -> int:
        """The answer's status; a body in pieces is sent chunked, without a length."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)) as connection:
            with suppress(ConnectionError):  # it may answer before it has read everything
                connection.request(method, PATH, body=body, headers=dict(headers))
            try:
                return connection.getresponse().status
            except (ConnectionError, http.client.HTTPException):
                return CUT

    def deliver(self, webhook_id: str, body: bytes) -> int:
        return self.post(body, signed(webhook_id, body))


def pip_install(target: Path, *arguments: str) -> Path:
    """Packages from PyPI in a folder of their own; skips when they cannot be had."""
    quietly = ("--quiet", "--no-compile", "--disable-pip-version-check", "--root-user-action=ignore")
    _install([sys.executable, "-m", "pip", "install", *quietly, "--target", str(target), *arguments], target.parent)
    return target


def python_with(packages: Path) -> dict[str, str]:
    """The environment of a Python that finds them, and compiles what it imports to a place of its own."""
    return {"PYTHONPATH": str(packages), "PYTHONPYCACHEPREFIX": f"{packages}-compiled"}


def npm_install(example: Path, target: Path) -> Path:
    """A copy of an example with its packages from npm beside it; skips when they cannot be had."""
    shutil.copytree(example, target)
    if '"dependencies"' in (target / "package.json").read_text():
        _install(["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], target)
    return target


def _install(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode != 0:
        cannot(f"{command[0]} cannot install: {(done.stderr or done.stdout).strip()[-300:]}")
