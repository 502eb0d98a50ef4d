"""Looking after a SQLite store: a copy made while it is in use, and the proof that its invariants hold.

Both work on the writer thread's own connection: a second one to the same file is never opened.
"""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from relay.errors import StoreError
from relay.standing import Breaker, Ordering
from relay.store.migrate import load_migrations, load_queries, schema_version
from relay.store.rows import standing_from_row

PAGES_A_STEP: Final = 128
"""Half a megabyte: about a millisecond from the page cache, so that commits between two steps hardly wait."""
_SHOWN: Final = 5
"""Examples that a sentence names; the rest is counted."""
_QUERIES: Final = load_queries("sqlite")
_FAULTS: Final = {
    "fault_lane_heads": "lane {1} of target {0} has {2} ready deliveries; one is right",
    "fault_lane_order": "lane {1} of target {0} has delivery {2} ready although {3} is older",
    "fault_doubled": "event {0} has {2} deliveries for target {1} with replay number {3}",
    "fault_no_event": "delivery {0} has no event {1}",
    "fault_no_target": "delivery {0} has no target {1}",
    "fault_wrong_lane": "delivery {0} stands in lane {1}, its event in {2}",
    "fault_state": "delivery {0} has the unknown state {1}",
    "fault_steps": "delivery {0} has used {1} steps of its schedule in {2} attempts, or is asked for although it ended",
    "fault_finished": "delivery {0} is in state {1}, but the time of its end is {2}",
    "fault_order_event": "order {0} names {1} as its last event, but that is {2}",
    "fault_order_sequence": "order {0} counts {1} events, but its newest has number {2}",
    "fault_orphan_event": "event {0} is of order {1}, which is not known",
    "fault_attempt": "attempt {0} has no delivery {1}",
}
"""Query of everything that violates an invariant -> what to say of each row."""


HandBack = Callable[[], None]
Aside = Callable[[sqlite3.Connection, HandBack], None]


async def back_up(run_aside: Callable[[Aside], Awaitable[None]], path: Path) -> None:
    """Copy to a new file by work between transactions; one caller at a time, for the growing file has one name.

    Raises:
        StoreError: the file exists, or cannot be written; nothing is left of it then.
    """
    growing = await asyncio.to_thread(prepare_copy, path)
    given_up = threading.Event()

    def work(connection: sqlite3.Connection, hand_back: HandBack) -> None:
        def between() -> None:
            hand_back()
            if given_up.is_set():
                raise StoreError(f"back-up to {path}: nobody waits for it any more")

        copy_to(connection, growing, between)

    try:
        await run_aside(work)
    except (OSError, sqlite3.Error) as error:
        raise copy_failed(path, error) from error
    except asyncio.CancelledError:
        given_up.set()
        raise
    await asyncio.to_thread(publish_copy, growing, path)


def copy_to(connection: sqlite3.Connection, path: Path, between: Callable[[], None]) -> None:
    """Copy the database to a new file by SQLite's own online back-up; `between` is called after every step.

    What `between` commits on the same connection is carried into the copy. The copy has not been synced.

    Raises:
        OSError, sqlite3.Error: the copy cannot be written; what there is of it has been removed.
    """
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as copy:
            # A copy that is not finished is thrown away, and a finished one is synced once, by another thread.
            copy.execute("PRAGMA journal_mode=OFF")
            copy.execute("PRAGMA synchronous=OFF")
            connection.backup(copy, pages=PAGES_A_STEP, progress=lambda *_: between(), sleep=0.01)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def prepare_copy(path: Path) -> Path:
    """The name under which the copy grows until it is whole.

    Raises:
        StoreError: the file exists already, or its folder cannot be written to.
    """
    try:
        _refuse_existing(path)
        growing = path.with_name(path.name + ".part")
        growing.unlink(missing_ok=True)
    except OSError as error:
        raise copy_failed(path, error) from error
    return growing


def publish_copy(growing: Path, path: Path) -> None:
    """Sync the copy and give it its name, so that a file of that name is always whole.

    Raises:
        StoreError: the file exists meanwhile, or the disk refuses; what there is of the copy has been removed.
    """
    try:
        _sync(growing)
        _refuse_existing(path)
        growing.rename(path)
        _sync(path.parent)
    except OSError as error:
        raise copy_failed(path, error) from error
    finally:
        growing.unlink(missing_ok=True)


def copy_failed(path: Path, error: OSError | sqlite3.Error) -> StoreError:
    """The sentence for a back-up that did not come about; the store itself is well."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return StoreError(f"back-up to {path}: {reason}; nothing was left there, and the store is as it was")


def find_faults(connection: sqlite3.Connection) -> list[str]:
    """Every invariant that does not hold, a sentence each; reads the whole file.

    Raises:
        sqlite3.Error: it is damaged in a way that cannot even be listed.
    """
    damage = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
    if damage != ["ok"]:
        # With a damaged file the other questions would be answered at random.
        return _shortened(f"damaged: {line}" for line in damage)
    faults = _schema_faults(connection)
    if faults:
        return faults
    for name, sentence in _FAULTS.items():
        faults += _shortened(sentence.format(*row) for row in connection.execute(_QUERIES[name]))
    return faults + _shortened(_standing_faults(connection))


def count_open(connection: sqlite3.Connection) -> Mapping[int, int]:
    """How many deliveries of each target have not ended."""
    return dict(connection.execute(_QUERIES["count_open_all"]))


def _standing_faults(connection: sqlite3.Connection) -> Iterator[str]:
    """What cannot be understood about a target as a whole, or contradicts itself."""
    for target_id, name, ordering, _ in connection.execute(_QUERIES["targets"]).fetchall():
        try:
            standing = standing_from_row(connection.execute(_QUERIES["standing"], (target_id,)).fetchone())
        except ValueError as error:
            yield f"target {name}: {error}"
            continue
        if ordering not in set(Ordering):
            yield f"target {name}: ordering is {ordering!r}"
        if (standing.breaker is Breaker.OPEN) != (standing.probe_due_ms is not None):
            yield f"target {name}: its breaker is {standing.breaker}, but its next probe is {standing.probe_due_ms}"


def _schema_faults(connection: sqlite3.Connection) -> list[str]:
    steps, present = load_migrations("sqlite"), schema_version(connection)
    if present > len(steps):
        return [f"schema {present} is newer than this version, which knows {len(steps)}"]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as ideal:
        for step in steps[:present]:
            ideal.executescript(step.script)
        wanted, found = _schema_of(ideal), _schema_of(connection)
    faults = [f"schema: {name} is missing" for name in sorted(wanted.keys() - found.keys())]
    faults += [f"schema: {name} is unknown to migration {present}" for name in sorted(found.keys() - wanted.keys())]
    faults += [
        f"schema: {name} is not as its migration makes it"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name] != found[name]
    ]
    return faults or ([f"schema {present} is older than this version's {len(steps)}"] if present < len(steps) else [])


def _schema_of(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute("SELECT type || ' ' || name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
    return dict(rows.fetchall())


def _shortened(sentences: Iterable[str]) -> list[str]:
    every = list(sentences)
    more = len(every) - _SHOWN
    return [*every[:_SHOWN], f"... and {more} more like the last"] if more > 0 else every


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise StoreError(f"back-up to {path}: it exists already; name a new file")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
