"""Order objects as the upstream composes them, and the bytes they are sent as.

Pure: time and chance come as arguments. An order is turned into bytes once per state, so that a test
can ask for those very bytes at the far end.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from random import Random
from typing import Any, Final, NamedTuple

from relay.simulator.lifecycle import LABELS, Kind, Stage

OrderFields = dict[str, Any]

_BASE57: Final = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_HEX: Final = "0123456789abcdef"
_EXPIRES_AFTER_MS: Final = 30 * 60 * 1000


class _Coin(NamedTuple):
    symbol: str
    name: str
    chain: str
    chain_name: str
    decimals: int
    contract: str | None
    price: float
    has_tag: bool


_COINS: Final = (
    _Coin("BTC", "Bitcoin", "bitcoin", "Bitcoin", 8, None, 61511.02, False),
    _Coin("ETH", "Ether", "ethereum", "Ethereum Mainnet", 18, None, 1700.11, False),
    _Coin("XMR", "Monero", "monero", "Monero ≈ приватный", 12, None, 164.3307, False),
    _Coin("SOL", "Solana", "solana", "Solana", 9, None, 143.27501, False),
    _Coin("XRP", "XRP", "ripple", "XRP Ledger", 6, None, 0.52218, True),
    _Coin("USDT", "Tether USD₮", "tron", "TRON (波场)", 6, "TContract0000000000000000000000000", 1.0002, False),
    _Coin("SHIB", "柴犬 Shiba", "ethereum", "Ethereum Mainnet", 18, "0x" + "5b" * 20, 2.53e-05, False),
)
_SENTENCES: Final = (
    "Coins move from one holder to another without anyone in between; blocks arrive about every ten minutes.",
    "Les frais dépendent de la charge du réseau, et l'émission diminue de moitié à intervalles réguliers.",
    'Listed pairs include EUR/€, JPY/¥ and GBP/£; "wrapped" forms exist on other chains (see docs\\bridges).',
    "取引は数秒で確定し、手数料はごくわずかです。詳しくは公式サイトをご覧ください。",
    "The community likes to sign its posts with 🚀 and 🪙, which is more a habit than a statement about value.",
    "Supply:\tuncapped.\nConsensus:\tproof of stake since the last upgrade.",
)


def _iso(wall_ms: int) -> str:
    moment = datetime.fromtimestamp(wall_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def houdini_id(rng: Random) -> str:
    """A fresh id: 22 characters of base57."""
    return "".join(rng.choices(_BASE57, k=22))


def _hex(rng: Random, digits: int) -> str:
    return "".join(rng.choices(_HEX, k=digits))


def _address(coin: _Coin, rng: Random) -> str:
    return "bc1q" + _hex(rng, 38) if coin.chain == "bitcoin" else "0x" + _hex(rng, 40)


def _token(coin: _Coin, rng: Random) -> OrderFields:
    site = f"https://assets.example.com/{coin.chain}/{coin.symbol.lower()}"
    return {
        "id": _hex(rng, 24),
        "symbol": coin.symbol,
        "name": coin.name,
        "chain": coin.chain,
        "decimals": coin.decimals,
        "address": coin.contract,
        "price": coin.price,
        "volume24h": rng.uniform(1e5, 1e9),
        "change": rng.uniform(-9, 9),
        "marketCap": 1e5 * 10 ** rng.randint(0, 6),
        "hasTag": coin.has_tag,
        "icon": f"{site}/icon.svg?size=64&theme=dark",
        "description": " ".join(rng.choices(_SENTENCES, k=rng.randint(5, 11))),
        "keywords": ["swap", coin.symbol, coin.name, f"{coin.chain}/{coin.symbol}"],
        "network": {
            "name": coin.chain_name,
            "shortName": coin.chain,
            "addressValidation": "^(0x[a-fA-F0-9]{40}|bc1[a-z0-9]{20,60}|[1-9A-HJ-NP-Za-km-z]{25,40})$",
            "explorerUrl": f"https://explorer.example.com/{coin.chain}/tx/{{txHash}}",
            "addressUrl": f"https://explorer.example.com/{coin.chain}/address/{{address}}",
            "memoNeeded": coin.has_tag,
            "priority": rng.randint(1, 40),
            "chainId": rng.choice((None, 1, 56, 137, 42161)),
        },
        "enabled": {"standard": True, "private": coin.contract is None, "dex": coin.contract is not None},
    }


def new_order(kind: Kind, created_ms: int, rng: Random) -> OrderFields:
    """The fields of an order that stay as they are, before any stage.

    Args:
        kind: how it is routed; decides which fields exist at all.
        created_ms: wall time of its making, milliseconds since the epoch.
        rng: where its particulars come from.
    """
    coin_in, coin_out = rng.sample(_COINS, 2)
    amount = rng.uniform(0.0001, 3) if rng.random() < 0.8 else 2.53e-05
    usd = amount * coin_in.price
    order: OrderFields = {
        "houdiniId": houdini_id(rng),
        "id": _hex(rng, 24),
        "created": _iso(created_ms),
        "expires": _iso(created_ms + _EXPIRES_AFTER_MS),
        "anonymous": kind is Kind.PRIVATE,
        "isDex": kind is Kind.DEX,
        "fixed": rng.random() < 0.2,
        "inAmount": amount,
        "outAmount": usd / coin_out.price * 0.985,
        "inSymbol": coin_in.symbol,
        "outSymbol": coin_out.symbol,
        "inAmountUsd": usd,
        "outAmountUsd": usd * 0.985,
        "eta": rng.randint(2, 45),
        "depositAddress": _address(coin_in, rng),
        "receiverAddress": _address(coin_out, rng),
        "refundAddress": _address(coin_in, rng),
        "validUntil": str((created_ms + _EXPIRES_AFTER_MS) // 1000),
        "ip": f"198.51.100.{rng.randint(1, 254)}",
        "inToken": _token(coin_in, rng),
        "outToken": _token(coin_out, rng),
    }
    if coin_out.has_tag:
        order["receiverTag"] = str(rng.randint(10_000, 99_999_999))
    if rng.random() < 0.2:
        order["multiId"] = houdini_id(rng)
    return order | _routing(kind, order, rng)


def _routing(kind: Kind, order: Mapping[str, Any], rng: Random) -> OrderFields:
    if kind is Kind.PRIVATE:
        return {}
    if kind is Kind.CEX:
        code, name = rng.choice((("cl", "Changelly"), ("ff", "FixedFloat"), ("ss", "SideShift Ω")))
        return {"in": code, "swapName": name}
    route = {"router": "0x" + _hex(rng, 40), "path": ["a/b", "b/c"], "slippage": 0.5, "note": 'naïve "best" route'}
    return {
        "in": "ra",
        "swapName": "Raydium/Orca",
        "inSymbol": order["inToken"]["id"],
        "outSymbol": order["outToken"]["id"],
        "metadata": json.dumps(route),
    }


def at_stage(order: Mapping[str, Any], stage: Stage, now_ms: int, rng: Random) -> OrderFields:
    """The order as it stands in this stage: status fields, hashes that exist by now, moved prices."""
    staged = dict(order)
    staged["status"] = stage.status
    staged["statusLabel"] = LABELS.get(stage.status, "UNKNOWN")
    staged["actionRequired"] = stage.action_required
    finer = {"displayStatus": stage.display, "inStatus": stage.in_status, "outStatus": stage.out_status}
    for name, value in finer.items():
        staged.pop(name, None)
        if value is not None:
            staged[name] = value
    if stage.status in (1, 2, 3, 4) and "transactionHash" not in staged:
        deposit = "0x" + _hex(rng, 64)
        staged["transactionHash"] = staged["inTransactionInHash"] = deposit
        staged["hashUrl"] = f"https://explorer.example.com/tx/{deposit}"
    if stage.status == 4:
        staged["outTransactionOutHash"] = "0x" + _hex(rng, 64)
    return repriced(staged, now_ms, rng)


def repriced(order: Mapping[str, Any], now_ms: int, rng: Random) -> OrderFields:
    """The same order a little later: only what moves with the market, and `modified`, differ."""
    moved = dict(order)
    for side in ("in", "out"):
        token = dict(moved[f"{side}Token"])
        token["price"] *= rng.uniform(0.999, 1.001)
        moved[f"{side}Token"] = token
        moved[f"{side}AmountUsd"] *= rng.uniform(0.999, 1.001)
    moved["modified"] = _iso(now_ms)
    return moved


class Style(StrEnum):
    """How the same order is spelt.

    `plain` is what a JavaScript server writes; `escaped` adds escaped slashes and non-ASCII characters;
    `odd` uses every freedom that JSON leaves: white space, member order, escapes, `1.5E5`.
    """

    PLAIN = "plain"
    ESCAPED = "escaped"
    ODD = "odd"


def serialise(order: Mapping[str, Any], style: Style, rng: Random) -> bytes:
    """The order's JSON in this style; `rng` is only used by `odd`."""
    if style is Style.PLAIN:
        return json.dumps(order, ensure_ascii=False, separators=(",", ":")).encode()
    if style is Style.ESCAPED:
        return json.dumps(order, separators=(",", ":")).replace("/", "\\/").encode()
    return _odd(order, rng).encode()


def _odd(value: object, rng: Random) -> str:
    if isinstance(value, Mapping):
        names = list(value)
        rng.shuffle(names)
        members = (f"{_odd(name, rng)}{_gap(rng)}:{_gap(rng)}{_odd(value[name], rng)}" for name in names)
        return "{" + _gap(rng) + f"{_gap(rng)},".join(members) + _gap(rng) + "}"
    if isinstance(value, list):
        return "[" + f",{_gap(rng)}".join(_odd(item, rng) for item in value) + "]"
    if isinstance(value, float):
        return _odd_number(value)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    return text.replace("/", "\\/") if rng.random() < 0.5 else text


def _odd_number(value: float) -> str:
    exponential = f"{value:.1E}"
    return exponential if float(exponential) == value else repr(value).upper()


def _gap(rng: Random) -> str:
    return rng.choice(("", "", "", " ", "  ", "\n", "\t", "\r\n"))
