"""A relay in a hundred lines, just good enough for the demo to call it fine, and able to be bad on purpose.

Run as `naive_relay.py HABIT -c CONFIG`; the habits are `good`, `forgets`, `doubles`, `forges`, `tidies`, `dies`
and `stubborn`.
"""

import asyncio
import json
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from standardwebhooks import Webhook

FAR_ALONG = {status: rank for rank, status in enumerate((-2, -1, 0, 5, 1, 2, 3, 4, 6, 7, 8))}
FIELDS = ("status", "displayStatus", "inStatus", "outStatus", "actionRequired")
STRANGER = "whsec_c3RyYW5nZXJzdHJhbmdlcnN0cmFuZ2Vy"


class NaiveRelay:
    def __init__(self, habit: str, config: dict[str, Any]) -> None:
        self.habit = habit
        self.upstream, self.target = config["upstream"], config["targets"][0]
        self.listen = config["admin"]["listen"]
        self.headers = {"Authorization": f"{self.upstream['partner_id']}:{self.upstream['secret']}"}
        self.known: dict[str, dict[str, Any]] = {}
        self.sequences: dict[str, int] = {}
        self.events: asyncio.Queue[tuple[str, str, bytes]] = asyncio.Queue()
        self.ready = asyncio.Event()
        self.made = 0

    def see(self, text: bytes, origin: str, silent: bool = False) -> None:
        order = json.loads(text)
        state = {name: order.get(name) for name in FIELDS}
        identity = order["houdiniId"]
        known = self.known.get(identity)
        if known == state or (known and FAR_ALONG[state["status"]] < FAR_ALONG[known["status"]]):
            return
        if known and origin == "backfill" and known["status"] == state["status"]:
            return
        self.known[identity] = state
        if silent:
            return
        self.made += 1
        sequence = self.sequences[identity] = self.sequences.get(identity, 0) + 1
        if self.habit == "forgets" and self.made % 9 == 0:
            return
        data = json.dumps(order).encode() if self.habit == "tidies" and self.made == 9 else text
        place = {"orderSequence": sequence, "status": order["statusLabel"], "origin": origin}
        body = b'{"type":"order.x","data":' + data + b',"relay":' + json.dumps(place).encode() + b"}"
        for copy in range(2 if self.habit == "doubles" and self.made == 9 else 1):
            self.events.put_nowait((f"evt_{identity}_{sequence}_{copy}", identity, body))

    async def hold_the_socket(self, http: aiohttp.ClientSession) -> None:
        while True:
            try:
                async with http.ws_connect(self.upstream["websocket_url"], headers=self.headers) as socket:
                    await self.converse(http, socket)
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)

    async def converse(self, http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                return
            kind = json.loads(message.data)["type"]
            if kind == "welcome":
                await socket.send_json({"type": "subscribe"})
            elif kind == "subscribed":
                await self.sweep(http)
            elif kind == "order_update":
                head, tail = b'{"type":"order_update","data":', b"}"
                self.see(message.data.encode()[len(head) : -len(tail)], "websocket")

    async def sweep(self, http: aiohttp.ClientSession) -> None:
        """Row by row, by id: this relay cannot cut a list into the bytes of its rows."""
        async with http.get(self.upstream["rest_url"] + "/orders", headers=self.headers) as answer:
            rows = json.loads(await answer.read())["orders"]
        for row in rows:
            url = f"{self.upstream['rest_url']}/orders/{row['houdiniId']}"
            async with http.get(url, headers=self.headers) as answer:
                self.see(await answer.read(), "backfill", silent=not self.ready.is_set())
        self.ready.set()

    async def deliver(self, http: aiohttp.ClientSession) -> None:
        delivered = 0
        while True:
            identity, _, body = await self.events.get()
            forged = self.habit == "forges" and delivered == 9
            for attempt in range(1, 100):
                if await self.post(http, identity, body, attempt, STRANGER if forged and attempt == 1 else None):
                    break
                await asyncio.sleep(0.1)
            delivered += 1
            if self.habit == "dies" and delivered == 9:
                sys.exit(7)

    async def post(
        self, http: aiohttp.ClientSession, identity: str, body: bytes, attempt: int, secret: str | None
    ) -> bool:
        now = datetime.now(UTC)
        headers = {
            "webhook-id": identity,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret or self.target["secrets"][0]).sign(identity, now, body.decode()),
            "relay-attempt": str(attempt),
        }
        async with http.post(self.target["url"], data=body, headers=headers) as answer:
            return answer.status == 200

    async def readyz(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready.is_set() else 503)


async def main() -> int:
    relay = NaiveRelay(sys.argv[1], yaml.safe_load(Path(sys.argv[3]).read_text()))
    app = web.Application()
    app.router.add_get("/readyz", relay.readyz)
    runner = web.AppRunner(app)
    await runner.setup()
    host, port = relay.listen.split(":")
    await web.TCPSite(runner, host, int(port)).start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with aiohttp.ClientSession() as http:
        work = [asyncio.create_task(relay.hold_the_socket(http)), asyncio.create_task(relay.deliver(http))]
        await asyncio.wait((*work, asyncio.create_task(stop.wait())), return_when=asyncio.FIRST_COMPLETED)
        for task in work:
            task.cancel()
    await runner.cleanup()
    return 5 if relay.habit == "stubborn" else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
