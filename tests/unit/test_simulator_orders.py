"""Orders look as the upstream's do, and their bytes say the same in every style."""

import json
import re
from random import Random
from typing import Any

import pytest

from relay.simulator.lifecycle import LABELS, Kind, Life, stages
from relay.simulator.orders import Style, at_stage, new_order, repriced, serialise

CREATED_MS = 1_790_000_000_001


def finished(kind: Kind, seed: int = 1) -> dict[str, Any]:
    rng = Random(seed)
    order = new_order(kind, CREATED_MS, rng)
    for stage in stages(kind, Life.FINISHED, rng):
        order = at_stage(order, stage, CREATED_MS + 5000, rng)
    return order


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("kind", Kind)
def test_an_order_is_three_to_eight_kilobytes_and_reads_back_as_itself(kind: Kind, style: Style) -> None:
    for seed in range(40):
        order = finished(kind, seed)
        body = serialise(order, style, Random(seed))
        assert json.loads(body) == order
        assert 3000 <= len(body) <= 8192


def test_members_by_kind() -> None:
    cex, private, dex = (finished(kind) for kind in (Kind.CEX, Kind.PRIVATE, Kind.DEX))
    assert {"in", "swapName", "transactionHash", "outTransactionOutHash"} <= cex.keys()
    assert "outStatus" not in cex
    assert private["anonymous"] is True
    assert not {"in", "swapName"} & private.keys()
    assert private["outStatus"] == 5
    assert dex["isDex"] is True
    assert dex["inSymbol"] == dex["inToken"]["id"] != dex["inToken"]["symbol"]
    assert isinstance(json.loads(dex["metadata"]), dict)


def test_particulars() -> None:
    order = finished(Kind.CEX)
    assert re.fullmatch(r"[2-9A-HJ-NP-Za-km-z]{22}", order["houdiniId"])
    assert order["created"] == "2026-09-21T14:13:20.001Z"
    assert order["validUntil"].isdigit()
    assert order["statusLabel"] == LABELS[4] == "FINISHED"
    assert order["displayStatus"] == "SWAP_COMPLETED"


def test_a_reprice_moves_prices_and_nothing_that_is_a_status() -> None:
    order = finished(Kind.PRIVATE)
    moved = repriced(order, CREATED_MS + 9000, Random(3))
    different = {name for name in order if order[name] != moved[name]}
    assert different == {"inToken", "outToken", "inAmountUsd", "outAmountUsd", "modified"}


def test_styles_really_are_odd() -> None:
    order = finished(Kind.CEX) | {"inAmount": 2.53e-05, "outAmount": 1e5}
    plain, escaped = (serialise(order, style, Random(1)) for style in (Style.PLAIN, Style.ESCAPED))
    odd = serialise(order, Style.ODD, Random(1))
    assert b'"inAmount":2.53e-05' in plain
    assert b"https:\\/\\/" in escaped
    assert escaped.isascii()
    assert b"1.0E+05" in odd
    assert b"2.53E-05" in odd
    assert list(json.loads(odd)) != list(order)
    assert serialise(order, Style.ODD, Random(1)) == odd
