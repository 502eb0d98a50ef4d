"""The bounded queue between the readers, which fill it without waiting, and the one ingest."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from relay.model import Origin, Snapshot
from relay.upstream.planner import Entry

INTAKE_BYTES: Final = 64 * 2**20
INTAKE_SNAPSHOTS: Final = 100_000


class Intake:
    """A bounded FIFO between the readers and the one ingest.

    Frames are offered and never wait: what does not fit is dropped and `overflowed` is set, which asks for
    a sweep. REST rows wait for room, so they stand behind every frame read before them.

    Attributes:
        overflowed: set when a frame was dropped; whoever sweeps clears it.
        dropped: how many frames were.
        touched_at: monotonic time at which every order counts as just updated, None before the first time.
    """

    def __init__(self, max_bytes: int = INTAKE_BYTES, max_snapshots: int = INTAKE_SNAPSHOTS) -> None:
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._max_snapshots = max_snapshots
        self._added = 0
        self._done = 0
        self._arrived = asyncio.Event()
        self._moved = asyncio.Condition()
        self.overflowed = asyncio.Event()
        self.dropped = 0
        self.touched_at: float | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def offer(self, snapshot: Snapshot) -> bool:
        """Add a frame's snapshot if there is room; False when it was dropped."""
        if not self._has_room():
            self.dropped += 1
            self.overflowed.set()
            return False
        self._add(Entry(snapshot))
        return True

    async def put(self, snapshots: Sequence[Snapshot]) -> None:
        """Add REST rows, waiting for room."""
        for snapshot in snapshots:
            async with self._moved:
                await self._moved.wait_for(self._has_room)
                self._add(Entry(snapshot))

    def put_back(self, snapshot: Snapshot) -> None:
        """Add a hint whose frame did not come, to be judged again."""
        self._add(Entry(snapshot, hinted=True))

    def confirm(self, snapshot: Snapshot) -> None:
        """Add the frame of a question that REST can never answer, to be believed if it still can be."""
        self._add(Entry(snapshot, confirmed=True))

    def return_unstored(self, entries: Sequence[Entry]) -> None:
        """Take back, to the front, what was taken and could not be stored; it counts as added anew."""
        self._entries.extendleft(reversed(entries))
        self._bytes += sum(len(entry.snapshot.body) for entry in entries)
        self._added += len(entries)
        self._arrived.set()

    def unstored_frames(self) -> list[Snapshot]:
        """Frames that were read and are not stored, oldest first; what REST showed is asked for again anyway."""
        plain = (one for one in self._entries if not one.hinted and not one.confirmed)
        return [one.snapshot for one in plain if one.snapshot.origin is Origin.WEBSOCKET]

    def touch_all(self, now: float) -> None:
        """From now on every order counts as just updated: no read is quiet for one settling time."""
        self.touched_at = now

    async def join(self) -> None:
        """Wait until everything added so far is committed."""
        goal = self._added
        async with self._moved:
            await self._moved.wait_for(lambda: self._done >= goal)

    async def take(self, limit: int) -> list[Entry]:
        """Wait for entries and take up to `limit` of them; `done` must be told afterwards."""
        await self._arrived.wait()
        batch = [self._entries.popleft() for _ in range(min(limit, len(self._entries)))]
        self._bytes -= sum(len(entry.snapshot.body) for entry in batch)
        if not self._entries:
            self._arrived.clear()
        return batch

    async def done(self, count: int) -> None:
        """Say that this many taken entries are committed or given up."""
        self._done += count
        async with self._moved:
            self._moved.notify_all()

    def _has_room(self) -> bool:
        return self._bytes < self._max_bytes and len(self._entries) < self._max_snapshots

    def _add(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._bytes += len(entry.snapshot.body)
        self._added += 1
        self._arrived.set()
