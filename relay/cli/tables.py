"""Tables for a terminal of eighty columns: what can be copied is never cut, everything else folds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.cli.words import WIDTH, exactly, printable, wrapped

_STYLES: Final = {
    "delivered": "green",
    "ok": "green",
    "active": "green",
    "dead": "red",
    "open": "red",
    "parked": "red",
    "half_open": "yellow",
    "in_flight": "yellow",
    "paused": "yellow",
    "orphaned": "yellow",
}

_WHOLE_TO: Final = 38
"""Characters of a line that may stay whole; what a stranger made longer is folded."""
_MOST_TEXT: Final = 300


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, whether it is of numbers, whether its lines are to stay whole where they can."""

    heading: str
    right: bool = False
    whole: bool = False


def show_table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; cells are made printable, first words of a known meaning get their colour."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    cells = [list(map(_cell, row)) for row in rows]
    for number, column in enumerate(columns):
        justify: Any = "right" if column.right else "left"
        widest = max((max(map(len, row[number].plain.splitlines()), default=0) for row in cells), default=0)
        whole = column.whole and widest <= _WHOLE_TO
        table.add_column(column.heading, justify=justify, no_wrap=whole, overflow="fold")
    for row in cells:
        table.add_row(*row)
    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, markup=False, width=WIDTH)
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _cell(value: object) -> Text:
    lines = [printable(line) for line in str(value).splitlines()] or [""]
    text = Text("\n".join(lines), overflow="fold")
    text.stylize(_STYLES.get(lines[0].partition(" ")[0], ""), 0, len(lines[0]))
    return text


def show_facts(facts: Mapping[str, object]) -> None:
    """Print names and values under one another; None is left out."""
    width = max(len(name) for name in facts) + 4
    for name, value in facts.items():
        if value is not None:
            click.echo(wrapped(f"  {name}".ljust(width), value, indent=width))


def show_attempts(attempts: Sequence[Mapping[str, Any]], made: int, now_ms: int, *, indent: int = 0) -> None:
    """Print attempts, each with what its receiver said."""
    margin = " " * indent
    if made > len(attempts):
        click.echo(f"{margin}(the last {len(attempts)} of {made} attempts)")
    for one in attempts:
        notes = "".join(f", {word}" for word in ("manual", "probe") if one[word])
        status = "no answer" if one["status_code"] is None else one["status_code"]
        took = f"{one['duration_ms']:.0f} ms"
        line = f"{one['outcome']}, {status}, {took}{notes}; {exactly(one['at'], now_ms)}"
        click.echo(wrapped(f"{margin}{one['number']:>3}  ", line, indent=indent + 5))
        for text in (one["error"], " ".join(one["response_body"].split())):
            if text:
                click.echo(wrapped(margin + " " * 5, _cut(text)))


def _cut(text: str) -> str:
    """What a screen can take; `--json` has all of it."""
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]} ... ({len(text)} characters)"
