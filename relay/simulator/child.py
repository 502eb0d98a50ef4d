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

    async def start(self) -> None:
        """Start it."""
        output = self._log.open("wb")
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=output, stderr=output, start_new_session=True
            )
        finally:
            output.close()

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
            ChildFailed: it ended before the work did.
        """
        assert self._process is not None, "start comes first"  # noqa: S101 - a mistake of the caller's
        working = asyncio.ensure_future(work)
        ending = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait((working, ending), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise ChildFailed(f"the relay ended by itself with exit code {ending.result()}")
        finally:
            working.cancel()
            ending.cancel()
            await asyncio.gather(working, ending, return_exceptions=True)

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
