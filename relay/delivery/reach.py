"""Whether a target is reached another way than before: a digest of everything that decides how it is reached.

It is stored with the target. When it differs after a start or a reload, whatever failed before may work now.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from relay.config import TargetSettings
from relay.secret import Secret

_VERSION: Final = "reach 1"
_LARGEST_FILE: Final = 4 * 2**20


def reach_digest(target: TargetSettings) -> str:
    """A digest of URL, headers, auth, TLS settings with their files' contents, proxy, and what may be dialled.

    It is keyed with the target's first signing secret, which the store never holds, so that it tells nobody
    what was digested. It reads files: not for the event loop.

    Raises:
        SecretUnreadable: a secret cannot be read now.
    """
    shown = json.dumps([_VERSION, *_parts(target)], sort_keys=True).encode()
    return hmac.new(target.secrets[0].reveal().encode(), shown, hashlib.sha256).hexdigest()


def _parts(target: TargetSettings) -> Iterator[Any]:
    yield _plain(target.url)
    yield {name.lower(): _plain(value) for name, value in target.headers.items()}
    yield None if target.auth is None else _plain(dict(target.auth))
    yield None if target.proxy is None else _plain(target.proxy)
    yield target.allow_http
    yield sorted(map(str, target.allow_networks))
    for path in (target.tls.ca_file, target.tls.cert_file, target.tls.key_file):
        yield path
        yield None if path is None else _content_digest(Path(path))


def _plain(value: Any) -> Any:
    """Settings with their secrets revealed, for digesting only."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return _plain(dict(value)) if hasattr(value, "model_fields_set") else value


def _content_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(_LARGEST_FILE)).hexdigest()
    except OSError as error:
        # The dial says what is wrong with the file; here it is enough that a readable one will differ.
        return f"unreadable: {type(error).__name__}"
