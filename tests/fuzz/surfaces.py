"""Every way in from outside, and what must hold whatever comes: our own errors only, in printable words, no secret."""

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import yaml
from click.testing import CliRunner
from fuzz.hostile import LEAVES, NAMES, ODD_TEXT, ORDERS, VALUES, bent, damaged
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from support.clock import JumpClock

from relay.cli import main
from relay.config import InvalidConfig, parse
from relay.config.settings import UpstreamSettings
from relay.delivery.answer import HEAD_CAP, READ_CAP, AnswerReader, NotAnAnswer
from relay.delivery.envelope import compose
from relay.errors import UpstreamError
from relay.metrics import Metrics
from relay.model import Event, KnownOrder, Origin, Snapshot
from relay.upstream.orders_api import OrdersApi, _Answer
from relay.upstream.planner import Entry, Situation, plan_batch
from relay.upstream.protocol import BadMessage, BadOrder, OrderUpdate, parse_message, parse_order, snapshot, stand_in
from relay.upstream.subscription import SubscriptionState

CANARY = "CANARY-7f3a"
"""Stands where a secret may stand; nothing that is said may hold it."""
FORMATS = ("standard", "raw", "cloudevents", "slack")


@dataclass(frozen=True)
class Surface:
    """One way in.

    Attributes:
        inputs: what comes.
        check: raises if something does not hold.
    """

    name: str
    inputs: SearchStrategy[Any]
    check: Callable[[Any], None]


def insist_on_print(text: str) -> None:
    """One line that no terminal takes for anything else, and no secret."""
    assert text.isprintable(), text
    assert CANARY not in text, text


# Frames of the WebSocket.

_MESSAGES = st.one_of(
    st.builds(lambda order: {"type": "order_update", "data": order}, ORDERS),
    st.fixed_dictionaries({"type": st.sampled_from(["welcome", "subscribed", "unsubscribed", "error", "pong", "x"])}),
    st.dictionaries(NAMES, VALUES, max_size=4),
)
FRAMES = st.one_of(
    damaged(_MESSAGES), st.binary(max_size=60), damaged(_MESSAGES).map(lambda raw: raw.decode(errors="replace"))
)


def check_frame(frame: str | bytes) -> None:
    message = parse_message(frame)
    SubscriptionState(frozenset({"a"})).on_message(message)
    if isinstance(message, BadMessage):
        insist_on_print(message.reason)
    if not isinstance(message, OrderUpdate):
        return
    raw = frame.encode() if isinstance(frame, str) else frame
    assert message.order in raw, "an order is forwarded byte for byte"
    _ingest(message.order, Origin.WEBSOCKET)


def _ingest(body: bytes, origin: Origin) -> None:
    """What the relay does with an order, from the bytes to those of every webhook format."""
    try:
        order = parse_order(body)
    except BadOrder as error:
        insist_on_print(str(error))
        stand_in(body)
        return
    seen = snapshot(order, body, origin=origin, seen_ms=1_000, asked_at=500.0)
    before = KnownOrder(order.houdini_id, 0, 0, {"status": 0, "inStatus": None}, None, silent=False, sequence=3)
    for known in ({}, {order.houdini_id: before}):
        for event in _planned(seen, known):
            _send(event, body)


def _planned(seen: Snapshot, known: dict[str, KnownOrder]) -> list[Event]:
    situation = Situation("p", 2_000, 600.0, 60.0, 0.0, {})
    plan, _ = plan_batch([Entry(seen), Entry(seen)], known, situation, lambda _event: ("shop",))
    assert len(plan.events) <= 1, "the same again is no event"
    return [planned.event for planned in plan.events]


def _send(event: Event, body: bytes) -> None:
    for format in FORMATS:
        sent = compose(event, format, "p")
        assert format == "slack" or body in sent
        if format == "slack":
            json.loads(sent)


# Answers of the REST side.

