"""No secret and no control character reaches a log line."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from relay import log


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    log.forget_secrets()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    log.forget_secrets()
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_known_secrets_are_redacted_wherever_they_stand(capsys: pytest.CaptureFixture[str]):
    log.register_secrets(["canary-secret"])
    log.configure("info", "json")
    logger = structlog.get_logger()
    logger.info(
        "event canary-secret", text="has canary-secret in it", nested={"a": ["canary-secret"]}, raw=b"canary-secret"
    )
    try:
        raise ValueError("canary-secret")
    except ValueError:
        logger.exception("failed")
    logging.getLogger("aiohttp").error("canary-secret from a library")
    captured = capsys.readouterr().err
    assert "canary-secret" not in captured
    lines = [json.loads(line) for line in captured.splitlines()]
    assert lines[0]["text"] == "has [redacted] in it"
    assert lines[0]["nested"] == {"a": ["[redacted]"]}
    assert "ValueError: [redacted]" in lines[1]["exception"]
    assert lines[2]["event"] == "[redacted] from a library"


def test_control_characters_are_escaped_and_texts_bounded(capsys: pytest.CaptureFixture[str]):
    """Failure mode 130."""
    log.configure("info", "console")
    structlog.get_logger().info("x", reason="\x1b[31mred\r\n{}".format("y" * 10_000))
    captured = capsys.readouterr().err
    assert "\x1b" not in captured
    assert "\\x1b[31mred" in captured
    assert len(captured) < 4_000


def test_short_values_are_not_searched_for():
    log.register_secrets(["id", ""])
    assert log.redact("an id") == "an id"


def test_levels_filter(capsys: pytest.CaptureFixture[str]):
    log.configure("warning", "json")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["loud"]


def test_a_sampler_tells_how_many_it_held_back():
    """Failure mode 131."""
    sampler = log.Sampler(limit=2, window=60.0)
    assert [sampler.admit(now) for now in (100.0, 101.0, 102.0, 103.0, 159.9, 160.0, 161.0, 162.0)] == [
        0, 0, None, None, None, 3, 0, None,
    ]  # fmt: skip


def test_unless_asked_otherwise_a_sampler_admits_five_lines_a_minute():
    sampler = log.Sampler()
    assert [sampler.admit(now) for now in (*range(1000, 1007), 1060)] == [0, 0, 0, 0, 0, None, None, 2]


def test_the_end_of_a_long_traceback_is_kept(capsys: pytest.CaptureFixture[str]):
    log.configure("info", "json")
    try:
        raise ValueError("x" * 20_000 + "the point")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    assert line["exception"].endswith("the point")
    assert len(line["exception"]) < 10_000


def test_json_lines_begin_with_what_one_looks_for(capsys: pytest.CaptureFixture[str]):
    log.configure("info", "json")
    structlog.get_logger().warning("breaker_opened", target="shop", since=None)
    line = json.loads(capsys.readouterr().err)
    assert list(line) == ["timestamp", "level", "event", "target", "since"]
    assert line["since"] is None


def form(width: int | None = 80, *, colours: bool = False, **members: object) -> str:
    event = {"timestamp": "15:04:40", "level": "warning", "event": "breaker_opened", **members}
    return log.ConsoleForm(colours, lambda: width)(None, "warning", event)


def test_on_a_terminal_the_sentences_stand_below_and_the_advice_last():
    text = form(advice="see why its receiver fails", target="shop", error="status 500", pending=3)
    assert text.splitlines() == [
        "15:04:40 warning breaker_opened target=shop pending=3",
        "         error: status 500",
        "         advice: see why its receiver fails",
    ]


def test_on_a_terminal_what_is_nothing_is_left_out_but_not_a_zero():
    text = form(since=None, targets=[], kind="", suppressed=0, count=0, ready=False)
    assert text == "15:04:40 warning breaker_opened count=0 ready=false"
    assert form(suppressed=2).endswith("breaker_opened suppressed=2")


def test_on_a_terminal_lines_are_broken_between_facts_and_words():
    facts = {f"fact{number}": "x" * 17 for number in range(6)}
    text = form(60, **facts, advice="words " * 30 + "https://receiver.example.com/" + "a" * 60)
    lines = text.splitlines()
    assert all(line.startswith("         ") for line in lines[1:])
    assert all(len(line) <= 60 for line in lines[:-1])
    assert lines[-1].endswith("https://receiver.example.com/" + "a" * 60)
    assert text.count("\n") == form(60, colours=True, **facts, advice="words " * 30 + "b" * 89).count("\n")


def test_without_a_terminal_nothing_is_broken():
    assert len(form(None, error="words " * 100, **{f"fact{n}": "x" * 30 for n in range(9)}).splitlines()) == 2


def test_on_a_terminal_lists_of_sentences_are_a_line_each():
    assert form(problems=["a.b: not a number", "short"], changed=["a", "b"]).splitlines() == [
        "15:04:40 warning breaker_opened changed=a,b",
        "         problems: a.b: not a number",
        "                   short",
    ]


def test_a_text_stays_on_its_line():
    """Failure mode 130."""
    assert log.clean("a\nb\x1b\u2028c") == "a\\nb\\x1b\\u2028c"


def test_nobody_can_make_up_a_line_of_the_console(capsys: pytest.CaptureFixture[str]):
    """Failure mode 130."""
    log.configure("info", "console")
    forged = "x\n15:04:40 error   forged"
    try:
        raise ValueError(forged)
    except ValueError:
        structlog.get_logger().exception("failed", order=forged, error=forged, problems=[forged])
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines if not line.startswith(" ")] == ["failed"]
