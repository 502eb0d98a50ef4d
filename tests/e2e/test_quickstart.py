"""The commands of docs/quickstart.md, run as they are written there, on ports that are free."""

import asyncio
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.until import until

from relay.simulator.child import free_port

ROOT = Path(__file__).parents[2]
STEPS = re.compile(r"<!-- quickstart:(\w+) -->\n```sh\n(.+?)\n```", re.DOTALL)
COMMANDS = dict(STEPS.findall((ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")))


class Terminals:
    """Shells in one folder, where `houdini-relay` is this very tree's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = {str(port): str(free_port()) for port in range(8787, 8791)}
        self._open: list[asyncio.subprocess.Process] = []

    def _text(self, text: str) -> str:
        for written, free in self._ports.items():
            text = text.replace(written, free)
        return text

    async def begin(self, step: str) -> Path:
        """Run the command of a step; returns where its output goes."""
        shown = self.folder / f"{step}.out"
        more = f" --port {self._ports['8788']}" if step == "simulate" else ""  # its default is not in the text
        function = f'houdini-relay() {{ {shlex.quote(sys.executable)} -m relay "$@"; }}'
        command = f"{function}; {self._text(COMMANDS[step])}{more}"
        with shown.open("wb") as out:
            shell = await asyncio.create_subprocess_shell(
                command, stdout=out, stderr=out, cwd=self.folder, start_new_session=True, executable="/bin/bash",
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "80"},
            )  # fmt: skip
        self._open.append(shell)
        return shown

    async def run(self, step: str) -> tuple[int, str]:
        shown = await self.begin(step)
        code = await asyncio.wait_for(self._open.pop().wait(), 40)
        return code, shown.read_text()

    def settle_ports(self) -> None:
        config = self.folder / "config.yaml"
        config.write_text(self._text(config.read_text()))

    async def close(self) -> None:
        for shell in reversed(self._open):
            if shell.returncode is None:
                os.killpg(shell.pid, signal.SIGTERM)
                await asyncio.wait_for(shell.wait(), 30)


@asynccontextmanager
async def terminals(folder: Path) -> AsyncIterator[Terminals]:
    made = Terminals(folder)
    try:
        yield made
    finally:
        await made.close()


def delivered(shown: Path) -> int:
    return len(re.findall(r" order\.\w+ .* 200$", shown.read_text(), re.MULTILINE))


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_newcomer_gets_there_by_the_page_alone(tmp_path: Path):
    async with terminals(tmp_path) as here:
        code, said = await here.run("init")
        assert code == 0, said
        here.settle_ports()
        upstream, shop = await here.begin("simulate"), await here.begin("listen")
        await until(lambda: "control:" in upstream.read_text() and "order" in shop.read_text(), 20, pause=0.05)
        code, said = await here.run("check")
        assert code == 1
        assert "FAILED: target 127.0.0.1: connect: Connection refused" in said
        assert said.count("FAILED") == 1, said
        assert "-> start what should listen there" in said
        assert "nothing to paste" in upstream.read_text()
        assert '--secret "$(cat secrets/shop)"' in upstream.read_text()
        assert '--secret "$(cat secrets/ledger)"' in upstream.read_text()
        assert "nothing to paste" in shop.read_text()
        assert "#   houdini-relay run" in shop.read_text()
        assert "secrets:" not in upstream.read_text() + shop.read_text()
        await here.begin("run")
        await until(lambda: delivered(shop) >= 5, 40, pause=0.1)
        code, said = await here.run("status")
        assert code == 1, said
        assert "ledger" in said
        assert "Connection refused" in said
        ledger = await here.begin("mend")
        await until(lambda: delivered(ledger) >= 5, 60, pause=0.1)
        sequences = re.findall(r"^\s*\d+\s+(\S+)\s+order\.\w+\s+(\d+)", ledger.read_text(), re.MULTILINE)
        assert {order: number for order, number in reversed(sequences)} == {order: "1" for order, _ in sequences}


def test_every_step_is_there():
    assert list(COMMANDS) == ["init", "simulate", "listen", "check", "run", "status", "mend"]
