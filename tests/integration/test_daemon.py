"""The composition root, where a whole process would be too much for the question."""

from pathlib import Path

import pytest

from relay.admin.app import Admin
from relay.config import parse
from relay.daemon import Daemon, Exit
from relay.errors import StoreError

CONFIG = """\
upstream: {{websocket_url: "ws://127.0.0.1:9/", rest_url: "http://127.0.0.1:9/", partner_id: p, secret: s}}
store: {{url: "sqlite:///{store}"}}
targets: [{{name: t, url: "http://127.0.0.1:9/", secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw]}}]
admin: {{listen: "127.0.0.1:0"}}
"""


async def test_a_store_that_fails_while_rooms_are_built_is_exit_code_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not 1: the operator must be sent to the store, whenever it is that it fails."""

    async def fail(_admin: Admin) -> None:
        raise StoreError("the disk is gone")

    monkeypatch.setattr(Admin, "start", fail)
    settings = parse(CONFIG.format(store=tmp_path / "relay.db").encode(), "c.yaml", environ={})
    assert await Daemon(settings, "test").run() == Exit.STORE
