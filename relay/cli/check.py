"""`check`: is the configuration right, and, with `--connect`, can everything be reached?"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click

from relay import __version__
from relay.cli.options import config_option, json_option, load_settings
from relay.cli.words import printable, wrapped
from relay.clock import SystemClock
from relay.config import InvalidConfig, Settings
from relay.daemon import Exit
from relay.delivery.lookup import Lookup
from relay.delivery.trial import Trial, Trials
from relay.store.opening import is_shared, shown_url, trouble_of

_PATIENCE: Final = 10.0
"""Seconds for one host."""
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class _Reached:
    """What `--connect` found out: of the upstream's hosts, of each target by name, and why not of the store."""

    upstream: Sequence[Trial]
    targets: dict[str, list[Trial]]
    store: str | None

    @property
    def ok(self) -> bool:
        if self.store is not None:
            return False
        trials = [*self.upstream, *(trial for found in self.targets.values() for trial in found)]
        return all(trial.problem is None for trial in trials)


@click.command()
@config_option
@click.option("--connect", is_flag=True, help="Connect to the upstream, all targets, token servers and a database.")
@json_option
@click.pass_context
def check(ctx: click.Context, config_path: Path, connect: bool, as_json: bool) -> None:
    """Check the configuration and report every problem at once.

    Nothing is started and, without --connect, nothing is dialled. With it, each
    host is looked up, judged by the block of private addresses and connected to
    (TLS, proxy and tunnel included); nothing is posted.

    Exit code 2 if the configuration is wrong, 1 if something cannot be reached.
    """
    try:
        settings = load_settings(config_path, require_secrets=True)
    except InvalidConfig as error:
        if not as_json:
            raise
        problems = [
            {"file": one.file, "line": one.line, "column": one.column, "path": one.path, "message": one.message}
            for one in error.problems
        ]
        click.echo(json.dumps({"ok": False, "problems": problems}, indent=2))
        ctx.exit(Exit.CONFIG)
    reached = asyncio.run(_reach(settings)) if connect else None
    if as_json:
        click.echo(json.dumps(_document(settings, reached), indent=2))
    else:
        click.echo("\n".join(_lines(settings, reached, config_path)))
    if reached is not None and not reached.ok:
        ctx.exit(Exit.CRASHED)


async def _reach(settings: Settings) -> _Reached:
    clock = SystemClock()
    lookup = Lookup(clock)
    trials = Trials(lookup, clock, __version__, _PATIENCE)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(index: int) -> list[Trial]:
        async with slots:
            return await trials.target(settings.targets[index])

    urls = (settings.upstream.websocket_url, settings.upstream.rest_url)
    try:
        upstream = await asyncio.gather(*(trials.upstream(url) for url in urls))
        found = await asyncio.gather(*map(one, range(len(settings.targets))))
        trouble = await trouble_of(settings.store.url)
    finally:
        lookup.close()
    hosts = {target.name: tried for target, tried in zip(settings.targets, found, strict=True)}
    return _Reached(upstream, hosts, trouble)


def _document(settings: Settings, reached: _Reached | None) -> dict[str, Any]:
    targets: list[dict[str, Any]] = [{"name": target.name, "url": target.url_redacted} for target in settings.targets]
    document: dict[str, Any] = {"ok": True, "problems": [], "targets": targets}
    if reached is None:
        return document
    for target in targets:
        target["hosts"] = [asdict(trial) for trial in reached.targets[target["name"]]]
    hosts = [asdict(trial) for trial in reached.upstream]
    return document | {"ok": reached.ok, "upstream": {"hosts": hosts}, "store": {"problem": reached.store}}


def _lines(settings: Settings, reached: _Reached | None, path: Path) -> list[str]:
    verdict = "fine" if reached is None or reached.ok else "fine, but not everything can be reached"
    lines = [f"{path}: {verdict}", f"  upstream  {settings.upstream.websocket_url}"]
    lines += _trial_lines(() if reached is None else reached.upstream)
    lines.append(f"  store     {shown_url(settings.store.url)}")
    if reached is not None and (reached.store is not None or is_shared(settings.store.url)):
        lines.append(
            wrapped("            ", "fine" if reached.store is None else f"FAILED: {reached.store}", indent=14)
        )
    for target in settings.targets:
        lines.append(f"  target    {target.name} -> {target.url_redacted}")
        lines += _trial_lines(() if reached is None else reached.targets[target.name])
    return lines


def _trial_lines(trials: Sequence[Trial]) -> list[str]:
    lines = []
    for trial in trials:
        first = f"            {'fine' if trial.problem is None else 'FAILED'}: "
        where = f"{trial.what} {printable(trial.host)}".strip()
        if trial.addresses and trial.addresses != (trial.host,):
            where += f" ({', '.join(trial.addresses)})"
        lines.append(wrapped(first, where if trial.problem is None else f"{where}: {trial.problem}", indent=14))
    return lines