_PAGES = st.fixed_dictionaries({"orders": st.lists(ORDERS, max_size=4), "total": LEAVES})
BODIES = st.one_of(damaged(_PAGES), damaged(ORDERS), damaged(st.dictionaries(NAMES, VALUES)), st.binary(max_size=60))
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "Date", "X-RateLimit-Reset", "Content-Type"]),
    st.one_of(ODD_TEXT, st.integers().map(str), st.sampled_from(["Sun, 22 Nov 2026 07:04:50 GMT", "Sun, 99 Nov"])),
)
ANSWERS = st.tuples(st.sampled_from([200, 200, 200, 201, 204, 302, 400, 401, 404, 429, 500, 503]), HEADERS, BODIES)


class ScriptedApi(OrdersApi):
    """Answers by itself."""

    answer: _Answer

    async def _exchange(self, *_: object) -> _Answer:
        return self.answer


def _api() -> ScriptedApi:
    settings = UpstreamSettings.model_validate(
        {"websocket_url": "wss://h.example/ws", "rest_url": "https://h.example", "partner_id": "p", "secret": CANARY}
    )
    return ScriptedApi(settings, lambda: None, JumpClock(), Metrics("fuzz"))  # type: ignore[arg-type, return-value]  # nothing is opened


def check_answer(answer: tuple[int, dict[str, str], bytes]) -> None:
    asyncio.run(_check_answer(answer))


async def _check_answer(answer: tuple[int, dict[str, str], bytes]) -> None:
    api = _api()
    api.answer = _Answer(*answer, 1.0)
    try:
        for row in (await api.list_page(page=1)).rows:
            _ingest(row, Origin.BACKFILL)
    except UpstreamError as error:
        insist_on_print(str(error))
    try:
        _ingest((await api.get("order-1")).body, Origin.BACKFILL)
    except UpstreamError as error:
        insist_on_print(str(error))


# What a receiver answers.

_HEADS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 503 x\r\nretry-after: 5\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        b"HTTP/1.0 301 Moved\r\nlocation: http://169.254.169.254/\r\n\r\n",
    ]
)
STREAMS = st.tuples(st.one_of(_HEADS.flatmap(bent), st.binary(max_size=80)), st.integers(1, 40), st.booleans())


def check_stream(given: tuple[bytes, int, bool]) -> None:
    stream, step, head_only = given
    reader = AnswerReader()
    reader.begin(head_only=head_only)
    for start in range(0, min(len(stream), 2_000), step):
        try:
            reader.feed(stream[start : start + step])
        except NotAnAnswer as flaw:
            insist_on_print(str(flaw))
            assert not reader.reusable
            break
        if reader.over:
            break
    if reader.answer is not None:
        assert 200 <= reader.answer.status <= 999
        assert len(reader.answer.body) <= READ_CAP
        assert sum(map(len, reader.answer.headers.values())) <= HEAD_CAP
    reader.forget()


# The configuration file.

_EXAMPLE = yaml.safe_load((Path(__file__).parents[2] / "config.example.yaml").read_text())
_SMALL = {
    "upstream": {"partner_id": "p", "secret": CANARY},
    "targets": [
        {"name": "shop", "url": f"https://{CANARY}@shop.example.com/{CANARY}", "secrets": ["whsec_" + "A" * 43]}
    ],
}
_KEYS = sorted(
    {key for part in (_EXAMPLE, *_EXAMPLE.values(), *_EXAMPLE["targets"]) if isinstance(part, dict) for key in part}
)
_SETTINGS = st.one_of(
    VALUES,
    st.sampled_from(["1s", "0", "-5m", "10/s", "1/0", "999999d", "${X}", f"${{{CANARY}", "*", "[::1]:80", "0.0.0.0:1"]),
    st.sampled_from(["http://169.254.1.1", "https://[", "https://a b", "ftp://x", "https://x:99999", "sqlite:///a.db"]),
    st.builds(lambda name: {"file": name}, ODD_TEXT),
)
YAML_BITS = st.sampled_from(
    [
        b"&a [*a]",
        b"*a",
        b"!!python/object:os.system x",
        b"<<: {a: 1}",
        b"? x\n: y",
        b"\t- a",
        b"---\n",
        b"...\n",
        b"%YAML 1.1",
    ]
)


