"""Structured logs: JSON lines for machines, coloured lines for a terminal, known secrets redacted everywhere."""

import logging
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any, Final

import structlog

REDACTED: Final = "[redacted]"
_SHORTEST_SECRET: Final = 6
"""Shorter values are not searched for: they would blank out ordinary words."""
_LONGEST_TEXT: Final = 2048

_known_secrets: set[str] = set()


class Sampler:
    """Lets a line through a few times per window; what it held back is told with the next one."""

    def __init__(self, limit: int, window: float) -> None:
        self._limit = limit
        self._window = window
        self._since = 0.0
        self._count = 0
        self._suppressed = 0

    def admit(self, now: float) -> int | None:
        """How many were held back since the last one that was let through; None to hold this one back too.

        Args:
            now: monotonic seconds.
        """
        if now - self._since >= self._window:
            self._since, self._count = now, 0
        if self._count >= self._limit:
            self._suppressed += 1
            return None
        self._count += 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


def register_secrets(values: Iterable[str]) -> None:
    """Never let these values appear in a log line from now on."""
    global _known_secrets
    # Another set, not the same one enlarged: a thread may be going through it.
    _known_secrets = _known_secrets | {value for value in values if len(value) >= _SHORTEST_SECRET}


def forget_secrets() -> None:
    """Forget all registered values (for tests)."""
    global _known_secrets
    _known_secrets = set()


def redact(text: str) -> str:
    """The text with every known secret replaced."""
    for secret in _known_secrets:
        if secret in text:
            text = text.replace(secret, REDACTED)
    return text


def clean(value: Any) -> Any:
    """A value fit to be logged: secrets gone, control characters escaped, not overlong."""
    if isinstance(value, str):
        text = redact(value)[:_LONGEST_TEXT]
        if text.isprintable():
            return text
        return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)
    if isinstance(value, MutableMapping):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    if isinstance(value, bytes):
        return clean(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, float):
        return round(value, 3)
    if value is None or isinstance(value, (bool, int)):
        return value
    return clean(str(value))


def _clean_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: clean(value) for key, value in event.items()}


def configure(level: str, form: str) -> None:
    """Send logs to standard error.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: `console`, `json`, or `auto` (console on a terminal).
    """
    terminal = sys.stderr.isatty()
    as_console = form == "console" or (form == "auto" and terminal)
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    if as_console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=terminal, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0, pad_level=False
        )
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    if as_console:
        stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        stamp,
        structlog.processors.format_exc_info,
        _clean_event,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _adopt_standard_logging(shared, renderer)


def _adopt_standard_logging(shared: list[Any], renderer: Any) -> None:
    """Libraries log through `logging`; their warnings take the same road and the same redaction."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
