"""kill -9 under load, round after round, and what has to be true afterwards; for the test and for `make crash`."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from random import Random
from time import monotonic

from stage import Stage

from relay.simulator.verdict import Verdict

ORDERS_AT_A_TIME = 40
FAILING_SHARE = 0.5
"""Share of the relay's lives in which the receiver fails all along."""
STARTING_SHARE = 0.25
"""Share of the kills that come at a moment counted from the start of the process, however far that has come then."""


@dataclass
class Record:
    """What the rounds showed.

    Attributes:
        committed: webhook ids of events that the store held at a kill, as its files lay there.
        waiting: those of them that were still to be delivered then.
        to_ready: seconds from each start to readiness, where the kill did not come first.
        faults: everything that is wrong, a sentence each.
        seconds: how long it all took.
    """

    kills: int = 0
    committed: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    to_ready: list[float] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


async def kill_rounds(stage: Stage, rounds: int, *, rate: float, longest: float, chance: Random) -> Record:
    """Play orders all the while, kill the relay at random moments, let everything come to rest, judge.

    Args:
        stage: upstream and receiver are up, the relay is not.
        rounds: how many kills.
        rate: updates a second.
        longest: seconds that a life of the relay lasts at most; once it is ready, mostly.
        chance: picks the moments.
    """
    began, record, over = monotonic(), Record(), asyncio.Event()
    stage.receiver.misbehaviour.delay = 0.05  # so that kills strike while answers are on the way
    playing = asyncio.create_task(play_until(stage, over, rate))
    for _ in range(rounds):
        # Some fail all along, so that kills strike while the queue is not empty.
        stage.receiver.misbehaviour.fail_until = inf if chance.random() < FAILING_SHARE else 0.0
        await stage.relay.start()
        await _live(stage, chance, longest, record)
        await stage.relay.kill()
        record.kills += 1
        _note_what_was_committed(stage, record)
    stage.receiver.misbehaviour.fail_until = 0.0
    await stage.start_relay()
    over.set()
    await playing
    with suppress(TimeoutError):  # what is missing then is named by the verdict
        await stage.until_all_delivered(90.0, pause=2.0)
    record.verdict = stage.verdict()
    code = await stage.relay.stop()
    record.faults = [
        *faults_of(stage, record.verdict),
        *_faults_of_file(stage),
        *_undelivered(stage, record),
        *([] if code == 0 else [f"exit code {code}"]),
    ]
    record.seconds = monotonic() - began
    return record


async def play_until(stage: Stage, over: asyncio.Event, rate: float) -> None:
    while not over.is_set():
        await stage.player(ORDERS_AT_A_TIME, rate).run()


async def _live(stage: Stage, chance: Random, longest: float, record: Record) -> None:
    began = monotonic()
    starting, seconds = chance.random() < STARTING_SHARE, chance.uniform(0.05, longest)
    readiness = asyncio.create_task(stage.relay.until_ready())
    try:
        await asyncio.wait([readiness], timeout=seconds if starting else None)
        if readiness.done():
            readiness.result()
            record.to_ready.append(monotonic() - began)
            await asyncio.sleep((began if starting else monotonic()) + seconds - monotonic())
    finally:
        readiness.cancel()
        await asyncio.gather(readiness, return_exceptions=True)


def _note_what_was_committed(stage: Stage, record: Record) -> None:
    """From a copy of the files, so that the relay finds them as the kill left them."""
    with tempfile.TemporaryDirectory() as name:
        for file in stage.folder.glob("relay.db*"):
            if file.suffix in (".db", ".db-wal"):
                shutil.copy(file, name)
        with closing(sqlite3.connect(Path(name) / "relay.db")) as connection, suppress(sqlite3.OperationalError):
            record.committed |= {row[0] for row in connection.execute("SELECT webhook_id FROM events")}
            waiting = "SELECT webhook_id FROM events WHERE id IN (SELECT event_id FROM deliveries WHERE state < 2)"
            record.waiting |= {row[0] for row in connection.execute(waiting)}


def _undelivered(stage: Stage, record: Record) -> Iterator[str]:
    """What was committed must arrive, whatever the upstream showed later."""
    acknowledged = {arrival.webhook_id for arrival in stage.receiver.arrivals if arrival.acknowledged}
    for webhook_id in sorted(record.committed - acknowledged):
        yield f"{webhook_id} was committed and never acknowledged"


def faults_of(stage: Stage, verdict: Verdict) -> list[str]:
    """Also what the verdict does not look at: ids, sequences of first arrivals."""
    faults = [] if verdict.ok else verdict.lines()
    faults += [f"order {houdini_id}: its last change never arrived" for houdini_id in stage.missing_ends()]
    return [*faults, *_unstable_ids(stage), *_steps_back(stage)]


def _faults_of_file(stage: Stage) -> list[str]:
    file = stage.folder / "relay.db"
    with closing(sqlite3.connect(file)) as connection:
        answers = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    faults = [f"integrity_check: {answer}" for answer in answers if answer != "ok"]
    command = [sys.executable, "-m", "relay", "store", "check", "-c", str(stage.config)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return faults if checked.returncode == 0 else [*faults, f"store check: {checked.stdout}{checked.stderr}"]


def _unstable_ids(stage: Stage) -> Iterator[str]:
    bodies: dict[str, bytes] = {}
    for arrival in stage.receiver.arrivals:
        if bodies.setdefault(arrival.webhook_id, arrival.body) != arrival.body:
            yield f"{arrival.webhook_id} carried two bodies"


def _steps_back(stage: Stage) -> Iterator[str]:
    """Repeats after a crash aside: a repeat re-sends what was the newest."""
    furthest: dict[tuple[str, str | None], int] = {}
    acknowledged: set[tuple[str, str]] = set()
    for arrival in stage.receiver.arrivals:
        once, lane = (arrival.target, arrival.webhook_id), (arrival.target, arrival.houdini_id)
        if not arrival.acknowledged or once in acknowledged or arrival.sequence is None:
            continue
        acknowledged.add(once)
        if arrival.sequence <= furthest.get(lane, 0):
            yield f"order {arrival.houdini_id} at {lane[0]}: sequence {arrival.sequence} after {furthest[lane]}"
        furthest[lane] = arrival.sequence
