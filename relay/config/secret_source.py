"""Secrets that live in files: `{file: /path}` and `{credential: name}` (systemd's LoadCredential=)."""

import os
import re
import stat
from collections.abc import Mapping
from typing import Final

from relay.errors import SecretUnreadable

MAX_BYTES: Final = 64 * 1024

_CREDENTIAL_NAME: Final = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,255}")


def read_secret_file(path: str, where: str) -> str:
    """The file's text without one trailing newline.

    Raises:
        SecretUnreadable: it is absent, not a regular file, larger than 64 kB or not UTF-8.
    """
    try:
        # Without O_NONBLOCK opening a named pipe would wait for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SecretUnreadable(f"{where} cannot be read: not a regular file")
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "malformed path"
        raise SecretUnreadable(f"{where} cannot be read: {reason}") from None
    if len(raw) > MAX_BYTES:
        raise SecretUnreadable(f"{where} cannot be read: larger than {MAX_BYTES // 1024} kB")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        # A context would carry the bytes into a crash report.
        text = None
    if text is None:
        raise SecretUnreadable(f"{where} cannot be read: not UTF-8")
    return text.removesuffix("\n").removesuffix("\r")


def credential_path(name: str, environ: Mapping[str, str]) -> str:
    """Where systemd put the credential of this name.

    Raises:
        SecretUnreadable: systemd passed no credentials to this process.
        ValueError: the name could point outside the credentials' folder.
    """
    if not _CREDENTIAL_NAME.fullmatch(name):
        raise ValueError("a credential's name has letters, digits, '.', '_' and '-' only")
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise SecretUnreadable(
            f"credential {name} cannot be read: $CREDENTIALS_DIRECTORY is not set; "
            f"add LoadCredential={name}:/path to the systemd unit"
        )
    return os.path.join(folder, name)
