"""`completion`: shells that finish words; and which words there are."""

import os
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from relay.config import load
from relay.errors import RelayError, UsageError

PROGRAM: Final = "houdini-relay"
_VARIABLE: Final = "_HOUDINI_RELAY_COMPLETE"
_SHELLS: Final = ("bash", "fish", "zsh")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script by which a shell completes commands and names.

    For good: `eval "$(houdini-relay completion bash)"` in ~/.bashrc, the same
    with zsh in ~/.zshrc (after compinit); for fish write it to
    ~/.config/fish/completions/houdini-relay.fish. Names of targets come from
    the configuration: -c where it stands before them, HOUDINI_RELAY_CONFIG, or
    config.yaml.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"there is no completion for {shell}")
    click.echo(kind(ctx.find_root().command, {}, PROGRAM, _VARIABLE).source())


def complete_target(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of configured targets; none where the configuration cannot be read, for a shell must not be talked to."""
    path = ctx.params.get("config_path") or Path(os.environ.get("HOUDINI_RELAY_CONFIG", "config.yaml"))
    try:
        settings = load(Path(path), environ=os.environ, require_secrets=False)
    except RelayError:
        return []
    return [CompletionItem(one.name) for one in settings.targets if one.name.startswith(incomplete)]
