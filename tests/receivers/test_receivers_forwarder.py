"""The forwarder before a tool that cannot verify: what is genuine goes on, and the tool's answer comes back."""

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from receiver_events import FORGERIES, event
from receiver_kit import EXAMPLES, JOURNAL, OTHER_SECRET, Receiver, signed
from support.needs import require_tool

pytestmark = pytest.mark.machine

BODY = event("order-ž", 1)


@dataclass
class Tool:
    """Answers with `status` and `headers`, and keeps what it was sent."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    posts: list[tuple[str | None, str | None, bytes]] = field(default_factory=list)
    silent: bool = False
    port: int = 0


@pytest.fixture
def tool() -> Iterator[Tool]:
    answers = Tool()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            answers.posts.append((self.headers["webhook-id"], self.headers["x-make-apikey"], body))
            if answers.silent:
                return
            self.answer(answers.status, answers.headers)

        def do_GET(self) -> None:
            self.answer(200, {})

        def answer(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in ({"content-length": "0"} | headers).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        answers.port = server.server_address[1]
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield answers
        server.shutdown()
        serving.join(5)


@pytest.fixture
def forwarder(tool: Tool, tmp_path: Path) -> Iterator[Receiver]:
    require_tool("node")
    environ = {
        "FORWARD_URL": f"http://127.0.0.1:{tool.port}/secret-path",
        "FORWARD_HEADERS": '{"x-make-apikey":"k"}',
    }
    script = str(EXAMPLES / "forwarder" / "forwarder.mjs")
    made = Receiver([str(shutil.which("node")), script], JOURNAL, tmp_path, environ)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def test_what_is_genuine_goes_on_byte_for_byte(forwarder: Receiver, tool: Tool):
    assert forwarder.deliver("evt_1", BODY) == 204
    assert tool.posts == [("evt_1", "k", BODY)]


def test_what_is_not_genuine_goes_nowhere(forwarder: Receiver, tool: Tool):
    for forge in FORGERIES.values():
        headers = signed("evt_1", BODY)
        forge(headers)
        assert forwarder.post(BODY, headers) == 401
    assert forwarder.post(BODY, signed("evt_1", BODY, secret=OTHER_SECRET)) == 401
    assert forwarder.post(BODY, signed("evt_1", BODY, age=360)) == 401
    assert forwarder.post(BODY + b" ", signed("evt_1", BODY)) == 401
    assert forwarder.post(b" " * 1_200_000, signed("evt_1", b" ")) in (413, 0)
    assert tool.posts == []


@pytest.mark.parametrize(("status", "told"), [(500, 502), (404, 502), (410, 502), (400, 502), (429, 429)])
def test_what_the_tool_did_not_take_is_not_acknowledged(forwarder: Receiver, tool: Tool, status: int, told: int):
    tool.status, tool.headers = status, {"retry-after": "7"}
    assert forwarder.deliver("evt_1", BODY) == told
    tool.status = 200
    assert forwarder.deliver("evt_1", BODY) == 204


def test_a_tool_that_hangs_up_is_not_acknowledged_and_not_named(forwarder: Receiver, tool: Tool):
    tool.silent = True
    assert forwarder.deliver("evt_1", BODY) == 502
    assert "secret-path" not in forwarder.last_words()


def test_a_redirect_to_the_output_is_followed(forwarder: Receiver, tool: Tool):
    tool.status, tool.headers = 302, {"location": f"http://127.0.0.1:{tool.port}/echo"}
    assert forwarder.deliver("evt_1", BODY) == 204
    assert len(tool.posts) == 1
