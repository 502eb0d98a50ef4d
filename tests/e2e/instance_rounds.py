"""Several instances on one database under load, and everything that can befall them, one trouble after the other."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from typing import Any

import aiohttp
from kill_rounds import faults_of, play_until
from stage import Stage
from support.needs import require_library
from support.postgres import Server
from support.until import until

from relay.simulator.child import RUN_RELAY, RelayProcess, free_port
from relay.simulator.verdict import Verdict
from relay.store.base import LEAD_TTL

COUNT = 3
TARGETS = ("shop", "ledger")
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"
SKEWS = (0, 600, -600)
"""Seconds by which the wall clocks of the instances are wrong."""
TAKEOVER = 20.0
"""Seconds within which another instance leads after the leader has crashed."""
OUTAGE = 3.0
UNSTORED = 3.0
"""Seconds, beside the verdict's own two, that a frame may have waited for the store when its reader was killed or
frozen, or lost the lead: it is gone then, and only a later state of its order comes."""
_ASK = aiohttp.ClientTimeout(total=5.0)
_WATCH = (
    "CREATE TABLE ingested(n bigserial, who text, holder text, epoch bigint)",
    "CREATE FUNCTION note_ingest() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "INSERT INTO ingested(who, holder, epoch) SELECT session_user, holder, epoch FROM leader; RETURN NULL; END $$",
    "CREATE TRIGGER noted AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION note_ingest()",
)


@dataclass
class Record:
    """What a run came to.

    Attributes:
        troubles: what befell the instances -> how often.
        takeovers: seconds from each loss of a leader by a crash until another was subscribed.
        epochs: terms in which something was ingested.
        by: instance -> deliveries that it made.
        faults: everything that is wrong, a sentence each.
    """

    troubles: Counter[str] = field(default_factory=Counter)
    takeovers: list[float] = field(default_factory=list)
    epochs: int = 0
    by: dict[str, int] = field(default_factory=dict)
    verdict: Verdict = field(default_factory=Verdict)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Cast:
    """The instances; each has a database user, an admin port and a wall clock of its own."""

    def __init__(self, stage: Stage, server: Server, database: str) -> None:
        self.stage, self.server, self.database = stage, server, database
        self.ports = [free_port() for _ in range(COUNT)]
        self.instances = [self._make(number) for number in range(COUNT)]
        self.frozen: set[int] = set()
        self.record = Record()

    def _make(self, number: int) -> RelayProcess:
        settings, port = self.stage.settings(), self.ports[number]
        shop = settings["targets"][0]
        settings["targets"].append({**shop, "name": "ledger", "url": shop["url"].replace("/shop", "/ledger")})
        settings["store"] = {"url": self.server.url(self.database).replace("postgres@", f"relay_{number}@")}
        settings["admin"] = {"listen": f"127.0.0.1:{port}"}
        config = self.stage.folder / f"config{number}.yaml"
        config.write_text(json.dumps(settings))  # YAML, too, and without anchors
        library = require_library(FAKETIME)
        skewed = ("env", f"LD_PRELOAD={library}", f"FAKETIME={SKEWS[number]:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC=1")
        command = (*(skewed if SKEWS[number] else ()), *RUN_RELAY)
        return RelayProcess(config, self.stage.folder / f"relay{number}.log", port, command)

    async def ask(self, sql: str, *args: Any) -> list[Any]:
        return await self.server.ask(sql, *args, database=self.database)

    async def state(self, number: int) -> str | None:
        """Where its connection to the upstream stands; None while it cannot say so."""
        url = f"http://127.0.0.1:{self.ports[number]}/api/v1/status"
        with suppress(aiohttp.ClientError, TimeoutError):
            async with aiohttp.ClientSession(timeout=_ASK) as session, session.get(url) as answer:
                if answer.status == 200:
                    return str((await answer.json())["upstream"]["state"])
        return None

    async def leader(self, but: int | None = None) -> int:
        """Who is subscribed upstream, once somebody other than `but` is."""
        found: list[int] = []

        async def somebody() -> bool:
            awake = [one for one in range(COUNT) if one not in self.frozen and one != but]
            states = await asyncio.gather(*(self.state(one) for one in awake))
            found[:] = [one for one, state in zip(awake, states, strict=True) if state == "subscribed"]
            return bool(found)

        await until(somebody, 60, pause=0.1)
        return found[0]

    async def kill(self, number: int) -> None:
        self.record.troubles["killed"] += 1
        await self.instances[number].kill()

    def _deafen(self) -> None:
        self.stage.deaf_since.append(self.stage.clock.mono())

    async def kill_leader(self) -> None:
        """Another takes over in time; the dead one comes back to life after that."""
        number = await self.leader()
        began = monotonic()
        self._deafen()
        await self.kill(number)
        await self.leader(but=number)
        self.record.takeovers.append(monotonic() - began)
        if self.record.takeovers[-1] > TAKEOVER:
            self.record.faults.append(f"a takeover took {self.record.takeovers[-1]:.1f} s")
        await self.instances[number].start()

    async def kill_follower(self) -> None:
        leader = await self.leader()
        number = next(one for one in range(COUNT) if one != leader and one not in self.frozen)
        await self.kill(number)
        await self.instances[number].start()

    async def freeze_leader(self) -> None:
        """Stopped for longer than its lease: it wakes up as somebody who does not know that it has lost the lead."""
        self.record.troubles["frozen past its lease"] += 1
        number = await self.leader()
        self.frozen.add(number)
        pid = self.instances[number].pid
        self._deafen()
        os.kill(pid, signal.SIGSTOP)
        try:
            await self.leader(but=number)
            await asyncio.sleep(LEAD_TTL / 5)
        finally:
            os.kill(pid, signal.SIGCONT)
            self.frozen.discard(number)

    async def cut_leader(self) -> None:
        self.record.troubles["connections of the leader cut"] += 1
        async with self._deaf_if_the_lead_moves():
            user = f"relay_{await self.leader()}"
            await self.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", user)

    async def stop_database(self) -> None:
        self.record.troubles["database stopped"] += 1
        async with self._deaf_if_the_lead_moves():
            await asyncio.to_thread(self.server.stop, "immediate")
            await asyncio.sleep(OUTAGE)
            await asyncio.to_thread(self.server.start)

    @asynccontextmanager
    async def _deaf_if_the_lead_moves(self) -> AsyncIterator[None]:
        """What a leader could not store it takes along into its own next term, and into no later one.

        Another's term begins with a sweep, and what an earlier frame showed could only go backward after that.
        """
        before = await self._lead()
        moment = self.stage.clock.mono()
        yield
        await asyncio.sleep(LEAD_TTL / 5)  # so that whoever still leads by what it believes has found out
        await self.leader()
        after = await self._lead()
        if (after["holder"], after["epoch"]) not in (
            (before["holder"], before["epoch"]),
            (before["holder"], before["epoch"] + 1),
        ):
            self.stage.deaf_since.append(moment)

    async def _lead(self) -> Any:
        (row,) = await self.ask("SELECT holder, epoch FROM leader")
        return row


@asynccontextmanager
async def cast(stage: Stage, server: Server) -> AsyncIterator[Cast]:
    """All instances, ready; who ingests is noted by the database itself."""
    database = await server.create_database()
    for number in range(COUNT):
        await server.ask(f"DROP ROLE IF EXISTS relay_{number}")
        await server.ask(f"CREATE ROLE relay_{number} LOGIN SUPERUSER")
    stage.targets, stage.unstored = list(TARGETS), UNSTORED
    made = Cast(stage, server, database)
    try:
        for number, one in enumerate(made.instances):
            await one.start()
            await one.until_ready()
            if number == 0:
                for statement in _WATCH:
                    await made.ask(statement)
        yield made
    finally:
        for one in made.instances:
            await one.stop()


async def play(made: Cast, troubles: Sequence[str], rate: float) -> Record:
    """Play orders all the while, let the troubles come one after the other, let all come to rest, judge.

    Args:
        made: the instances.
        troubles: names of `Cast`'s methods.
        rate: updates a second.
    """
    stage, record, over, began = made.stage, made.record, asyncio.Event(), monotonic()
    stage.receiver.misbehaviour.delay = 0.02
    playing = asyncio.create_task(play_until(stage, over, rate))
    for trouble in troubles:
        await asyncio.sleep(1.0)
        await getattr(made, trouble)()
    await made.leader()
    over.set()
    await playing
    with suppress(TimeoutError):  # what is missing then is named by the verdict
        await stage.until_all_delivered(60.0, pause=1.0)
    record.verdict = stage.verdict()
    await _judge(made)
    for number, one in enumerate(made.instances):
        if (code := await one.stop()) != 0:
            record.faults.append(f"instance {number}: exit code {code}")
    record.faults += await _check(made)
    record.seconds = monotonic() - began
    return record


async def _check(made: Cast) -> list[str]:
    """What does not hold of the store, stuck lanes included."""
    config = made.stage.folder / "config0.yaml"
    command = (sys.executable, "-m", "relay", "store", "check", "-c", str(config))
    checking = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await asyncio.wait_for(checking.communicate(), 60)
    return [] if checking.returncode == 0 else [f"store check: {said.decode()}"]


async def _judge(made: Cast) -> None:
    record, stage = made.record, made.stage
    record.faults += faults_of(stage, record.verdict)
    share = record.verdict.repeated / max(1, record.verdict.deliveries)
    if share > 0.05:
        record.faults.append(f"{share:.1%} of the deliveries were repeats")
    open_ones = (await made.ask("SELECT count(*) AS n FROM deliveries WHERE state < 2"))[0]["n"]
    if open_ones:
        record.faults.append(f"{open_ones} deliveries have not ended")
    ingested = [
        (row["who"], row["holder"], row["epoch"]) for row in await made.ask("SELECT * FROM ingested ORDER BY n")
    ]
    epochs = [epoch for _, _, epoch in ingested]
    record.epochs = len(set(epochs))
    if epochs != sorted(epochs):
        record.faults.append("epochs of ingest interleave")
    for epoch in sorted(set(epochs)):
        if len(who := {(one, holder) for one, holder, of in ingested if of == epoch}) != 1:
            record.faults.append(f"several ingested in epoch {epoch}: {who}")


def random_troubles(rounds: int, chance: Random) -> list[str]:
    """So many of them; what takes long comes less often."""
    kinds = {"kill_leader": 2, "kill_follower": 3, "freeze_leader": 1, "cut_leader": 4, "stop_database": 2}
    return chance.choices(list(kinds), list(kinds.values()), k=rounds)
