"""Commands typed into a terminal of eighty columns, against a served admin room."""

import asyncio
from pathlib import Path

from admin_kit import TOKEN, AdminRoom
from click.testing import CliRunner

from relay.cli import main

CONFIG = """\
upstream:
  {{websocket_url: "ws://127.0.0.1:1/ws", rest_url: "http://127.0.0.1:1", partner_id: me, secret: "${{NOT_SET}}"}}
targets: [{{name: alpha, url: "https://shop.example.com/", secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw]}}]
admin: {{listen: {listen}, token: {token}}}
store: {{url: "sqlite:///{store}"}}
"""


class Terminal:
    """Eighty columns to type commands into."""

    def __init__(self, room: AdminRoom, config: Path) -> None:
        self.room = room
        self.config = config
        self.configure(f'"127.0.0.1:{room.admin.port}"')

    def configure(self, listen: str, token: str = TOKEN) -> None:
        self.config.write_text(CONFIG.format(listen=listen, token=token, store=self.config.parent / "relay.db"))

    async def type(self, *arguments: str, typed: str | None = None) -> tuple[int, str, str]:
        command = [*arguments, "-c", str(self.config)]
        result = await asyncio.to_thread(CliRunner().invoke, main, command, input=typed)
        assert not any(char in result.output for char in "\x1b\x07\x00\x9b")
        if "--json" not in arguments:
            assert all(len(line) <= 80 for line in result.stdout.splitlines()), result.stdout
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr
