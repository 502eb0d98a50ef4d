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
