"""The chart that the README shows: requests a second of every side, a panel for each of some cases."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.speed import figures, sides
from benchmarks.speed.figures import Results

_BESIDE_THE_LIMIT = ("add-16", "sync", "get")
"""With larger bodies nobody comes near it: its line would leave no room to compare the others."""
_PANELS = {
    "add-16": "small typed POST, async",
    "sync": "small typed POST, sync",
    "get": "GET with a path parameter",
    "floats": "1,000 floats in and out",
    "100-kb": "100 kB of JSON in",
    "10-mb": "10 MB of JSON in",
}
_SHOWN = (
    *(sides.OURS, sides.OURS_QUIET, sides.VENDOR),
    *(sides.FASTAPI, sides.LITSERVE, sides.BENTOML, sides.MOSEC),
)
_COLOURS = {sides.OURS: "#1f6feb", sides.OURS_QUIET: "#7fb0f5", sides.VENDOR: "#d9822b"}
_OTHER, _INK, _FAINT = "#a9b1ba", "#24292f", "#6e7781"
_ROWS, _COLUMNS = 2, 3


def draw(results: Results, path: Path) -> None:
    """Write the chart, with a panel for each of its cases that was measured."""
    names = {case["name"] for case in results["cases"]} if "throughput" in results else set()
    panels = [name for name in _PANELS if name in names]
    if not panels:
        return
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "text.color": _INK})
    figure, grid = plt.subplots(_ROWS, _COLUMNS, figsize=(10, 5.6), dpi=160, sharey=True)
    for number, axes in enumerate(grid.flat):
        if number < len(panels):
            _panel(axes, results, panels[number])
        else:
            axes.axis("off")
    figure.suptitle(
        "Requests a second on one core", x=0.012, y=0.985, ha="left", fontsize=13, fontweight="bold"
    )
    subtitle = (
        "Dashed: the limit, an ASGI function that only sends a ready answer; in brackets, the share of it."
    )
    subtitle += f" Medians of {results['rounds']} rounds; CPython {results['python']}."
    figure.text(0.012, 0.925, subtitle, color=_FAINT, va="center")
    figure.tight_layout(rect=(0, 0, 1, 0.95), h_pad=1.6, w_pad=1.2)
    figure.savefig(path)
    plt.close(figure)


def _panel(axes: Axes, results: Results, case: str) -> None:
    limit = figures.of_case(results, case, sides.LIMIT)
    rates = {side: figures.of_case(results, case, side) for side in _SHOWN}
    longest = max((rate.median for rate in rates.values() if rate), default=1)
    with_limit = limit is not None and case in _BESIDE_THE_LIMIT
    width = limit.median if limit and with_limit else longest
    for place, (side, rate) in enumerate(rates.items()):
        if rate is None:
            axes.text(width * 0.015, place, "n/a", va="center", color=_FAINT)
            continue
        axes.barh(place, rate.median, height=0.72, color=_COLOURS.get(side, _OTHER))
        share = figures.ratio(rate, limit)
        text = _short(rate.median) + (f" ({share.median:.2f})" if share and with_limit else "")
        weight = "bold" if side == sides.OURS else "normal"
        # On a ground of its own, where it lies over the dashed line.
        axes.text(
            rate.median + width * 0.015,
            place,
            text,
            va="center",
            fontweight=weight,
            fontsize=8.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
    if limit and with_limit:
        axes.axvline(limit.median, color=_FAINT, linestyle="--", linewidth=1)
    axes.set_title(_PANELS[case], loc="left", fontsize=9.5, fontweight="bold")
    axes.set_xlim(0, width * (1.08 if with_limit else 1.25))
    axes.set_ylim(len(rates) - 0.4, -0.6)
    axes.set_yticks(range(len(rates)), [side.replace(", access", ",\naccess") for side in rates])
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    for edge in ("top", "right", "bottom"):
        axes.spines[edge].set_visible(False)
    axes.spines["left"].set_color(_OTHER)


def _short(rate: float) -> str:
    if rate >= 10_000:
        return f"{rate / 1000:.1f}k"
    return f"{rate:,.0f}" if rate >= 20 else f"{rate:.1f}"
