"""One process a store: a lock on a file beside the database, which a dead process gives back by itself."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from relay.errors import StoreError, StoreLocked


def make_private(path: Path) -> None:
    """Create the database file for its owner alone, as SQLite would not: orders hold addresses.

    Only before the database is opened: closing any descriptor of it later would drop SQLite's own locks.
    """
    with suppress(OSError):  # what is wrong with the path, opening the database says better
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def take_lock(path: Path) -> int:
    """Hold `<database>.lock` until the returned descriptor is closed.

    Raises:
        StoreLocked: another process holds it.
        StoreError: the lock file cannot be opened, or its filesystem knows no locks.
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
    except BlockingIOError as error:
        os.close(descriptor)
        raise StoreLocked(f"store {path} is in use by another process; only one may run on it") from error
    except OSError as error:
        os.close(descriptor)
        raise StoreError(
            f"store {path}: its filesystem gives no lock on {side}: {error.strerror}; use a local disk"
        ) from error
    return descriptor
