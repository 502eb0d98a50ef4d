"""`audit`: the upstream's view against the ledger and what each target acknowledged, every difference named."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from relay.admin.api import AUDIT_PATH, LONG_DEADLINES
from relay.admin.status import counted
from relay.cli.completion import complete_target
from relay.cli.options import ask_daemon, config_option, json_option
from relay.cli.words import wrapped
from relay.errors import DaemonRefused, DaemonUnavailable

_PATIENCE: Final = LONG_DEADLINES[AUDIT_PATH] + 10
_BEGINS: Final = (
    "Reading what the upstream shows. What differs and may only be on its way is looked at again after a minute ..."
)
_LEFT_ADVICE: Final = "what is left could not be repaired now; try again, and see the log"
_WAITING_ADVICE: Final = "what waits is attempted by schedule; `houdini-relay status` says what holds it up"
MOST_NAMED: Final = 100
"""Differences that are named one by one on a screen."""
FEW: Final = 5
"""What waits for one target is named one by one up to so many."""
_SENTENCES: Final = {
    "unknown_order": "{upstream} upstream, but the relay does not know it",
    "status_differs": "{upstream} upstream, but the relay has it as {known}: {detail}",
    "missing": "target {target} was never given {known}: {detail}",
    "dead": "target {target} never acknowledged {known}: {detail}",
    "pending": "target {target} has not acknowledged {known} yet: {detail}",
}


@click.command()
@config_option
@click.option("--since", default="24h", show_default=True, help="Orders made since: how long ago, or ISO 8601.")
@click.option("--target", default=None, help="Only what this target lacks.", shell_complete=complete_target)
@click.option("--repair", is_flag=True, help="Deliver what is missing.")
@json_option
@click.pass_context
def audit(ctx: click.Context, config_path: Path, since: str, target: str | None, repair: bool, as_json: bool) -> None:
    """Compare the upstream with what every target acknowledged.

    Asks the running relay to read REST, which shows the last 48 h, through
    its one request limit; that takes a while. What may only be on its way is
    looked at again after a minute. --repair delivers what is missing: orders
    and changes on the way that backfill takes, dead and missing deliveries
    as replays, under their old webhook ids.

    Exit codes: 0 no difference (left), 1 differences, 2 there is no such
    target or --since goes back more than 48 h, 3 it could not be done: the
    relay does not run, another audit is under way, REST does not answer.
    """
    question = {"since": since, "target": target, "repair": repair}
    if not as_json:
        click.echo(wrapped("", _BEGINS, indent=0), err=True)
    try:
        report = ask_daemon(config_path, lambda client: client.post(AUDIT_PATH, question, patience=_PATIENCE))
    except DaemonRefused as refused:
        if refused.status in (400, 404):
            raise
        # Exit code 1 would say that there are differences.
        raise DaemonUnavailable(str(refused)) from None
    click.echo(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report, since, target)))
    left = [one for one in report["differences"] if not one["repaired"]]
    ctx.exit(1 if left or report["truncated"] else 0)


def _lines(report: dict[str, Any], since: str, target: str | None) -> Iterator[str]:
    differences = report["differences"]
    waiting = [one for one in differences if _waits(one)]
    named = [one for one in differences if not _waits(one)]
    named.sort(key=lambda one: (one["order"], one["target"] or ""))
    order = None
    for one in named[:MOST_NAMED]:
        if one["order"] != order:
            order = one["order"]
            yield wrapped("", f"order {order}", indent=2)
        yield wrapped("  - ", _sentence(one), indent=4)
    if len(named) > MOST_NAMED:
        yield f"... and {len(named) - MOST_NAMED} more; --json names all of them"
    yield from _what_waits(waiting)
    if differences:
        yield ""
    repaired = sum(one["repaired"] for one in differences)
    found = counted(len(differences), "difference") if differences else "no difference"
    period = f"in the last {since}" if re.fullmatch(r"[0-9]+[smhd]", since) else f"since {since}"
    summary = f"{counted(report['compared'], 'order')} made {period} compared: {found}"
    if repaired:
        summary += f", {repaired} repaired"
    yield wrapped("", summary + ".", indent=0)
    if report["settling"]:
        yield f"{report['settling']} more moved while they were looked at: on their way, no difference."
    if report["truncated"]:
        yield "There may be more: it stopped looking here."
    if any(not one["repaired"] for one in named):
        again = f"--since {since}" + ("" if target is None else f" --target {target}")
        repair = f"`houdini-relay audit --repair {again}` delivers what is missing"
        yield wrapped("-> ", _LEFT_ADVICE if repaired else repair)
    if waiting:
        yield wrapped("-> ", _WAITING_ADVICE)


def _waits(one: dict[str, Any]) -> bool:
    return one["kind"] == "pending" and not one["repaired"]


def _what_waits(waiting: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line a target: while one is down, nearly everything is on its way to it."""
    for target in sorted({one["target"] for one in waiting}):
        mine = [one for one in waiting if one["target"] == target]
        if len(mine) <= FEW:
            yield from (wrapped("  - ", f"order {one['order']}: {_sentence(one)}", indent=4) for one in mine)
        else:
            orders = counted(len({one["order"] for one in mine}), "order")
            yield wrapped("  - ", f"target {target} has not acknowledged {len(mine)} events of {orders} yet", indent=4)


def _sentence(one: dict[str, Any]) -> str:
    sentence = _SENTENCES.get(one["kind"], "{kind}: {detail}").format(**one)
    return f"{sentence} (repaired)" if one["repaired"] else sentence
