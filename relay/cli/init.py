"""`init` and `schema`: a configuration to begin with, and what an editor needs to complete it."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from relay.cli.options import config_option
from relay.cli.receiving import listen_command
from relay.config import InvalidConfig, parse
from relay.config.schema import render
from relay.delivery.signer import new_secret
from relay.errors import UsageError
from relay.simulator.defaults import PARTNER, RECEIVER_PORT, UPSTREAM_PORT, UPSTREAM_SECRET

_FOLDER: Final = "secrets"
_SIMULATOR: Final = (
    f"ws://127.0.0.1:{UPSTREAM_PORT}/v2/ws",
    f"http://127.0.0.1:{UPSTREAM_PORT}/v2",
    PARTNER,
    UPSTREAM_SECRET,
)
_REAL: Final = (
    "wss://partner-api.houdiniswap.com/v2/ws",
    "https://api-partner.houdiniswap.com/v2",
    "${HOUDINI_PARTNER_ID}",
    "${HOUDINI_SECRET}",
)
_LISTENER: Final = f"http://127.0.0.1:{RECEIVER_PORT}/"
_EXAMPLE: Final = "https://shop.example.com/hooks/houdini"
_HEAD: Final = """\
# houdini-relay: HoudiniSwap's order updates as signed webhooks. Made by `houdini-relay init`.
# Every key with its default: config.example.yaml and docs/configuration.md. What is left out has its default.
# As a service some lines change: docs/operations.md, "From init's file to a service".
# An editor completes keys after `houdini-relay schema > config.schema.json` and with this as the first line:
#   # yaml-language-server: $schema=config.schema.json

upstream:
  websocket_url: {}
  rest_url: {}
  partner_id: {}
  # Or {{file: /run/secrets/houdini}}, or {{credential: houdini-secret}} of systemd's LoadCredential=.
  secret: {}
  backfill:
    # With an empty store: baseline learns the orders of the last 48 h silently, emit delivers them, too.
    first_start: {}

store:
  # A file beside the process; postgresql://user@host/name for several instances (docs/scaling.md).
  url: {}

# Health, metrics, API and dashboard. An address beyond loopback needs a token.
admin:
  listen: 127.0.0.1:8787

targets:
"""
_IGNORE: Final = "# No secret goes into a repository.\n*\n"
_TARGET: Final = """\
  - name: {}
    url: {}
    # The receiver verifies with the same secret. A new one goes first, the old one stays second for a while.
    secrets:
      - {{file: {}}}
    # events: ["order.*"]      # order.finished, order.failed, ...; ["order.*", "relay.*"] for notices, too
    # changes: all             # status: only when the status changed
    # format: standard         # raw, cloudevents or slack
    # concurrency: 16
    # timeout: 15s
"""


@click.command()
@config_option
@click.option("--target", "targets", multiple=True, metavar="NAME=URL", help="A receiver; repeat it for several.")
@click.option("--simulator", is_flag=True, help="For `houdini-relay simulate` instead of the real upstream.")
def init(config_path: Path, targets: tuple[str, ...], simulator: bool) -> None:
    """Write a configuration to begin with, and a secret for each target.

    The secrets lie in files of their own beside it, in secrets/. Only you can
    read what is written, and nothing that is there already is overwritten.

    Exit code 2 if a file is there already or a target is not one.
    """
    chosen = _chosen(targets, simulator)
    folder = config_path.absolute().parent / _FOLDER
    files = {name: folder / name for name in chosen}
    text = _rendered(chosen, files, config_path, simulator)
    _judge(text, config_path)
    _refuse_to_overwrite([config_path, *files.values()])
    wanted = [(file, new_secret(os.urandom(32)) + "\n", 0o600) for file in files.values()]
    if not os.path.lexists(ignore := folder / ".gitignore"):
        wanted.append((ignore, _IGNORE, 0o644))
    # The address of a target may be a secret, too.
    _write_all(folder, [*wanted, (config_path, text, 0o600)])
    click.echo("\n".join(_next_steps(config_path, chosen, simulator)))


@click.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors.

    An editor that speaks YAML completes and explains keys by it; `check` judges
    much more.
    """
    click.echo(render())


def _chosen(targets: Sequence[str], simulator: bool) -> dict[str, str]:
    if not targets:
        return {"shop": _LISTENER if simulator else _EXAMPLE}
    chosen: dict[str, str] = {}
    for one in targets:
        name, separator, url = one.partition("=")
        if not separator or not name or not url:  # not shown: a URL may be a secret
            raise UsageError("--target: write NAME=URL, as in shop=https://shop.example.com/hooks/houdini")
        if name in chosen:
            raise UsageError(f"--target: there is a target {name} already; names are unique")
        chosen[name] = url
    return chosen


def _rendered(chosen: Mapping[str, str], files: Mapping[str, Path], config_path: Path, simulator: bool) -> str:
    store = f"sqlite:///{config_path.absolute().parent / 'relay.db'}"
    # Whoever tries it out wants to see something at once.
    values = (*(_SIMULATOR if simulator else _REAL), "emit" if simulator else "baseline", json.dumps(store))
    return _HEAD.format(*values) + "".join(
        _TARGET.format(name, json.dumps(url), json.dumps(str(files[name]))) for name, url in chosen.items()
    )


def _judge(text: str, config_path: Path) -> None:
    try:
        parse(text.encode(), str(config_path), environ=os.environ, require_secrets=False)
    except InvalidConfig as error:
        problems = "; ".join(f"{one.path}: {one.message}" for one in error.problems)
        raise UsageError(f"nothing was written: {problems}") from None


def _refuse_to_overwrite(files: Sequence[Path]) -> None:
    there = [str(file) for file in files if os.path.lexists(file)]
    if there:
        raise UsageError(
            f"nothing was written: {', '.join(there)} {'is' if len(there) == 1 else 'are'} there already; "
            f"move {'it' if len(there) == 1 else 'them'} away, or name another configuration with -c"
        )


def _write_all(folder: Path, files: Sequence[tuple[Path, str, int]]) -> None:
    """All of them or, as far as the disk lets us, none."""
    written: list[Path] = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file, text, mode in files:
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as stream:
                written.append(file)
                stream.write(text)
    except OSError as error:
        for file in written:
            file.unlink(missing_ok=True)
        raise UsageError(f"nothing was written: {error.filename or folder}: {error.strerror}") from None


def _next_steps(config_path: Path, chosen: Mapping[str, str], simulator: bool) -> list[str]:
    folder = config_path.parent / _FOLDER
    option = "" if str(config_path) == "config.yaml" else f" -c {shlex.quote(str(config_path))}"
    lines = [f"Wrote {config_path}, and a secret for each target:"]
    lines += [f"  {name:<12} {folder / name}" for name in chosen]
    lines += ["", "Next:"]
    steps: list[str] = []
    if simulator:
        steps.append("in another terminal:   houdini-relay simulate")
        for name, url in chosen.items():
            if (command := listen_command(url, str(folder / name))) is not None:
                steps.append(f"in one more, {name}:\n       {command}")
    else:
        if _EXAMPLE in chosen.values():
            steps.append(f"put your receiver's address into {config_path}")
        steps.append("give each receiver its secret; docs/receiving.md shows how it verifies")
        steps.append("export HOUDINI_PARTNER_ID=... HOUDINI_SECRET=...")
    steps += [
        f"is all well?           houdini-relay check --connect{option}",
        f"start it:              houdini-relay run{option}",
        f"look at it:            houdini-relay status{option}",
        "on one page:           http://127.0.0.1:8787/",
    ]
    return lines + [f"  {number}. {step}" for number, step in enumerate(steps, 1)]
