"""Members and elements of JSON as the bytes they came in. Pure.

msgspec does it fast and strictly, but it refuses a lone surrogate escape anywhere inside, such as `"\\ud83d"`: that
is grammatical JSON, and what a server writes that cut an emoji in half. Then the standard library's scanner
finds where each value ends. One such order must not hide the others of its page, nor its own changes.
"""

import json
from collections.abc import Iterator
from json.decoder import JSONDecoder
from typing import Any, Final, NoReturn, TypeVar

import msgspec

_SPACE: Final = " \t\n\r"
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ELEMENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
T = TypeVar("T")


class NotSplit(ValueError):
    """The text is not JSON, or not of the kind that was asked for; `str()` names the kind of fault only."""


def members(text: bytes) -> dict[str, bytes]:
    """The members of an object: name -> the bytes of its value; of a repeated name the last.

    Raises:
        NotSplit: it is no JSON object.
    """
    fast = _fast(text, _MEMBERS)
    if fast is not None:
        return {name: bytes(value) for name, value in fast.items()}
    return dict(_scan(text, "{", "}"))


def elements(text: bytes) -> list[bytes]:
    """The elements of an array, as the bytes they came in.

    Raises:
        NotSplit: it is no JSON array.
    """
    fast = _fast(text, _ELEMENTS)
    if fast is not None:
        return [bytes(value) for value in fast]
    return [value for _, value in _scan(text, "[", "]")]


def _fast(text: bytes, decoder: "msgspec.json.Decoder[T]") -> T | None:
    try:
        text.isascii() or text.decode()  # inside a Raw msgspec does not look
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _scan(raw: bytes, opening: str, closing: str) -> Iterator[tuple[str, bytes]]:
    try:
        yield from _Scanner(raw.decode()).items(opening, closing)
    except UnicodeDecodeError as error:
        raise NotSplit("not UTF-8") from error
    except RecursionError as error:
        raise NotSplit("nested too deeply") from error
    except (ValueError, IndexError, StopIteration) as error:
        raise NotSplit("no valid JSON of the kind expected") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


class _Scanner:
    """Walks over one array or object and notes where each value begins and ends."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._value = JSONDecoder(parse_constant=_refuse).raw_decode

    def items(self, opening: str, closing: str) -> Iterator[tuple[str, bytes]]:
        self._expect(opening)
        if self._peek() == closing:
            self._at += 1
        else:
            while True:
                yield self._item(named=opening == "{")
                if self._peek() == closing:
                    self._at += 1
                    break
                self._expect(",")
        self._skip()
        if self._at != len(self._text):
            raise ValueError("something follows")

    def _item(self, *, named: bool) -> tuple[str, bytes]:
        name: Any = ""
        if named:
            if self._peek() != '"':
                raise ValueError("a name is expected")
            name, self._at = self._value(self._text, self._at)
            self._expect(":")
        self._skip()
        start = self._at
        _, self._at = self._value(self._text, start)
        return name, self._text[start : self._at].encode()

    def _skip(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in _SPACE:
            self._at += 1

    def _peek(self) -> str:
        self._skip()
        return self._text[self._at]

    def _expect(self, mark: str) -> None:
        if self._peek() != mark:
            raise ValueError(f"{mark} is expected")
        self._at += 1


def decode(text: bytes) -> Any:
    """A value as Python has it, lone surrogates and all.

    Raises:
        NotSplit: it is no JSON.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:
            return json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise NotSplit("no valid JSON") from error
