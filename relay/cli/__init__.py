"""The command line: one group, one file per kind of command, errors turned into sentences and exit codes."""

import shutil
import sys
from importlib import import_module
from typing import Any, Final

import click

from relay import __version__
from relay.errors import ConfigError, DaemonRefused, DaemonUnavailable, RelayError, StoreError, UsageError

_FAILED, _USAGE, _STORE = 1, 2, 3
_MODULES: Final = {
    "init": "init",
    "run": "run",
    "check": "check",
    "status": "status",
    "tail": "tail",
    "targets": "targets",
    "deliveries": "deliveries",
    "events": "events",
    "orders": "orders",
    "replay": "replay",
    "audit": "audit",
    "backfill": "backfill",
    "demo": "tools",
    "simulate": "tools",
    "listen": "tools",
    "secret": "tools",
    "schema": "init",
    "store": "store",
    "completion": "completion",
}
"""Where each command is, in the order a newcomer needs them; imported only when called: none waits for the others."""


class RelayGroup(click.Group):
    """Lists commands in the order a newcomer needs them and knows what errors mean."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import its module, if there is such a command."""
        if cmd_name not in _MODULES:
            return None
        found: click.Command = getattr(import_module(f"relay.cli.{_MODULES[cmd_name]}"), cmd_name)
        return found

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
    if isinstance(error, DaemonRefused):
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
