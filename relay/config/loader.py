"""A file -> Settings, or one report of everything that is wrong with it."""

import os
import stat
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from relay.config.document import MAX_BYTES, Document, read_document
from relay.config.leaves import Reading
from relay.config.problems import InvalidConfig, Problem, Suffix, guess
from relay.config.section import Section
from relay.config.settings import Settings
from relay.config.tree import Items, Scalar, Table, locate

NOT_IN_DEFAULTS: Final = ("name", "url", "secrets")
_SECRET_FORMS: Final = frozenset({"file", "credential"})


def load(path: str | os.PathLike[str], *, environ: Mapping[str, str], require_secrets: bool = True) -> Settings:
    """Read and judge a configuration file.

    With `require_secrets=False`, secrets (and the partner id) whose variable is not set or whose file cannot
    be read now are no problem; revealing such a secret raises SecretUnreadable, such a partner id is empty.

    Raises:
        InvalidConfig: it cannot be used; every problem is in the report.
    """
    file = os.fspath(path)
    raw = read_file(Path(path))
    if isinstance(raw, str):
        raise InvalidConfig([Problem(file, 0, 0, "", raw)])
    return parse(raw, file, environ=environ, require_secrets=require_secrets)


def parse(raw: bytes, file: str, *, environ: Mapping[str, str], require_secrets: bool = True) -> Settings:
    """Like `load`, of a file's bytes; `file` is its name for the report.

    Raises:
        InvalidConfig: it cannot be used.
    """
    document = read_document(raw, file, environ)
    if document.root is None:
        raise InvalidConfig(document.problems)
    root = _with_defaults(document, document.root)
    _refuse_shared_names(document, root)
    settings, errors = _validated(root, Reading(environ, require_secrets))
    for error in errors:
        _note_error(document, root, error)
    if settings is None or document.problems:
        raise InvalidConfig(document.problems)
    return settings


def read_file(path: Path) -> bytes | str:
    """A file's content, as far as one byte beyond `MAX_BYTES`; a sentence where it cannot be had."""
    try:
        # Without O_NONBLOCK opening a named pipe would wait for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return "cannot be read: not a regular file"
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "malformed path"
        if isinstance(error, FileNotFoundError):
            reason = "there is no such file; name yours with -c, or make one with `houdini-relay init`"
        return f"cannot be read: {reason}"


def _validated(root: Table, reading: Reading) -> tuple[Settings | None, Sequence[Any]]:
    # The exception holds the file's values: it ends here, so that no traceback carries it on.
    try:
        return Settings.model_validate(root, context=reading), ()
    except ValidationError as error:
        return None, error.errors(include_url=False, include_input=False)


def _with_defaults(document: Document, root: Table) -> Table:
    merged = Table(root.place, {key: value for key, value in root.items() if key != "defaults"})
    defaults = root.get("defaults")
    if defaults is None or (isinstance(defaults, Scalar) and defaults.is_null):
        return merged
    if not isinstance(defaults, Table):
        document.note(defaults.place, "expected a mapping of target settings")
        return merged
    for key in NOT_IN_DEFAULTS:
        if key in defaults:
            document.note(defaults[key].place, f"each target has its own {key}; move it there")
    shared = Table(defaults.place, {key: value for key, value in defaults.items() if key not in NOT_IN_DEFAULTS})
    targets = root.get("targets")
    if isinstance(targets, Items):
        overlaid = [_overlay(shared, target) if isinstance(target, Table) else target for target in targets]
        merged["targets"] = Items(targets.place, overlaid)
    return merged


def _overlay(under: Table, over: Table) -> Table:
    result = Table(over.place, {**under, **over})
    for key in under.keys() & over.keys():
        below, above = under[key], over[key]
        # A secret's form and the one way of `auth` are chosen anew, not mixed.
        if isinstance(below, Table) and isinstance(above, Table) and key != "auth":
            whole = (below.keys() | above.keys()) <= _SECRET_FORMS
            result[key] = above if whole else _overlay(below, above)
    return result


def _refuse_shared_names(document: Document, root: Table) -> None:
    targets = root.get("targets")
    first: dict[str, str] = {}
    for target in targets if isinstance(targets, Items) else ():
        name = target.get("name") if isinstance(target, Table) else None
        if not isinstance(name, Scalar) or name.missing or name.flaw is not None:
            continue
        if name.text in first:
            document.note(name.place, f"{first[name.text]} has this name already; names are unique")
        else:
            first[name.text] = target.place.path


def _note_error(document: Document, root: Table, error: Mapping[str, Any]) -> None:
    steps = tuple(step for step in error["loc"] if step != "[key]")
    for suffix, message in _messages(root, steps, error):
        place, _ = locate(root, (*steps, *suffix))
        if message:
            document.note(place, message)


def _messages(root: Table, steps: Suffix, error: Mapping[str, Any]) -> Sequence[tuple[Suffix, str]]:
    kind, details = error["type"], error.get("ctx", {})
    if kind == "faults":
        return list(details["faults"])
    if kind == "value_error":
        return [((), str(details["error"]))]
    if kind == "extra_forbidden":
        return [((), _unknown_key(steps))]
    if kind == "missing":
        return [((), "required, but not given; add it")]
    _, node = locate(root, steps)
    if isinstance(node, Scalar) and node.flaw is not None:
        return [((), node.flaw)]
    return [((), "expected a list, as in [a, b]" if kind == "tuple_type" else "expected a mapping, as in {key: value}")]


def _unknown_key(steps: Suffix) -> str:
    known = list(_section_at(steps[:-1]).model_fields)
    if len(steps) == 1:
        known.append("defaults")
    close = guess(str(steps[-1]), known)
    return f'unknown key; did you mean "{close}"?' if close else f"unknown key; possible here: {', '.join(known)}"


def _section_at(steps: Suffix) -> type[BaseModel]:
    section: type[BaseModel] = Settings
    for step in steps:
        if isinstance(step, str):
            section = next(iter(sections_in(section.model_fields[step].annotation)))
    return section


def sections_in(annotation: Any) -> Collection[type[Section]]:
    """The sections that a setting's type holds, itself or in a list or option."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for inner in get_args(annotation) for section in sections_in(inner)]
