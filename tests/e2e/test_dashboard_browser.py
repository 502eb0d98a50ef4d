"""The dashboard in a real browser, over a real relay process: what an operator does on a bad day."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

from support.needs import require_module, require_tool
from support.until import until

require_module("playwright")
require_tool("chromium")

from chromium_kit import (  # noqa: E402 - only where there is a browser
    Visit,
    accessibility_problems,
    chromium,
    focus_problems,
    keep_screenshot,
    visit,
)
from playwright.async_api import Route  # noqa: E402 - as above
from stage import SECRET, Stage  # noqa: E402 - as above

from relay.simulator.lifecycle import Kind  # noqa: E402 - as above
from relay.simulator.lifecycle import Stage as Step  # noqa: E402 - as above
from relay.simulator.receiver import Receiver  # noqa: E402 - as above

TOKEN = "canary-e2e-admin-token"
WAITING, FINISHED = Step(0, "WAITING_FOR_DEPOSIT", 1), Step(4, "COMPLETED", 6)


class Desk(Stage):
    """A stage whose second target, `ledger`, can be made to refuse everything for good."""

    async def __aenter__(self) -> "Desk":
        self.ledger = Receiver([SECRET], clock=self.receiver_clock, rng=Random(2))
        await self.ledger.start()
        await super().__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        await self.ledger.stop()

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        shop = settings["targets"][0]
        ledger = {
            **deepcopy(shop),
            "name": "ledger",
            "url": f"http://127.0.0.1:{self.ledger.port}/ledger",
            "retry": {"schedule": ["100ms"]},
            "breaker": {"failures": 1000},
        }
        settings["targets"].append(ledger)
        settings["admin"]["token"] = TOKEN
        return settings

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def finished_order(self) -> str:
        """An order that waits and then finishes, as everybody hears."""
        order = self.world.create(Kind.CEX, WAITING)
        self.world.transition(order, FINISHED)
        return order.houdini_id

    async def until_arrived(self, receiver: Receiver, houdini_id: str, *, acknowledged: bool = True) -> None:
        def arrived() -> bool:
            seen = [one for one in receiver.arrivals if one.houdini_id == houdini_id and one.sequence == 2]
            return any(one.acknowledged == acknowledged for one in seen)

        await until(arrived, 20)


@asynccontextmanager
async def at_the_desk(folder: Path, **settings: Any) -> AsyncIterator[tuple[Desk, Visit]]:
    """Signed in, and at the end: no error on any page, no request to anybody else."""
    async with Desk(folder) as desk, chromium() as browser, visit(browser, desk.origin, **settings) as there:
        await desk.start_relay()
        await sign_in(there)
        yield desk, there
        assert there.problems == []
        assert there.strays == []
        assert TOKEN not in await there.page.content()


async def sign_in(there: Visit) -> None:
    await there.open("/")
    assert there.page.url == there.origin + "/login"
    await there.page.fill("#token", TOKEN)
    await there.page.press("#token", "Enter")
    await there.page.wait_for_url(there.origin + "/")


async def find(there: Visit, text: str) -> None:
    await there.page.fill("#q", text)
    await there.page.press("#q", "Enter")
    await there.page.wait_for_load_state()


async def test_a_bad_day(tmp_path: Path):
    """Sign in, watch, find an order, retry a dead delivery, pause and resume, replay after a count."""
    async with at_the_desk(tmp_path) as (desk, there):
        page = there.page
        await there.until_read("All is well")
        await keep_screenshot(page, "fine")

        # Live: the page changes by itself and is not loaded again.
        await page.evaluate("window.notLoadedAgain = true")
        await page.focus("#backfill")
        desk.ledger.misbehaviour.fail_rate, desk.ledger.misbehaviour.status = 1.0, 500
        order = desk.finished_order()
        await there.until_read("One thing needs attention")
        await there.until_read("not sent again since")
        assert await page.evaluate("window.notLoadedAgain")
        assert await page.evaluate("document.activeElement.id") == "backfill", "focus stays where it was"
        await keep_screenshot(page, "wrong")

        # The order's life tells which target lacks what.
        await find(there, order)
        assert page.url == f"{there.origin}/orders/{order}"
        await there.until_read("order.finished")
        assert "ledger dead exhausted" in await there.words()
        await keep_screenshot(page, "order")

        # One dead delivery, by hand.
        desk.ledger.misbehaviour.fail_rate = 0.0
        await page.goto(f"{there.origin}/deliveries?status=dead&target=ledger")
        await page.click("tbody tr:first-child td:first-child a")
        await page.click("#retry")
        await there.until_read("It is sent again")
        await there.until_read("delivered")
        await desk.until_arrived(desk.ledger, order)

        # Pause keeps, resume sends.
        await page.goto(f"{there.origin}/targets/ledger")
        await page.click("#pause")
        await there.until_read("Paused.")
        second = desk.finished_order()
        await desk.until_arrived(desk.receiver, second)
        await there.until_read("2 waiting")
        assert not [one for one in desk.ledger.arrivals if one.houdini_id == second]
        await page.click("#resume")
        await desk.until_arrived(desk.ledger, second)

        # A test event, past everything.
        await page.click("#test")
        await there.until_read("The test event: ok")

        # The rest of the dead, counted first.
        await page.goto(f"{there.origin}/deliveries?status=dead")
        await page.click("text=Count for ledger")
        await there.until_read("1 event would be sent again")
        before = len(desk.ledger.arrivals)
        await page.click("#replay-now")
        await there.until_read("A replay has begun")
        await until(lambda: len(desk.ledger.arrivals) > before)

        await there.open("/")
        assert await page.locator("svg.spark").count() == 2
        assert "No attempt in the last hour" not in await there.words()
        await keep_screenshot(page, "after")

        await page.click("text=Sign out")
        await page.wait_for_url(f"{there.origin}/login")
        await page.goto(f"{there.origin}/deliveries")
        assert "/login" in page.url


async def test_what_happens_before_the_stream_is_open_is_not_missed(tmp_path: Path):
    """Between a page's making and the first word of its stream nobody listens: the page asks once more."""
    async with at_the_desk(tmp_path) as (desk, there):
        released = asyncio.Event()

        async def held(route: Route) -> None:
            await released.wait()
            await route.continue_()

        await there.page.route("**/api/v1/stream", held)
        await there.open("/events")
        order = desk.finished_order()
        await desk.until_arrived(desk.receiver, order)
        assert order not in await there.words()
        released.set()
        await there.until_read(order)


