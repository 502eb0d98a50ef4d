"""What `simulate` and `listen` say first: what to paste, if anything, and which command comes next."""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from relay.config import InvalidConfig, Settings, TargetSettings, load
from relay.errors import SecretUnreadable
from relay.simulator.defaults import PARTNER, RECEIVER_PORT, UPSTREAM_SECRET

_LOOPBACK: Final = re.compile(r"http://(?:127\.0\.0\.1|localhost):(\d+)(?:/.*)?")

_SNIPPET: Final = """\
upstream:
  websocket_url: {websocket_url}
  rest_url: {rest_url}
  partner_id: {partner}
  secret: {secret}
"""


def listen_command(url: str, secret: str) -> str | None:
    """How to receive what is sent to this address, None where that is not this machine.

    Args:
        url: the target's.
        secret: the file that holds its secret.
    """
    if (loopback := _LOOPBACK.fullmatch(url)) is None:
        return None
    port = "" if int(loopback[1]) == RECEIVER_PORT else f" --port {loopback[1]}"
    return f'houdini-relay listen{port} --secret "$(cat {shlex.quote(secret)})"'


def leading_to(websocket_url: str, rest_url: str) -> Iterator[str]:
    """For whoever began `simulate`: what leads a relay there, and what to begin next."""
    settings = _settings_here()
    commands: Sequence[str] = () if settings is None else listen_commands(settings)
    if settings is not None and settings.upstream.websocket_url == websocket_url:
        yield "# the configuration leads here already: nothing to paste"
    else:
        yield "# config.yaml, first half; `houdini-relay listen` prints the other"
        yield _SNIPPET.format(websocket_url=websocket_url, rest_url=rest_url, partner=PARTNER, secret=UPSTREAM_SECRET)
    yield "# next, in another terminal:" if len(commands) < 2 else "# next, each in a terminal of its own:"
    yield from (f"#   {command}" for command in commands or ["houdini-relay listen"])
    yield ""


def sending_to(port: int, made_up: str | None) -> Iterator[str]:
    """For whoever began `listen`: what has a relay send there, and what to begin next.

    Args:
        port: where it listens.
        made_up: the secret that nobody else knows yet; None where one was given.
    """
    settings = _settings_here()
    if made_up is None:
        yield "# its secret was given: nothing to paste, the target that signs with it has it already\n"
    elif settings is not None and (commands := listen_commands(settings)):
        yield "# what the configuration sends is signed with other secrets; to receive that, end this and begin:"
        yield from (f"#   {command}" for command in commands)
        yield ""
    else:
        yield "# config.yaml, second half; `houdini-relay simulate` prints the other"
        yield f"targets:\n  - name: listen\n    url: http://127.0.0.1:{port}/\n    secrets: [{made_up}]\n"
        yield f"# made up for this run; next time:\n#   houdini-relay listen --secret {made_up}\n"
    if made_up is not None and settings is None:
        yield "# when the configuration has both halves, in another terminal:\n#   houdini-relay run\n"
    else:
        yield "# next, in another terminal, unless it runs already:\n#   houdini-relay run\n"


def _settings_here() -> Settings | None:
    """The configuration that the commands typed here use; None where there is none that can be used."""
    path = Path(os.environ.get("HOUDINI_RELAY_CONFIG") or "config.yaml")
    try:
        return load(path, environ=os.environ, require_secrets=False)
    except InvalidConfig:
        return None


def listen_commands(settings: Settings) -> Sequence[str]:
    """One for each target on this machine whose secret lies in a file."""
    return [command for target in settings.targets if (command := _command_of(target)) is not None]


def _command_of(target: TargetSettings) -> str | None:
    kind, _, file = target.secrets[0].where.partition(" ")
    if kind != "file":
        return None
    try:
        url = target.url.reveal()
    except SecretUnreadable:
        return None
    folder = f"{os.getcwd()}/"
    return listen_command(url, file.removeprefix(folder))
