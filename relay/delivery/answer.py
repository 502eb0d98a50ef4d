"""Bytes -> one answer, within caps. Pure.

Everything that comes in is hostile: heads, interim answers and bodies are capped, nothing is inflated, and what
follows an answer unasked is noticed.
"""

from typing import Final

import httptools

HEAD_CAP: Final = 32 * 1024
"""Bytes of an answer's head, interim answers included."""
HEADER_CAP: Final = 128
"""Header lines of an answer, those of interim answers and trailers included."""
INTERIM_CAP: Final = 16
"""Interim (1xx) answers before the real one."""
READ_CAP: Final = 64 * 1024
"""Bytes of an answer's body that are read before its connection is closed."""

_WIRE_CAP: Final = 4 * READ_CAP
"""Bytes of any kind after which a body is given up: chunks of one byte, trailers."""
_KEPT: Final = frozenset({b"retry-after", b"date", b"webhook-delivery", b"server", b"content-type", b"location"})
_SWITCHING: Final = 101
_TLS_RECORD: Final = (b"\x15\x03", b"\x16\x03")


class Answer:
    """A complete head, and as much of the body as came.

    Attributes:
        status: the HTTP status.
        headers: lower-case name -> value as it came, of those that are kept; the first one of each.
        body: at most `READ_CAP` bytes.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.status = status
        self.headers = headers
        self.body = bytearray()


class NotAnAnswer(Exception):
    """What came cannot be taken; `str()` says why in fixed words, and quotes nothing."""


class AnswerReader:
    """Reads one answer after the other, each after a `begin`.

    Attributes:
        answer: None until its head is complete.
        over: whether no more of it will be read.
        reusable: whether it ended as promised, and what carried it may carry another one.
        wire_bytes: how much was fed since `begin`.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.begin()

    def begin(self, *, head_only: bool = False) -> None:
        """Expect an answer; `head_only` expects that of a CONNECT, after whose head other bytes begin."""
        self.answer: Answer | None = None
        self.over = False
        self.reusable = False
        self.wire_bytes = 0
        self._head_only = head_only
        self._headers: dict[bytes, bytes] = {}
        self._header_lines = 0
        self._head_bytes = 0
        self._interims = 0
        self._flaw = ""

    def feed(self, data: bytes) -> None:
        """Take what came.

        Raises:
            NotAnAnswer: nothing more can be read here. An `answer` whose head was complete before stands.
        """
        self.wire_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.reusable = False
            if self._head_only:
                self.answer = None
            raise NotAnAnswer(self._flaw or _why(error, data)) from None
        answer = self.answer
        if answer is None:
            if self.wire_bytes > HEAD_CAP:
                raise NotAnAnswer(f"its head is longer than {HEAD_CAP} bytes")
        elif self._head_only or len(answer.body) >= READ_CAP or self.wire_bytes > _WIRE_CAP:
            self.over = True

    def forget(self) -> None:
        """Nothing more will be fed. Parser and reader hold each other, which only the garbage collector would undo."""
        del self._parser

    # What the parser calls.

    def on_message_begin(self) -> None:
        """An answer begins; after a complete one, nobody asked for it."""
        if self.answer is not None:
            self._refuse("it goes on after its end")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line, or one of a trailer."""
        self._header_lines += 1
        self._head_bytes += len(name) + len(value) + 4
        if self._header_lines > HEADER_CAP:
            self._refuse(f"it has more than {HEADER_CAP} header lines")
        if self._head_bytes > HEAD_CAP:
            self._refuse(f"its head is longer than {HEAD_CAP} bytes")
        name = name.lower()
        if name in _KEPT and self.answer is None:
            self._headers.setdefault(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete: this decides."""
        status = self._parser.get_status_code()
        if status == _SWITCHING:
            self._refuse("it switches protocols, which nobody asked for")
        if status < 100 or self._parser.get_http_version() not in ("1.1", "1.0"):
            self._refuse("no HTTP/1.1 status line")
        if status >= 200:
            self.answer = Answer(status, self._headers)
            return
        self._headers = {}
        self._interims += 1
        if self._interims > INTERIM_CAP:
            self._refuse(f"more than {INTERIM_CAP} interim answers")

    def on_body(self, data: bytes) -> None:
        """A part of the body, as it came."""
        answer = self.answer
        if answer is None:
            return
        if self._head_only and answer.status < 300:
            self._refuse("it goes on after its end")
        answer.body += data[: READ_CAP - len(answer.body)]

    def on_message_complete(self) -> None:
        """An answer has been read to its end, an interim one or the real one."""
        if self.answer is not None:
            self.over = True
            self.reusable = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"

    def _refuse(self, flaw: str) -> None:
        self._flaw = flaw
        raise NotAnAnswer(flaw)


def _why(error: Exception, data: bytes) -> str:
    """The parser's fixed words for what is wrong."""
    if data.startswith(_TLS_RECORD):
        return "that port speaks TLS; write https:// in the URL"
    return str(error) or type(error).__name__
