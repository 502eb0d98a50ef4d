"""Structured logs: JSON lines for machines, laid out for a reader on a terminal, known secrets redacted everywhere."""

import json
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any, Final
from urllib.parse import quote

import structlog

REDACTED: Final = "[redacted]"
_SHORTEST_SECRET: Final = 6
"""Shorter values are not searched for: they would blank out ordinary words."""
_LONGEST_TEXT: Final = 2048
_LONGEST_TRACEBACK: Final = 8192
_LEADING: Final = ("timestamp", "level", "event")
_TRACEBACKS: Final = ("exception", "stack")

_INDENT: Final = " " * 9
"""The width of the time: what belongs to a line stands below its name."""
_SENTENCES: Final = ("error", "detail", "advice")
"""Members that read as a sentence; the advice comes last, because that is what one looks for."""
_NARROWEST: Final = 40
_COLOURS: Final = {"error": "\x1b[1;31m", "warning": "\x1b[33m", "info": "\x1b[32m", "debug": "\x1b[2m"}
_BOLD, _FAINT, _ADVICE, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[1;36m", "\x1b[0m"

_known_secrets: set[str] = set()


LINES_A_MINUTE: Final = 5
"""Lines of one kind, where one a message or attempt could come."""


class Sampler:
    """Lets a line through a few times per window; what it held back is told with the next one."""

    def __init__(self, limit: int = LINES_A_MINUTE, window: float = 60.0) -> None:
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
    known = [value for value in values if len(value) >= _SHORTEST_SECRET]
    _known_secrets = _known_secrets | {spelling for value in known for spelling in spellings(value)}


def forget_secrets() -> None:
    """Forget all registered values (for tests)."""
    global _known_secrets
    _known_secrets = set()


def spellings(value: str) -> tuple[str, ...]:
    """How a secret reads once somebody has put it into JSON, some of whose writers escape every slash, or a URL."""
    in_json = json.dumps(value)[1:-1]
    return tuple(dict.fromkeys((value, in_json, in_json.replace("/", "\\/"), quote(value, safe=""))))


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
        return _escaped(text)
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
    leading = {key: event[key] for key in _LEADING if key in event}
    members = {**leading, **event}
    return {key: _clean_traceback(value) if key in _TRACEBACKS else clean(value) for key, value in members.items()}


def _clean_traceback(value: Any) -> str:
    # The end says what went wrong; only here may a text take more than one line.
    return "\n".join(_escaped(line) for line in redact(str(value))[-_LONGEST_TRACEBACK:].split("\n"))


def _escaped(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class ConsoleForm:
    """Lays a line out for a reader: time, level, name, facts; sentences and the advice below, each on its own.

    What is unknown or nothing is left out. Long lines are broken between facts and words, not by the terminal.
    """

    def __init__(self, colours: bool, width: Callable[[], int | None]) -> None:
        self._colours = colours
        self._width = width

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
        """The text of one line of the log."""
        members = {key: value for key, value in event.items() if value not in (None, "", [], {})}
        if members.get("suppressed") == 0:
            del members["suppressed"]
        time, level = members.pop("timestamp", ""), str(members.pop("level", "info"))
        name = str(members.pop("event", ""))
        tracebacks = [members.pop(key) for key in _TRACEBACKS if key in members]
        below = [key for key, value in members.items() if key not in _SENTENCES and _has_sentences(value)]
        below += [key for key in _SENTENCES if key in members]
        facts = [(key, _word(value)) for key, value in members.items() if key not in below]
        head = f"{time} {level:7} {name}"
        width = self._columns()
        lines = [f"{self._in(_FAINT, time)} {self._in(_COLOURS.get(level, ''), f'{level:7}')} {self._in(_BOLD, name)}"]
        lines[0] += "".join(self._facts(facts, len(head), width))
        for key in below:
            lines += self._sentences(key, members[key], width)
        lines += [textwrap.indent(text, _INDENT) for text in tracebacks]
        return "\n".join(lines)

    def _columns(self) -> int:
        width = self._width()
        return sys.maxsize if width is None else max(width, _NARROWEST)

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colours and colour and text else text

    def _facts(self, facts: Iterable[tuple[str, str]], used: int, width: int) -> Iterator[str]:
        for key, value in facts:
            size = len(key) + len(value) + 2
            if used + size > width:
                yield f"\n{_INDENT[1:]}"
                used = len(_INDENT) - 1
            yield f" {self._in(_FAINT, f'{key}=')}{value}"
            used += size

    def _sentences(self, key: str, value: Any, width: int) -> Iterator[str]:
        label = f"{key}: "
        for sentence in value if isinstance(value, list) else [value]:
            room = max(width - len(_INDENT) - len(label), _NARROWEST // 2)
            first, *others = textwrap.wrap(_plain(sentence), room, break_long_words=False, break_on_hyphens=False) or [
                ""
            ]
            colour = _ADVICE if key == "advice" else ""
            yield f"{_INDENT}{self._in(_FAINT, label)}{self._in(colour, first)}"
            label = " " * len(label)
            yield from (f"{_INDENT}{label}{self._in(colour, line)}" for line in others)


def _has_sentences(value: Any) -> bool:
    return isinstance(value, list) and any(" " in _plain(one) for one in value)


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_word(one) for one in value)
    text = _plain(value)
    return repr(text) if " " in text else text


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _terminal_width() -> int | None:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or None
    except (OSError, ValueError):
        return None  # no terminal: nothing is broken


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
        renderer = ConsoleForm(terminal and not os.environ.get("NO_COLOR"), _terminal_width)
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
