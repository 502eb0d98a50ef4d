"""How deliveries look: a live table on a terminal, plain lines anywhere else."""

import json
from collections import deque
from types import TracebackType
from typing import Final, Self

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from relay.simulator.receiver import Arrival

_ROWS: Final = 14
_HEADINGS: Final = ("#", "order", "event", "seq", "via", "attempt", "answer")


ARRIVAL_HEADINGS: Final = f"{'#':>5}  {'order':<22} {'event':<18} {'seq':>3}  {'via':<9} {'try':>3} answer"


def describe_arrival(arrival: Arrival, *, as_json: bool = False, repeated: bool = False) -> str:
    """One attempt as a line; every piece of outside text is made printable.

    Args:
        arrival: what came in.
        as_json: a JSON document instead, with the webhook id.
        repeated: whether its webhook id had come before: the same event once more, which at-least-once allows.
    """
    if as_json:
        return json.dumps(
            {
                "number": arrival.number,
                "webhook_id": arrival.webhook_id,
                "attempt": arrival.attempt,
                "type": arrival.type,
                "order": arrival.houdini_id,
                "sequence": arrival.sequence,
                "origin": arrival.origin,
                "verified": arrival.problem is None,
                "problem": arrival.problem,
                "answer": arrival.answer,
                "repeated": repeated,
            }
        )
    number, order, event, sequence, origin, attempt, answer = _cells(arrival)
    line = f"{number:>5}  {order:<22.22} {event:<18.18} {sequence:>3}  {origin:<9.9} {attempt:>3} {answer:>6}"
    if repeated:
        line += " again"
    return f"{line}\n       {arrival.problem}" if arrival.problem else line


def _cells(arrival: Arrival) -> tuple[str, ...]:
    cells = (
        str(arrival.number),
        arrival.houdini_id or "-",
        arrival.type or "-",
        "-" if arrival.sequence is None else str(arrival.sequence),
        arrival.origin or "-",
        "-" if arrival.attempt is None else str(arrival.attempt),
        str(arrival.answer),
    )
    return tuple("".join(char if char.isprintable() else "?" for char in cell) for cell in cells)


class DemoScreen:
    """Shows a demo as it goes; `quiet` shows nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(highlight=False)
        self._recent: deque[Arrival] = deque(maxlen=_ROWS)
        self._count = 0
        self._failed = 0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=8, get_renderable=self._render)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def arrival(self, arrival: Arrival) -> None:
        """Show one delivery."""
        self._count += 1
        self._failed += not arrival.acknowledged
        self._recent.append(arrival)
        if self._live is None and not self._quiet:
            click.echo(describe_arrival(arrival))

    def say(self, sentence: str) -> None:
        """Show what is going on."""
        if self._live is not None:
            self._live.console.print(Text(sentence, style="bold"))
        elif not self._quiet:
            click.echo(f"-- {sentence}")

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in _HEADINGS:
            table.add_column(heading, justify="right" if heading in ("#", "seq", "attempt", "answer") else "left")
        for arrival in self._recent:
            *cells, answer = _cells(arrival)
            table.add_row(*cells, Text(answer, style="green" if arrival.acknowledged else "red"))
        return Group(table, Text(f"{self._count} attempts, {self._failed} not acknowledged", style="dim"))
