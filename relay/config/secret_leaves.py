"""Secrets as settings: a value, `{file: /path}` or `{credential: name}`, and what a good one looks like."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Final

from relay.config.interpolate import not_set
from relay.config.leaves import STRING, Leaf, Reading, Shape, blamed, text_of
from relay.config.secret_source import credential_path, read_secret_file
from relay.config.tree import Scalar
from relay.config.urls import parse_url
from relay.errors import SecretUnreadable
from relay.secret import Secret

Fault = Callable[[str], str | None]

_FORMS: Final = "a value, {file: /path} or {credential: name}"
_SHAPE: Final[Shape] = {
    "anyOf": [
        STRING,
        *(
            {"type": "object", "properties": {form: STRING}, "required": [form], "additionalProperties": False}
            for form in ("file", "credential")
        ),
    ]
}


def secret_value(fault: Fault, words: str = "a secret") -> Leaf:
    """A secret judged by `fault` now, and again whenever its file is read anew."""

    def read(value: object, reading: Reading) -> Secret:
        found = _secret(value, fault, reading)
        try:
            found.reveal()
        except SecretUnreadable as error:
            unreadable = str(error)
        else:
            return found
        if reading.require_secrets:
            raise ValueError(unreadable)
        return found

    return Leaf(words, read, lambda value: "[redacted]", _SHAPE)


def _secret(value: object, fault: Fault, reading: Reading) -> Secret:
    if isinstance(value, Secret):
        return _checked(value.reveal, value.where, fault)
    if isinstance(value, Mapping):
        return _from_elsewhere(value, fault, reading)
    if isinstance(value, Scalar) and value.missing and value.flaw is None:
        return _unreadable(not_set(value.missing))
    text = text_of(value, _FORMS)
    problem = fault(text)
    if problem is not None:
        raise ValueError(blamed(value, problem))
    return Secret.of(text)


def _from_elsewhere(value: Mapping[object, object], fault: Fault, reading: Reading) -> Secret:
    if len(value) != 1 or not value.keys() <= {"file", "credential"}:
        raise ValueError(f"expected {_FORMS}")
    ((kind, given),) = value.items()
    if isinstance(given, Scalar) and given.missing and given.flaw is None:
        return _unreadable(not_set(given.missing))
    name = text_of(given, _FORMS)
    if kind == "credential":
        where = f"credential {name}"
        _check_credential_name(name)
        return _checked(lambda: read_secret_file(credential_path(name, reading.environ), where), where, fault)
    # A relative path does not say where it was looked for.
    where = f"file {os.path.abspath(name)}"
    return _checked(lambda: read_secret_file(name, where), where, fault)


def _check_credential_name(name: str) -> None:
    credential_path(name, {"CREDENTIALS_DIRECTORY": "."})


def _checked(read: Callable[[], str], where: str, fault: Fault) -> Secret:
    def read_and_judge() -> str:
        text = read()
        problem = fault(text)
        if problem is not None:
            raise SecretUnreadable(f"{where} cannot be used: {problem}")
        return text

    return Secret(read_and_judge, where)


def _unreadable(message: str) -> Secret:
    def read() -> str:
        raise SecretUnreadable(message)

    return Secret(read, "environment")


def peek(value: Secret) -> str | None:
    """The value if it can be read now."""
    try:
        return value.reveal()
    except SecretUnreadable:
        return None


def visible_fault(text: str) -> str | None:
    """For what travels in a header: visible ASCII, at least one character."""
    if not text:
        return "it is empty"
    if not re.fullmatch(r"[!-~]+", text):
        return "it may hold visible ASCII characters only, no spaces and no line ends"
    return None


def header_value_fault(text: str) -> str | None:
    """For the value of a header."""
    if len(text) > 4096:
        return "a header's value has at most 4096 characters"
    if text and not re.fullmatch(r"[!-~](?:[ -~]*[!-~])?", text):
        return "a header's value has visible ASCII characters and spaces between them, nothing else"
    return None


def text_fault(text: str) -> str | None:
    """For a password: anything but nothing and control characters."""
    if not text:
        return "it is empty"
    return "control characters are not allowed" if re.search(r"[\x00-\x1f\x7f]", text) else None


def target_url_fault(text: str) -> str | None:
    """For a target's URL taken alone."""
    return _url_fault(text, "https", "http")


def proxy_url_fault(text: str) -> str | None:
    """For the URL of a proxy."""
    return _url_fault(text, "http", "https")


def _url_fault(text: str, *schemes: str) -> str | None:
    try:
        parse_url(text, schemes)
    except ValueError as error:
        return str(error)
    return None
