"""`make plot`: the figures that the throughput case left behind, as a picture for docs/benchmarks.md."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

SCRIPT, RELAY = "#9aa4b2", "#2f6f4f"


def main() -> None:
    try:
        figures = json.loads(Path(sys.argv[1]).read_text())
    except FileNotFoundError:
        sys.exit(f"{sys.argv[1]}: no figures yet; measure them first: python -m bench throughput")
    picture, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    _rates(left, figures["per_second"])
    _latencies(right, figures["latency_ms"])
    picture.savefig(sys.argv[2], dpi=110, metadata={"Software": None})


def _rates(axes: Any, rates: dict[str, float]) -> None:
    names = list(reversed(rates))
    bars = axes.barh(
        names, [rates[name] for name in names], color=[SCRIPT if "script" in one else RELAY for one in names]
    )
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.set_title("updates per second, at most")
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def _latencies(axes: Any, latencies: dict[str, dict[str, list[float]]]) -> None:
    groups = [(rate, who) for rate in latencies for who in ("script", "relay")]
    places = [index + 0.4 * (index // 2) for index in range(len(groups))]
    colours = [SCRIPT if who == "script" else RELAY for _, who in groups]
    lower = [latencies[rate][who][0] for rate, who in groups]
    upper = [latencies[rate][who][1] for rate, who in groups]
    axes.bar(places, upper, color=colours, alpha=0.35)
    axes.bar(places, lower, color=colours)
    axes.set_yscale("log")
    axes.set_xticks(places, [f"{who}\n{rate}/s" for rate, who in groups], fontsize=8)
    axes.set_title("ms from frame to POST: p50 solid, p99 pale")
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
