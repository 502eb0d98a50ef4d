"""`check`: is the configuration right, and, with `--connect`, does everything answer as a relay needs it?"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click

from relay import __version__, log
from relay.admin.shapes import attempt_shape, unstored
from relay.cli.options import config_option, json_option, load_settings
from relay.cli.words import printable, wrapped
from relay.clock import SystemClock
from relay.config import InvalidConfig, Settings, TargetSettings
from relay.daemon import Exit
from relay.delivery.lookup import Lookup
from relay.delivery.said import why_failed
from relay.delivery.target_client import connect as connect_to
from relay.delivery.trial import Trial, Trials
from relay.delivery.trial_event import trial_delivery
from relay.errors import UsageError
from relay.model import Attempt, Outcome
from relay.store.opening import is_shared, shown_url, trouble_of
from relay.upstream.rehearsal import Step, rehearse

_PATIENCE: Final = 10.0
"""Seconds for one host."""
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class _Reached:
    """What `--connect` found out.

    Attributes:
        upstream: its hosts.
        steps: signing in to it; none where a host could not be reached.
        targets: name -> its hosts.
        tests: name -> the attempt of a test event; none where it was not asked for or a host could not be reached.
        store: why its database cannot be used, None where it can.
    """

    upstream: Sequence[Trial]
    steps: Sequence[Step]
    targets: dict[str, list[Trial]]
    tests: dict[str, Attempt]
    store: str | None

    @property
    def ok(self) -> bool:
        trials = [*self.upstream, *(trial for found in self.targets.values() for trial in found)]
        answered = all(attempt.outcome is Outcome.OK for attempt in self.tests.values())
        return self.store is None and answered and _fine(trials) and all(step.ok for step in self.steps)


@click.command()
@config_option
@click.option("--connect", is_flag=True, help="Try the upstream, all targets, token servers and a database.")
@click.option("--send-test", is_flag=True, help="With --connect: post one relay.test event to each target.")
@json_option
@click.pass_context
def check(ctx: click.Context, config_path: Path, connect: bool, send_test: bool, as_json: bool) -> None:
    """Check the configuration and report every problem at once.

    Nothing is started and, without --connect, nothing is dialled. With it, each
    host is looked up, judged by the block of private addresses and connected to
    (TLS, proxy and tunnel included). The upstream is signed in to, by WebSocket
    and REST, as a relay would, and left again. Nothing is posted to a target but
    with --send-test: one signed relay.test event each, past pause and breaker.

    Exit code 2 if the configuration is wrong, 1 if something did not answer as
    a relay needs it.
    """
    if send_test and not connect:
        raise UsageError("--send-test goes with --connect; give both")
    log.configure("error", "auto")
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
    reached = asyncio.run(_reach(settings, send_test)) if connect else None
    if as_json:
        click.echo(json.dumps(_document(settings, reached), indent=2))
    else:
        click.echo("\n".join(_lines(settings, reached, config_path)))
    if reached is not None and not reached.ok:
        ctx.exit(Exit.CRASHED)


async def _reach(settings: Settings, send_test: bool) -> _Reached:
    clock = SystemClock()
    lookup = Lookup(clock)
    trials = Trials(lookup, clock, __version__, _PATIENCE)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(target: TargetSettings) -> tuple[list[Trial], Attempt | None]:
        async with slots:
            hosts = await trials.target(target)
            if not (send_test and _fine(hosts)):
                return hosts, None
            return hosts, await _send_test(target, lookup, clock, settings.upstream.partner_id)

    parts = {"WebSocket": settings.upstream.websocket_url, "REST": settings.upstream.rest_url}
    try:
        upstream = await asyncio.gather(*(trials.upstream(what, url) for what, url in parts.items()))
        steps = await rehearse(settings.upstream, clock, __version__) if _fine(upstream) else []
        found = await asyncio.gather(*map(one, settings.targets))
        trouble = await trouble_of(settings.store.url)
    finally:
        lookup.close()
    named = {target.name: tried for target, tried in zip(settings.targets, found, strict=True)}
    hosts = {name: trials for name, (trials, _) in named.items()}
    tests = {name: attempt for name, (_, attempt) in named.items() if attempt is not None}
    return _Reached(upstream, steps, hosts, tests, trouble)


async def _send_test(target: TargetSettings, lookup: Lookup, clock: SystemClock, partner_id: str) -> Attempt:
    client = connect_to(target, lookup, clock, __version__, partner_id=partner_id)
    try:
        return await client.attempt(trial_delivery(target.name, clock.wall_ms()))
    finally:
        await client.close()


def _fine(trials: Sequence[Trial]) -> bool:
    return all(trial.problem is None for trial in trials)


def _document(settings: Settings, reached: _Reached | None) -> dict[str, Any]:
    targets: list[dict[str, Any]] = [{"name": target.name, "url": target.url_redacted} for target in settings.targets]
    document: dict[str, Any] = {"ok": True, "problems": [], "targets": targets}
    if reached is None:
        return document
    for target in targets:
        target["hosts"] = [asdict(trial) for trial in reached.targets[target["name"]]]
        if target["name"] in reached.tests:
            target["test"] = attempt_shape(unstored(reached.tests[target["name"]]))
    upstream = {
        "hosts": [asdict(trial) for trial in reached.upstream],
        "steps": [asdict(step) for step in reached.steps],
    }
    return document | {"ok": reached.ok, "upstream": upstream, "store": {"problem": reached.store}}


def _lines(settings: Settings, reached: _Reached | None, path: Path) -> list[str]:
    verdict = "fine" if reached is None or reached.ok else "the configuration is fine, but not everything answers"
    lines = [f"{path}: {verdict}", f"  upstream  {settings.upstream.websocket_url}"]
    if reached is not None:
        lines += _trial_lines(reached.upstream)
        lines += [_found(step.ok, step.found) for step in reached.steps]
    lines.append(f"  store     {shown_url(settings.store.url)}")
    if reached is not None and (reached.store is not None or is_shared(settings.store.url)):
        lines.append(_found(reached.store is None, reached.store or "the database can be used"))
    for target in settings.targets:
        lines.append(f"  target    {target.name} -> {target.url_redacted}")
        if reached is not None:
            lines += _trial_lines(reached.targets[target.name])
            lines += [_test_line(reached.tests[target.name])] if target.name in reached.tests else []
    return lines


def _trial_lines(trials: Sequence[Trial]) -> list[str]:
    lines = []
    for trial in trials:
        where = f"{trial.what} {printable(trial.host)}".strip()
        if trial.addresses and trial.addresses != (trial.host,):
            where += f" ({', '.join(trial.addresses)})"
        lines.append(_found(trial.problem is None, where if trial.problem is None else f"{where}: {trial.problem}"))
        if trial.advice is not None:
            lines.append(wrapped("              -> ", trial.advice))
    return lines


def _test_line(attempt: Attempt) -> str:
    took = f"{attempt.duration_ms:.0f} ms"
    if attempt.outcome is Outcome.OK:
        return _found(True, f"test event: status {attempt.status_code} in {took}")
    line = _found(False, f"test event: {printable(why_failed(attempt))} ({took})")
    return f"{line}\n{wrapped('              -> ', _test_advice(attempt.status_code))}"


def _test_advice(status: int | None) -> str:
    """What to do about a test event that was not taken."""
    match status:
        case None:
            return "see what listens there: it was connected to, and gave no answer that can be used"
        case 400 | 401 | 403:
            return "compare its secret (and `auth`) with the receiver's, see docs/receiving.md"
        case 404 | 405:
            return "correct the path of its URL: the server is there, and takes no POST under it"
        case 410:
            return "see whether its URL is still the right one: it wants nothing more, and would be parked"
    if 300 <= status <= 399:
        return "name the address itself that it leads to: redirects are not followed"
    if status >= 500:
        return "see the receiver's own log: it was reached, and failed"
    return "make it answer 2xx, see docs/receiving.md"


def _found(ok: bool, what: str) -> str:
    return wrapped(f"            {'fine' if ok else 'FAILED'}: ", what, indent=14)
