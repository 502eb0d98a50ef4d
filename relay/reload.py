"""What another configuration changes, by path and never by value, and what of it can be applied in place. Pure.

Two configurations are compared by digests of their settings, because a secret's file may say something else by now
than when the present configuration was taken from it.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from relay.config import Settings
from relay.config.section import Section
from relay.config.store_url import shown_store_url
from relay.errors import SecretUnreadable
from relay.secret import Secret

_STORE: Final = "store.url"
_RESTART: Final[Mapping[str, str]] = {
    _STORE: "another store is another history",
    "admin.listen": "the admin server stays where it listens",
    "upstream.partner_id": "another partner's orders get other webhook ids",
}
"""What holds as long as the process lives -> why."""
_IN_PLACE: Final = ("upstream.orders", "upstream.backfill.", "upstream.rest_headers")
"""Settings of the upstream that do not need another connection."""
_FIRST_START: Final = "upstream.backfill.first_start"
_WIRE: Final = frozenset(
    {"url", "secrets", "headers", "auth", "tls", "proxy", "allow_http", "allow_networks", "timeout", "format"}
)
"""Settings of a target that its client is made of."""
_FILES: Final = frozenset({"ca_file", "cert_file", "key_file"})

Digests = Mapping[str, bytes]
"""Path -> digest; a target's settings go by its name, as in `targets.shop.url`."""
ReadFile = Callable[[str], str]


def digests(settings: Settings, key: bytes, read_file: ReadFile) -> Digests:
    """What these settings are now. Reveals secrets and reads files, so it may block.

    Args:
        settings: a configuration.
        key: a secret of this process, without which a digest tells nothing.
        read_file: path -> something that differs when its content does.
    """
    return {
        path: hmac.new(key, json.dumps(value, sort_keys=True).encode(), hashlib.sha256).digest()
        for path, value in _leaves(settings, "", read_file)
    }


def _leaves(section: BaseModel, prefix: str, read_file: ReadFile) -> Iterator[tuple[str, Any]]:
    for name, field in type(section).model_fields.items():
        value, path = getattr(section, name), f"{prefix}{name}"
        if path == "targets":
            for target in value:
                yield from _leaves(target, f"targets.{target.name}.", read_file)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _leaves(value, f"{path}.", read_file)
        else:
            content = read_file(value) if name in _FILES and value is not None else None
            yield path, [_database(value) if path == _STORE else _plain(value), content]


def _database(url: Secret) -> Any:
    """Of a URL that lies elsewhere the database alone: another password is taken with the next connection."""
    where, *text = _plain(url)
    return [where, *text] if where == Secret.of("").where else [where, *map(shown_store_url, text)]


def _plain(value: Any) -> Any:
    """A setting as JSON can hold it, secrets revealed; for digesting only."""
    if isinstance(value, Secret):
        try:
            return [value.where, value.reveal()]
        except SecretUnreadable:
            return [value.where]
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two configurations.

    Attributes:
        paths: what differs, sorted; a target that was added or removed is one path, `targets.shop`.
        added: names of targets.
        removed: names of targets.
    """

    paths: tuple[str, ...]
    added: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why it cannot be applied while the process lives, a sentence for each setting; empty when it can."""
        return tuple(
            f"{path}: this changes with a restart only ({_RESTART[path]}); restart, or put it back"
            for path in self.paths
            if path in _RESTART
        )

    @property
    def renews_upstream(self) -> tuple[str, ...]:
        """What of it needs another connection to the upstream."""
        return tuple(path for path in self.paths if path.startswith("upstream.") and not path.startswith(_IN_PLACE))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the operator may not expect."""
        without_effect = "it matters on the first start only, so it changes nothing any more"
        return (f"{_FIRST_START}: {without_effect}",) if _FIRST_START in self.paths else ()

    def touches(self, prefix: str) -> bool:
        """Whether anything below this path differs."""
        return any(path.startswith(prefix) for path in self.paths)

    def needs_client(self, target: str) -> bool:
        """Whether this target is reached, signed for or authenticated to in another way than before."""
        prefix = f"targets.{target}"
        return target in self.added or any(
            path.startswith(f"{prefix}.") and path.split(".")[2] in _WIRE for path in self.paths
        )


def compare(before: Digests, after: Digests) -> Changes:
    """What differs."""
    old, new = _targets(before), _targets(after)
    added, removed = new - old, old - new
    moved = {f"targets.{name}" for name in added | removed}
    differing = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    inside = {path for path in differing if (_target_of(path) or "") not in added | removed}
    return Changes(tuple(sorted(inside | moved)), frozenset(added), frozenset(removed))


def _targets(settings: Digests) -> set[str]:
    return {name for path in settings if (name := _target_of(path)) is not None}


def _target_of(path: str) -> str | None:
    parts = path.split(".")
    return parts[1] if parts[0] == "targets" else None
