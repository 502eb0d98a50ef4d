"""Bytes -> tree: the small, unambiguous part of YAML that a configuration needs, and nothing that can hurt."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.error import Mark

from relay.config.interpolate import interpolate
from relay.config.problems import Problem
from relay.config.tree import REPORTED, Items, Node, Place, Scalar, Table

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 20

_CONTROL: Final = re.compile("[^\\t\\n\\r\\x20-\\x7e\\x85\\xa0-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
_REPORTED_TAG: Final = "!reported"

# PyYAML's own words quote the file, which may be a secret; these never do.
_SYNTAX: Final = (
    (r"found character '\\t'", "a tab cannot be used here; indent with spaces"),
    (r"found character", "a value cannot begin with this character; put quotes around the value"),
    (r"mapping values are not allowed", "a second ':' cannot stand here; put quotes around the value"),
    (r"could not find expected ':'", "a key must be followed by ':' and a space"),
    (r"expected <block end>", "this does not line up with the lines above; check the indentation"),
    (r"expected ',' or", "a list or mapping is not closed before this; add ',' or the closing bracket"),
    (r"found unexpected end of stream", "a quote that was opened before is not closed"),
    (r"found unexpected document separator", "a quote that was opened before is not closed"),
    (r"expected the node content", "a value is missing here, or a list or mapping before this is not closed"),
    (r"expected alphabetic or numeric", "put quotes around a value that begins with * or &"),
    (r"found undefined tag handle", "tags (!) are not supported; put quotes around a value that begins with !"),
    (r"found unknown escape", "unknown escape; within double quotes write \\\\ for a backslash, or use single quotes"),
)


@dataclass
class Document:
    """The tree of one file (None when there is none to speak of) and what is wrong with its form."""

    file: str
    root: Table | None = None
    problems: list[Problem] = field(default_factory=list)

    def note(self, place: Place, message: str) -> None:
        """Remember a problem."""
        self.problems.append(Problem(self.file, place.line, place.column, place.path, message))


class _Refused(yaml.YAMLError):
    """Reading on would be pointless or dangerous."""

    def __init__(self, mark: Mark, message: str) -> None:
        super().__init__(message)
        self.mark = mark


class _StrictLoader(yaml.SafeLoader):
    """Composes nodes only; anchors, aliases and tags are reported as they pass and have no effect."""

    def __init__(self, text: str, note: Callable[[Mark, str], None]) -> None:
        super().__init__(text)
        self._note = note
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        parser: Any = self  # the type stubs know nothing of a loader's parser half
        event = parser.peek_event()
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            parser.get_event()
            self._note(mark, "aliases (*) are not supported; use defaults, or quote a value that begins with *")
            return yaml.ScalarNode(_REPORTED_TAG, "", mark, mark)
        if event.anchor is not None:
            self._note(mark, "anchors (&) are not supported; use defaults, or quote a value that begins with &")
            event.anchor = None
        if event.tag is not None:
            self._note(mark, "tags (!) are not supported; put quotes around a value that begins with !")
            event.tag = "!"
        if self._depth >= MAX_DEPTH:
            raise _Refused(mark, f"nested deeper than {MAX_DEPTH} levels")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def read_document(raw: bytes, file: str, environ: Mapping[str, str]) -> Document:
    """The tree of `raw` with variables put in; problems of form are collected, never raised."""
    document = Document(file)
    text = _decoded(raw, document)
    if text is None:
        return document
    try:
        top = _composed(text, document)
    except _Refused as refused:
        document.note(_place(refused.mark), str(refused))
        return document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = _syntax_message(error.problem or "")
        if mark and _bare_variable_in_list(text, mark.line):
            message = 'within [ ] or { } a variable needs double quotes, as in ["${NAME}"]'
        document.note(_place(mark) if mark else Place(0, 0, ""), message)
        return document
    except yaml.YAMLError:
        document.note(Place(0, 0, ""), "this is not valid YAML")
        return document
    root = _Converter(document, environ).node(top, Place(1, 1, "")) if top is not None else None
    if isinstance(root, Table):
        document.root = root
    elif not document.problems:
        document.note(Place(1, 1, ""), "the file must hold the sections upstream and targets; see config.example.yaml")
    return document


def _decoded(raw: bytes, document: Document) -> str | None:
    if len(raw) > MAX_BYTES:
        document.note(Place(0, 0, ""), f"the file is larger than {MAX_BYTES // 1024} kB")
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = before.count(b"\n")
        column = len(before.rsplit(b"\n", 1)[-1].decode("utf-8", "replace"))
        document.note(Place(line + 1, column + 1, ""), "this is not valid UTF-8; save the file as UTF-8")
        return None
    control = _CONTROL.search(text)
    if control:
        before_text = text[: control.start()]
        place = Place(before_text.count("\n") + 1, len(before_text) - before_text.rfind("\n"), "")
        document.note(place, "control characters are not allowed; within double quotes write an escape such as \\x07")
        return None
    return text


def _composed(text: str, document: Document) -> Any:
    loader: Any = _StrictLoader(text, lambda mark, message: document.note(_place(mark), message))
    try:
        loader.get_event()
        if loader.check_event(yaml.StreamEndEvent):
            return None
        top = loader.compose_document()
        if not loader.check_event(yaml.StreamEndEvent):
            document.note(_place(loader.peek_event().start_mark), "a second document begins here; keep one")
        return top
    finally:
        loader.dispose()


def _bare_variable_in_list(text: str, line: int) -> bool:
    """Whether this line, counted from 0, holds `[${NAME}` or the like: to YAML the brace opens a mapping."""
    lines = text.splitlines()
    return line < len(lines) and re.search(r"[\[{,]\s*\$\{", lines[line]) is not None


def _place(mark: Mark) -> Place:
    return Place(mark.line + 1, mark.column + 1, "")


def _syntax_message(problem: str) -> str:
    for pattern, message in _SYNTAX:
        if re.match(pattern, problem):
            return message
    return "this is not valid YAML"


class _Converter:
    """YAML nodes -> our own, with paths, refusing what a mapping may not hold."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ

    def node(self, node: Any, place: Place) -> Node:
        if isinstance(node, yaml.MappingNode):
            return self._table(node, place)
        if isinstance(node, yaml.SequenceNode):
            entries = enumerate(node.value)
            return Items(place, [self.node(item, self._below(place, step, item)) for step, item in entries])
        plain = node.style is None
        if node.tag == _REPORTED_TAG:
            return Scalar("", plain, place, flaw=REPORTED)
        value = interpolate(node.value, self._environ)
        return Scalar(value.text, plain, place, value.missing, value.flaw, value.empty)

    def _table(self, node: Any, place: Place) -> Table:
        table = Table(place)
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _REPORTED_TAG:
                if key.tag != _REPORTED_TAG:
                    self._document.note(_place(key.start_mark), "a key must be a single word")
                continue
            here = self._below(place, key.value, key)
            if key.value == "<<" and key.style is None:
                self._document.note(
                    place.below(line=here.line, column=here.column), "merge keys (<<) are not supported; use defaults"
                )
            elif key.value in table:
                first = table[key.value].place.line
                self._document.note(here, f"this key was given before, in line {first}; keep one of them")
            else:
                table[key.value] = self.node(value, here)
        return table

    @staticmethod
    def _below(place: Place, step: str | int, node: Any) -> Place:
        return place.below(step, line=node.start_mark.line + 1, column=node.start_mark.column + 1)
