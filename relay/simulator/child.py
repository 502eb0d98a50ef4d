"""The relay as a real child process: started, watched, asked whether it is ready, and stopped."""

import asyncio
import random
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp

from relay.errors import RelayError

RUN_RELAY: Final = (sys.executable, "-m", "relay", "run")
"""What starts the relay; `-c` and the configuration file are added."""

_READY_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 30.0
_PROBE: Final = aiohttp.ClientTimeout(total=2.0)
_PORTS: Final = range(20_000, 32_000)
_LOG_LINES: Final = 15
_LOG_BYTES: Final = 64 * 1024

T = TypeVar("T")


class ChildFailed(RelayError):
    """The relay's process did not do what it was started for."""


def free_port() -> int:
    """A port of the loopback that is free now, below those the system hands out by itself.

    Raises:
        ChildFailed: a hundred tries found none.
    """
    for port in random.sample(_PORTS, 100):
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ChildFailed("no free port found for the relay's admin server")


class RelayProcess:
    """`relay run` as a child of this process, in a session of its own so that Ctrl-C reaches only us."""

    def __init__(self, config: Path, log: Path, admin_port: int, command: Sequence[str] = RUN_RELAY) -> None:
        self._command = (*command, "-c", str(config))
        self._log = log
        self._ready_url = f"http://127.0.0.1:{admin_port}/readyz"
        self._process: asyncio.subprocess.Process | None = None
        self._alive = asyncio.Event()

    async def start(self) -> None:
        """Start it, or start it again after a `kill`; its log goes on."""
        output = self._log.open("ab")
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=output, stderr=output, start_new_session=True
            )
        finally:
            output.close()
        self._alive.set()

    async def until_ready(self) -> None:
        """Wait for `/readyz`.

        Raises:
            ChildFailed: it is not ready in time.
        """
        reason = "it does not answer"
        try:
            async with asyncio.timeout(_READY_SECONDS), aiohttp.ClientSession(timeout=_PROBE) as session:
                while True:
                    try:
                        async with session.get(self._ready_url) as answer:
                            if answer.status == 200:
                                return
                            reason = (await answer.text())[:500]
                    except (aiohttp.ClientError, TimeoutError) as error:
                        reason = str(error)
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise ChildFailed(f"the relay is not ready after {_READY_SECONDS:.0f} s: {reason}") from None

    async def while_alive(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something for as long as the process lives.

        Raises:
            ChildFailed: it ended by itself before the work did.
        """
        working = asyncio.ensure_future(work)
        ending = asyncio.ensure_future(self._ended_by_itself())
        try:
            await asyncio.wait((working, ending), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise ChildFailed(f"the relay ended by itself with exit code {ending.result()}")
        finally:
            working.cancel()
            ending.cancel()
            await asyncio.gather(working, ending, return_exceptions=True)

    async def _ended_by_itself(self) -> int:
        while True:
            process = self._running()
            code = await process.wait()
            if self._alive.is_set() and self._process is process:
                return code
            await self._alive.wait()

    async def kill(self) -> None:
        """End it with SIGKILL: it gets no chance to finish anything. `while_alive` waits for the next `start`."""
        process = self._running()
        self._alive.clear()
        if process.returncode is None:
            process.kill()
        await process.wait()

    @property
    def pid(self) -> int:
        """The process id of its present or last life."""
        return self._running().pid

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "start comes first"  # noqa: S101 - a mistake of the caller's
        return self._process

    async def stop(self) -> int | None:
        """End it with SIGTERM, or by force when it takes too long; its exit code, None if it never started."""
        if self._process is None:
            return None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

    def last_words(self) -> list[str]:
        """The end of its log."""
        with self._log.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - _LOG_BYTES))
            return log.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
