"""Chromium as a test sees it: it starts fast, phones nobody, and everything that goes wrong on a page is kept."""

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright

_SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
_PATIENCE_MS = 10_000


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_SWITCHES)
        try:
            yield browser
        finally:
            await browser.close()


class Visit:
    """One window, and what went wrong in it.

    Attributes:
        problems: errors and warnings of the console, uncaught exceptions, broken security policies.
        strays: requests that went anywhere else.
    """

    def __init__(self, context: BrowserContext, page: Page, origin: str) -> None:
        self.context = context
        self.page = page
        self.origin = origin
        self.problems: list[str] = []
        self.strays: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"uncaught: {error}"))
        context.on("request", self._request)

    async def open(self, path: str) -> None:
        answer = await self.page.goto(self.origin + path)
        assert answer is not None
        assert answer.status == 200, (path, answer.status)

    async def words(self) -> str:
        """What can be read on the page."""
        return " ".join((await self.page.inner_text("body")).split())

    async def until_read(self, text: str, seconds: float = 10.0) -> None:
        """Wait, without touching the page, until this can be read."""
        await self.page.wait_for_function(
            "text => document.body.innerText.replace(/\\s+/g, ' ').includes(text)", arg=text, timeout=seconds * 1000
        )

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith(self.origin + "/"):
            self.strays.append(request.url)


@asynccontextmanager
async def visit(browser: Browser, origin: str, **settings: Any) -> AsyncIterator[Visit]:
    """A window of its own: no cookie, no cache of another."""
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **settings})
    context.set_default_timeout(_PATIENCE_MS)
    try:
        yield Visit(context, await context.new_page(), origin)
    finally:
        await context.close()


async def keep_screenshot(page: Page, name: str) -> None:
    """Where CI collects them, if it does."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


_CHECKS = r"""
() => {
  const found = [];
  const say = (what, node) => found.push(`${what}: ${node.outerHTML.slice(0, 120)}`);
  const visible = (node) => node.checkVisibility({opacityProperty: true, visibilityProperty: true})
    && node.getClientRects().length > 0;
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (css) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = css;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const ground = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const light = (color) => {
    const [r, g, b] = color.slice(0, 3).map((one) => one / 255)
      .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };

  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.nodeValue.trim() || !visible(node)) continue;
    if (node.closest(".unseen, .skip, script, noscript")) continue;
    const style = getComputedStyle(node);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700);
    const behind = ground(node);
    const ratio = contrast(over(rgba(style.color), behind), behind);
    if (ratio < (large ? 3 : 4.5)) say(`contrast ${ratio.toFixed(2)}`, node);
    if (size < 12) say(`type of ${size} px`, node);
  }
  for (const node of document.querySelectorAll("input:not([type=hidden]), select")) {
    if (!node.labels.length || !node.labels[0].textContent.trim()) say("no label", node);
    const edge = rgba(getComputedStyle(node).borderTopColor);
    if (contrast(edge, ground(node.parentElement)) < 3) say("an edge nobody sees", node);
    if (node.placeholder && contrast(rgba(getComputedStyle(node, "::placeholder").color), ground(node)) < 4.5) {
      say("placeholder", node);
    }
  }
  for (const node of document.querySelectorAll("a, button, summary")) {
    if (!visible(node)) continue;
    const images = [...node.querySelectorAll("img")].map((image) => image.alt).join("");
    if (!(node.textContent + images + (node.getAttribute("aria-label") || "")).trim()) say("no name", node);
    const box = node.getBoundingClientRect();
    if (node.matches("button, .button") && (box.height < 24 || box.width < 24)) say("too small to hit", node);
  }
  for (const node of document.querySelectorAll("img")) if (!node.hasAttribute("alt")) say("no alt", node);
  for (const node of document.querySelectorAll("svg")) {
    if (!node.getAttribute("aria-label") && node.getAttribute("aria-hidden") !== "true") say("no name", node);
  }
  for (const name of ["aria-labelledby", "aria-describedby", "aria-controls"]) {
    for (const node of document.querySelectorAll(`[${name}]`)) {
      for (const id of node.getAttribute(name).split(/\s+/)) if (!document.getElementById(id)) say(`no #${id}`, node);
    }
  }
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  if (new Set(ids).size !== ids.length) found.push(`ids are given twice: ${ids}`);
  for (const node of document.querySelectorAll("table")) {
    for (const head of node.querySelectorAll("th")) if (!head.scope) say("no scope", head);
    if (!node.querySelector("th")) say("no headings", node);
  }
  let level = 0;
  for (const node of document.querySelectorAll("h1, h2, h3, h4")) {
    const here = Number(node.nodeName[1]);
    if (here > level + 1) say(`a heading of level ${here} after one of ${level}`, node);
    level = here;
  }
  if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
  if (document.querySelectorAll("main").length !== 1) found.push("not one main");
  if (document.documentElement.lang !== "en") found.push("no language");
  for (const button of document.querySelectorAll(".button")) {
    const lines = button.clientHeight / parseFloat(getComputedStyle(button).lineHeight);
    if (button.clientHeight && lines > 2) found.push(`a button breaks its word: ${button.innerText}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) {
    const wide = [...document.querySelectorAll("main *, header *")].filter(
      (node) => node.getBoundingClientRect().right > innerWidth + 1 && !node.closest(".scroll, pre, .unseen"));
    found.push(`wider than the window by ${document.documentElement.scrollWidth - innerWidth}`);
    for (const node of wide.slice(0, 3)) say("too wide", node);
  }
  return found;
}
"""


async def accessibility_problems(page: Page) -> Sequence[str]:
    """Contrast as computed, labels, names, headings, references, and whether it fits the window."""
    found: list[str] = await page.evaluate(_CHECKS)
    return found


_FOCUSED = r"""
() => {
  const node = document.activeElement;
  if (!node || node === document.body) return null;
  const all = [...document.querySelectorAll("*")];
  const style = getComputedStyle(node);
  const box = node.getBoundingClientRect();
  return {
    place: all.indexOf(node),
    what: node.outerHTML.slice(0, 100),
    ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    seen: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight,
  };
}
"""


async def focus_problems(page: Page, most: int = 60) -> Sequence[str]:
    """Go through the page with the tab key: the order of the page, everything focused visible and marked."""
    found, before = [], -1
    for number in range(most):
        await page.keyboard.press("Tab")
        focused = await page.evaluate(_FOCUSED)
        if focused is None or focused["place"] <= before:
            if focused is not None and number < 3:
                found.append(f"focus goes back to {focused['what']}")
            break
        before = focused["place"]
        if number == 0 and 'class="skip"' not in focused["what"]:
            found.append(f"the first stop is {focused['what']}")
        if not focused["ring"]:
            found.append(f"no ring around {focused['what']}")
        if not focused["seen"]:
            found.append(f"out of sight: {focused['what']}")
    return found