PAGES = {
    "overview": "/",
    "deliveries": "/deliveries",
    "dead": "/deliveries?status=dead",
    "events": "/events",
    "target": "/targets/ledger",
    "replay": "/targets/ledger/replay",
    "delivery": "/deliveries/2",
}


async def test_everybody_can_read_and_use_it(tmp_path: Path):
    """Light, dark and narrow: contrast, labels, names, headings, focus order, nothing cut off."""
    modes = {"light": ("light", 1280), "dark": ("dark", 1280), "narrow": ("light", 360)}
    async with Desk(tmp_path) as desk, chromium() as browser:
        await desk.start_relay()
        desk.ledger.misbehaviour.fail_rate, desk.ledger.misbehaviour.status = 1.0, 500
        order = desk.finished_order()
        await desk.until_arrived(desk.receiver, order)
        await desk.until_arrived(desk.ledger, order, acknowledged=False)
        for mode, (scheme, width) in modes.items():
            shape = {"width": width, "height": 760}
            async with visit(browser, desk.origin, color_scheme=scheme, viewport=shape) as there:
                await there.open("/login")
                assert await accessibility_problems(there.page) == [], f"sign in, {mode}"
                await keep_screenshot(there.page, f"sign-in-{mode}")
                await sign_in(there)
                event = await first_link(there, "/events")
                for name, path in {**PAGES, "order": f"/orders/{order}", "event": event}.items():
                    await there.open(path)
                    assert await accessibility_problems(there.page) == [], f"{name}, {mode}"
                    await keep_screenshot(there.page, f"{name}-{mode}")
                    if mode != "dark" and name in ("overview", "dead", "target"):
                        assert await focus_problems(there.page) == [], f"{name}, {mode}"
                assert there.problems == []
                assert there.strays == []


async def first_link(there: Visit, path: str) -> str:
    await there.open(path)
    return await there.page.get_attribute("tbody tr:first-child a", "href") or ""


async def test_without_scripts_everything_works(tmp_path: Path):
    async with at_the_desk(tmp_path, java_script_enabled=False) as (desk, there):
        order = desk.finished_order()
        await desk.until_arrived(desk.receiver, order)
        await find(there, order)
        assert "order.finished" in await there.page.inner_text("main")
        await there.page.goto(f"{there.origin}/targets/shop")
        await there.page.click("#pause")
        assert "Paused. What comes is kept" in await there.page.inner_text("main")
        await there.page.click("#resume")
        assert "Resumed." in await there.page.inner_text("main")


async def test_a_relay_that_is_gone_is_not_mistaken_for_a_quiet_one(tmp_path: Path):
    """The page says that what it shows is old, and recovers by itself."""
    async with Desk(tmp_path) as desk, chromium() as browser, visit(browser, desk.origin) as there:
        await desk.start_relay()
        await sign_in(there)
        await there.until_read("All is well")
        await desk.kill_relay()
        await there.until_read("The relay does not answer.", 15)
        await keep_screenshot(there.page, "gone")
        await desk.start_relay()
        # Sessions live in memory: one signs in again.
        await there.page.wait_for_url(f"{there.origin}/login", timeout=20_000)
        await sign_in(there)
        assert "The relay does not answer." not in await there.words()
