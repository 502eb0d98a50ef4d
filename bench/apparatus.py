"""What measurements share: the peer process, the relay process, and how figures are told."""

import asyncio
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import aiohttp
import psutil
import yaml

from bench.peer import STATUSES
from relay.simulator.child import RUN_RELAY, RelayProcess, free_port

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - of these measurements alone
_LINE_LIMIT = 1 << 28


@dataclass(frozen=True)
class Played:
    """What one feed gave."""

    sent: int
    arrived: int
    seconds: float
    latencies_ms: list[float]

    @property
    def per_second(self) -> float:
        return self.arrived / self.seconds

    def percentile(self, share: float) -> float:
        cuts = quantiles(self.latencies_ms, n=1000)
        return cuts[min(998, round(share * 1000) - 1)]


class PeerProcess:
    """`bench.peer` as a child: upstream and sinks."""

    def __init__(self, process: asyncio.subprocess.Process, places: dict[str, Any]) -> None:
        self._process = process
        self.websocket: str = places["upstream"]
        self.rest: str = places["rest"]
        self.sinks: dict[str, int] = places["sinks"]

    async def play(
        self,
        name: str,
        updates: int,
        *,
        rate: float | None = None,
        window: int = 2000,
        copies: int = 1,
        statuses: Sequence[int] = STATUSES,
    ) -> Played:
        """Feed `updates`, each to `copies` targets; returns when they have arrived, or nothing more does."""
        assert self._process.stdin is not None
        asked = {"name": name, "updates": updates, "rate": rate, "window": window, "copies": copies}
        asked["statuses"] = list(statuses)
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        return Played(**await _answer(self._process))


async def _answer(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"the peer ended by itself with exit code {await process.wait()}")
    return json.loads(line)


@asynccontextmanager
async def peer() -> AsyncIterator[PeerProcess]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.peer", stdin=pipe, stdout=pipe, limit=_LINE_LIMIT
    )
    try:
        yield PeerProcess(process, await _answer(process))
    finally:
        process.kill()
        await process.wait()


class Relay:
    """A relay between the peer's upstream and sinks."""

    def __init__(
        self,
        folder: Path,
        peer: PeerProcess,
        targets: Sequence[dict[str, Any]],
        command: Sequence[str] = (),
        **changes: Any,
    ) -> None:
        self.folder, self._admin = folder, free_port()
        self.settings = {
            "upstream": {
                "websocket_url": peer.websocket,
                "rest_url": peer.rest,
                "partner_id": "bench",
                "secret": "bench-secret",
                "backfill": {"requests_per_minute": 6000},
            },
            "store": {"url": f"sqlite:///{folder / 'relay.db'}"},
            "targets": list(targets),
            "admin": {"listen": f"127.0.0.1:{self._admin}"},
            "log": {"format": "json"},
            **changes,
        }
        command = (*command, *RUN_RELAY)
        self._process = RelayProcess(folder / "config.yaml", folder / "relay.log", self._admin, command)

    async def start(self) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.settings))
        await self._process.start()
        await self._process.until_ready()

    async def stop(self) -> int:
        return await self._process.stop()

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self._process.pid)

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self._admin}"

    async def status(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.admin}/api/v1/status") as answer:
            document: dict[str, Any] = await answer.json()
            return document


@asynccontextmanager
async def relay(peer: PeerProcess, targets: Sequence[dict[str, Any]], **changes: Any) -> AsyncIterator[Relay]:
    with tempfile.TemporaryDirectory(prefix="houdini-relay-bench-") as name:
        one = Relay(Path(name), peer, targets, **changes)
        await one.start()
        try:
            yield one
        finally:
            await one.stop()


@contextmanager
def slow_disk(milliseconds: float) -> Iterator[tuple[str, ...]]:
    """What to put before a command so that each of its syncs takes so much longer; needs `cc`."""
    with tempfile.TemporaryDirectory(prefix="houdini-relay-bench-") as name:
        shim = f"{name}/slowdisk.so"
        source = Path(__file__).with_name("slowdisk.c")
        subprocess.run([shutil.which("cc") or "cc", "-shared", "-fPIC", "-O2", "-o", shim, source, "-ldl"], check=True)
        yield "env", f"LD_PRELOAD={shim}", f"SLOW_SYNC_US={milliseconds * 1000:.0f}"


def target(name: str, port: int, **settings: Any) -> dict[str, Any]:
    return {"name": name, "url": f"http://127.0.0.1:{port}/{name}", "secrets": [SECRET], **settings}


def spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """The median with the least and the greatest: `1.02 (0.98 - 1.07)`."""
    return f"{show(median(values))} ({show(min(values))} - {show(max(values))})"


def machine() -> str:
    return (
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, aiohttp {aiohttp.__version__}, "
        f"SQLite {sqlite3.sqlite_version}, {platform.system()} {platform.release().split('-')[0]}"
    )