@st.composite
def configurations(draw: st.DrawFn) -> bytes:
    document: Any = json.loads(json.dumps(draw(st.sampled_from([_SMALL, _EXAMPLE]))))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from([document, document["upstream"], document["targets"][0]]))
        place[draw(st.one_of(st.sampled_from(_KEYS), NAMES))] = draw(_SETTINGS)
        if not (isinstance(document.get("upstream"), dict) and document.get("targets") == document["targets"] != []):
            break
        if not (isinstance(document["targets"], list) and isinstance(document["targets"][0], dict)):
            break
    text = json.dumps(document) if draw(st.booleans()) else yaml.safe_dump(document)
    raw = draw(bent(text.encode(errors="surrogatepass")))
    where = draw(st.integers(0, len(raw)))
    return raw[:where] + draw(st.one_of(st.just(b""), st.just(b""), YAML_BITS)) + raw[where:]


def check_configuration(raw: bytes) -> None:
    for demanding in (False, True):
        try:
            parse(raw, "config.yaml", environ={"X": CANARY}, require_secrets=demanding)
        except InvalidConfig as error:
            for line in str(error).splitlines():
                insist_on_print(line)


# The command line.

_COMMANDS = (
    "check", "status", "targets list", "targets pause", "targets forget", "deliveries list", "deliveries show",
    "deliveries retry", "events list", "events show", "orders show", "replay", "audit", "backfill", "store check",
    "store backup", "store copy", "store migrate", "store prune", "secret new", "schema", "completion", "init", "tail",
    "nonsense",
)  # fmt: skip
_OPTIONS = (
    "--json", "--target", "--since", "--until", "--limit", "--status", "--all", "--yes", "--dry-run", "--to", "-c",
    "--help", "--order", "--simulator", "--ed25519", "-x", "--",
)  # fmt: skip
_WORDS = st.one_of(
    st.sampled_from(["shop", "1", "-1", "0", "9" * 30, "yesterday", "2026-11-22", "1h", "config.yaml", "a.db", "bash"]),
    st.sampled_from(
        ["postgresql://u:p@127.0.0.1:1/x", "sqlite:///x.db", "https://h.example.com/x", "shop=ftp://x", "/"]
    ),
    st.text(st.characters(categories=["L", "N", "P", "S"], include_characters=" "), max_size=12),
)
ARGUMENTS = st.tuples(
    st.sampled_from(_COMMANDS).map(str.split),
    st.lists(st.one_of(st.sampled_from(_OPTIONS), _WORDS), max_size=5),
    st.booleans(),
)
_EXIT_CODES = {0, 1, 2, 3}


def check_arguments(given: tuple[list[str], list[str], bool]) -> None:
    command, arguments, configured = given
    before = Path.cwd()
    with TemporaryDirectory(prefix="relay-fuzz-") as name:
        os.chdir(name)
        try:
            if configured:
                settings = {**_SMALL, "admin": {"listen": "127.0.0.1:1"}, "store": {"url": "sqlite:///nothing/here.db"}}
                Path("config.yaml").write_text(yaml.safe_dump(settings))
            result = CliRunner().invoke(main, [*command, *arguments])
        finally:
            os.chdir(before)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in _EXIT_CODES, result.exit_code
    assert "Traceback" not in result.output
    for line in click.unstyle(result.output).replace("\t", " ").split("\n"):
        insist_on_print(line)


SURFACES = {
    one.name: one
    for one in (
        Surface("frames", FRAMES, check_frame),
        Surface("rest", ANSWERS, check_answer),
        Surface("receivers", STREAMS, check_stream),
        Surface("configuration", configurations(), check_configuration),
        Surface("arguments", ARGUMENTS, check_arguments),
    )
}
