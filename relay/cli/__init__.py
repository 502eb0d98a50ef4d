"""The command line: one group, one file per kind of command, errors turned into sentences and exit codes."""

import shutil
import sys
from typing import Any

import click

from relay import __version__
from relay.admin.client import DaemonUnavailable, Refused
from relay.cli.audit import audit
from relay.cli.backfill import backfill
from relay.cli.check import check
from relay.cli.completion import completion
from relay.cli.deliveries import deliveries
from relay.cli.events import events
from relay.cli.orders import orders
from relay.cli.replay import replay
from relay.cli.run import run
from relay.cli.status import status
from relay.cli.store import store
from relay.cli.tail import tail
from relay.cli.targets import targets
from relay.cli.tools import demo, listen, secret, simulate
from relay.errors import ConfigError, RelayError, StoreError, UsageError

_FAILED, _USAGE, _STORE = 1, 2, 3


class RelayGroup(click.Group):
    """Lists commands in the order a newcomer needs them and knows what errors mean."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours becomes its sentence and its exit code."""
        try:
            return super().invoke(ctx)
        except RelayError as error:
            click.echo(str(error) if isinstance(error, ConfigError) else _sentence(error), err=True)
            ctx.exit(exit_code(error))


def _sentence(error: RelayError) -> str:
    """For people at a terminal no line breaks inside a word; for machines it stays one line."""
    text = f"houdini-relay: {error}"
    return click.wrap_text(text, shutil.get_terminal_size().columns) if sys.stderr.isatty() else text


def exit_code(error: RelayError) -> int:
    """2 for what a restart cannot help, 3 for a store or a relay that cannot be used, 1 for the rest."""
    if isinstance(error, Refused):
        return {400: _USAGE, 404: _USAGE, 409: _FAILED, 502: _FAILED}.get(error.status, _STORE)
    if isinstance(error, (ConfigError, UsageError)):
        return _USAGE
    return _STORE if isinstance(error, (StoreError, DaemonUnavailable)) else _FAILED


@click.group(cls=RelayGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, "--version", prog_name="houdini-relay", message="%(prog)s %(version)s")
def main() -> None:
    """Forward HoudiniSwap order updates from their WebSocket to your webhooks.

    Signed, durable, in order. Start with `houdini-relay demo`.
    """


_LOOKING = (status, tail, targets, deliveries, events, orders)
_MENDING = (replay, audit, backfill)
for command in (run, check, *_LOOKING, *_MENDING, demo, simulate, listen, secret, store, completion):
    main.add_command(command)
