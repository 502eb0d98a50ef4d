"""One process a store: a lock on a file beside the database, which a dead process gives back by itself."""

import fcntl
import os
from pathlib import Path

from relay.errors import StoreError, StoreLocked


def take_lock(path: Path) -> int:
    """Hold `<database>.lock` until the returned descriptor is closed.

    Raises:
        StoreLocked: another process holds it.
        StoreError: the lock file cannot be opened.
    """
    side = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(side, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"store {path}: cannot open {side}: {error.strerror}; check the folder and who owns it"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreLocked(f"store {path} is in use by another process; only one may run on it") from error
    return descriptor
