"""One healthy target among 49 in every kind of trouble, with a backlog: how much slower does it get?

Alone and among the others by turns, in one run; the figure is the ratio of the healthy target's p99. `beside`: the
others are in trouble with what they have. `fanned out`: they get every update, too, so that each is written 50 times.
"""

import socket
from contextlib import closing
from typing import Any

from bench.apparatus import PeerProcess, Played, peer, relay, spread, target
from bench.peer import STATUSES
from relay.simulator.child import free_port

TROUBLED = 49
BACKLOG = 100_000
RATE, UPDATES, ROUNDS = 100.0, 1500, 3


async def run() -> str:
    alone: list[Played] = []
    beside: list[Played] = []
    fanned: list[Played] = []
    waiting = 0
    async with peer() as other:
        with closing(_deaf_listener()) as deaf:
            troubled = _troubled(other, deaf.getsockname()[1])
            listening = [one | {"events": ["order.new"]} for one in troubled]
            for number in range(ROUNDS):
                async with relay(other, [target("healthy", other.sinks["ok"])]):
                    alone.append(await other.play(f"alone{number}", UPDATES, rate=RATE))
                async with relay(other, [target("healthy", other.sinks["ok"]), *troubled]) as one:
                    await other.play(f"fill{number}", BACKLOG // TROUBLED, statuses=STATUSES[:1])
                    fanned.append(await other.play(f"fanned{number}", UPDATES, rate=RATE))
                async with relay(other, [target("healthy", other.sinks["ok"]), *listening]) as one:
                    await other.play(f"stock{number}", BACKLOG // TROUBLED, statuses=STATUSES[:1])
                    waiting = sum(entry["pending"] for entry in (await one.status())["targets"])
                    beside.append(await other.play(f"beside{number}", UPDATES, rate=RATE, statuses=STATUSES[1:]))
    lost = sum(one.sent - one.arrived for one in (*alone, *beside, *fanned))
    return "\n".join(
        [
            f"isolation: 1 healthy target, {TROUBLED} in trouble, {waiting} deliveries waiting, {RATE:.0f} updates/s",
            _line("alone", alone, alone),
            _line("beside", beside, alone),
            _line("fanned out", fanned, alone),
            f"  not arrived {lost}",
        ]
    )


def _line(name: str, played: list[Played], alone: list[Played]) -> str:
    parts = []
    for word, share in (("p50", 0.5), ("p99", 0.99)):
        ratios = [one.percentile(share) / base.percentile(share) for one, base in zip(played, alone, strict=True)]
        took = spread([one.percentile(share) for one in played], "{:.1f}".format)
        parts.append(f"{word} {took} ms, ratio {spread(ratios, '{:.2f}'.format)}")
    return f"  {name}: " + "; ".join(parts)


def _troubled(other: PeerProcess, deaf: int) -> list[dict[str, Any]]:
    """Every kind of trouble by turns, until there are enough."""
    kinds = [
        *((name, {"url": f"http://127.0.0.1:{port}/{name}"}) for name, port in other.sinks.items() if name != "ok"),
        ("closed", {"url": f"http://127.0.0.1:{free_port()}/closed"}),
        ("deaf", {"url": f"http://127.0.0.1:{deaf}/deaf"}),
        ("no-tls", {"url": f"https://127.0.0.1:{other.sinks['ok']}/no-tls"}),
        ("no-name", {"url": "https://no-such-name.invalid/hook"}),
    ]
    return [
        {**target(f"{name}-{number}", 1), "timeout": "5s", **settings}
        for number in range(TROUBLED)
        for name, settings in [kinds[number % len(kinds)]]
    ]


def _deaf_listener() -> socket.socket:
    """Takes connections into a queue that is full at once, so that further ones hang."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", free_port()))
    listener.listen(0)
    return listener
