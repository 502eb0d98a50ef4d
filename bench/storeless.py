"""What a team would write instead: read the socket, sign, post. Stores nothing, retries nothing. The reference.

python -m bench.storeless ws://127.0.0.1:8000/ws http://127.0.0.1:8001/hook
"""

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time
import uuid

import aiohttp

KEY = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
IN_FLIGHT = 16


async def main(upstream: str, webhook: str) -> None:
    slots = asyncio.Semaphore(IN_FLIGHT)
    running: set[asyncio.Task[None]] = set()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def post(order: dict[str, object]) -> None:
            try:
                body = json.dumps({"type": "order_update", "data": order}).encode()
                webhook_id, now = f"evt_{uuid.uuid4().hex}", str(int(time.time()))
                signed = hmac.new(KEY, f"{webhook_id}.{now}.".encode() + body, hashlib.sha256).digest()
                headers = {
                    "content-type": "application/json",
                    "webhook-id": webhook_id,
                    "webhook-timestamp": now,
                    "webhook-signature": "v1," + base64.b64encode(signed).decode(),
                }
                async with session.post(webhook, data=body, headers=headers) as answer:
                    await answer.read()
            finally:
                slots.release()

        async with session.ws_connect(upstream, headers={"authorization": "bench:bench-secret"}) as socket:
            await socket.send_json({"type": "subscribe"})
            async for message in socket:
                update = json.loads(message.data)
                if update["type"] == "order_update":
                    await slots.acquire()
                    task = asyncio.create_task(post(update["data"]))
                    running.add(task)
                    task.add_done_callback(running.discard)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
