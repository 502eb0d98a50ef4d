"""How we identify ourselves to a target beyond the signature: the `authorization` header of fixed credentials.

What has to be fetched first (OAuth 2) is in `tokens`.
"""

import base64
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from relay.config import TargetSettings
from relay.secret import Secret


def fixed_headers(target: TargetSettings) -> dict[str, str]:
    """The `authorization` of `auth.basic`, `auth.bearer` or the URL's userinfo; nothing for any other target.

    Secrets are read anew each time, so that a rotated file is picked up.

    Raises:
        SecretUnreadable: one cannot be read now.
    """
    auth = target.auth
    if auth is not None and auth.bearer is not None:
        return {"authorization": f"Bearer {auth.bearer.reveal()}"}
    if auth is not None and auth.basic is not None:
        return {"authorization": basic(auth.basic.username.reveal(), auth.basic.password.reveal())}
    if auth is not None:
        return {}
    return _from_userinfo(target.url.reveal())


def _from_userinfo(url: str) -> dict[str, str]:
    userinfo, at, _ = urlsplit(url).netloc.rpartition("@")
    if not at:
        return {}
    name, _, password = userinfo.partition(":")
    return {"authorization": basic(unquote(name), unquote(password))}


def basic(username: str, password: str) -> str:
    """HTTP basic authentication, in UTF-8."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def read_from_files(target: TargetSettings) -> bool:
    """Whether a secret that each attempt needs lies in a file, so that reading it must not hold up the loop."""
    return any(secret.where != "value" for secret in _each_attempt(target))


def _each_attempt(target: TargetSettings) -> Iterator[Secret]:
    yield target.url
    yield from target.headers.values()
    if target.auth is None:
        return
    if target.auth.bearer is not None:
        yield target.auth.bearer
    if target.auth.basic is not None:
        yield target.auth.basic.username
        yield target.auth.basic.password
