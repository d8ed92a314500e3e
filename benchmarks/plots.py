"""The plots of the README, as SVG. The same results give the same files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contestants import DEFAULT, OURS, PEERS
from benchmarks.fanout import Record, Row, rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parent / "plots"
# Each stands out from white and from GitHub's dark background alike.
_GREY = "#7d7d7d"
_COLOURS = {"asyncio": "#3b82c4", "uvloop": "#d9730d", "": "#7d7d7d"}
_MARKS = {"asyncio": "o", "uvloop": "D", "": "s"}
_NAMES = {"asyncio": "asyncio", "uvloop": "uvloop", "": "no Python event loop"}


def draw(records: Sequence[Record], measured_on: str) -> list[Path]:
    """Write them; which files."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update(
        {
            "svg.hashsalt": "dispatchkit",
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans", "Verdana"],  # every text of an SVG repeats them
            "font.size": 12,
            "text.color": _GREY,
            "axes.facecolor": "none",
            "axes.labelcolor": _GREY,
            "axes.edgecolor": _GREY,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": _GREY,
            "ytick.color": _GREY,
            "grid.color": _GREY,
            "grid.alpha": 0.3,
            "legend.frameon": False,
        }
    )
    FOLDER.mkdir(exist_ok=True)
    made = rows(records)
    return [_throughput(made, measured_on), _cpu(made, measured_on)] if made else []


def _throughput(made: Sequence[Row], measured_on: str) -> Path:
    figure = _by_peer(
        made,
        lambda row, base: (row.ratio * base, row.least * base, row.most * base),
        lambda row: row.rate,
        "requests a second, as a multiple of default aiohttp on asyncio (log scale; more is better)",
    )
    return _save(figure, "throughput", "Throughput of a fan-out", measured_on)


def _cpu(made: Sequence[Row], measured_on: str) -> Path:
    figure = _by_peer(
        made,
        lambda row, base: (row.cpu_ratio * base, row.cpu_least * base, row.cpu_most * base),
        lambda row: row.cost,
        "client's CPU time a request, as a multiple of default aiohttp on asyncio (log scale; less is better)",
    )
    return _save(figure, "cpu", "CPU time a request", measured_on)


def _by_peer(
    made: Sequence[Row],
    values: Callable[[Row, float], tuple[float, float, float]],
    absolute: Callable[[Row], float],
    label: str,
) -> Figure:
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    counts = sorted({row.workers for row in made})
    names = [name for name in PEERS if any(row.peer == name for row in made)]
    figure: Figure
    figure, grid = plt.subplots(
        1, len(counts), sharex=True, sharey=True, squeeze=False, figsize=(4.2 * len(counts) + 1, 0.42 * len(names) + 2)
    )
    for axes, workers in zip(grid[0], counts, strict=True):
        these = [row for row in made if row.workers == workers]
        default = {row.loop: absolute(row) for row in these if row.peer == DEFAULT}
        for loop, offset in (("asyncio", -0.16), ("uvloop", 0.16), ("", 0.0)):
            # A row's ratio is to the same loop; one scale for all needs one base.
            base = default[loop or "asyncio"] / default["asyncio"] if loop in {"", *default} else 1.0
            here = [(names.index(row.peer) + offset, *values(row, base)) for row in these if row.loop == loop]
            if here:
                places, middles, lows, highs = zip(*here, strict=True)
                axes.hlines(places, lows, highs, color=_COLOURS[loop], linewidth=3, alpha=0.45)
                axes.plot(middles, places, _MARKS[loop], color=_COLOURS[loop], markersize=7)
                for place, middle in zip(places, middles, strict=True):
                    _write(axes, 0.83 if loop == "asyncio" else 0.99, round(place), f"{middle:.2g}", _COLOURS[loop])
        for place in {*range(len(names))} - {names.index(row.peer) for row in these}:
            _write(axes, 0.99, place, "did not finish", _GREY)
        axes.axvline(1, color=_GREY, linewidth=1)
        axes.set_title(f"{workers:,} workers", color=_GREY, fontsize=12)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator([0.001, 0.01, 0.1, 1, 10, 100, 1000]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.tick_params(axis="x", labelsize=10)
        axes.grid(axis="x")
        axes.set_yticks(range(len(names)), names)
        for text in axes.get_yticklabels():
            if text.get_text() == OURS:
                text.set_fontweight("bold")
    grid[0][0].invert_yaxis()
    low, high = grid[0][0].get_xlim()
    grid[0][0].set_xlim(low, high * (high / low) ** 0.35)  # room for the numbers
    figure.supxlabel(label, fontsize=12)
    loops = [loop for loop in _NAMES if any(row.loop == loop for row in made)]
    handles = [plt.Line2D([], [], color=_COLOURS[loop], marker=_MARKS[loop], linestyle="") for loop in loops]
    figure.legend(handles, [_NAMES[loop] for loop in loops], loc="outside upper right", ncols=3, fontsize=11)
    return figure


def _write(axes: Axes, across: float, place: int, words: str, colour: str) -> None:
    """Into the margin on the right of a row."""
    at = axes.get_yaxis_transform()
    axes.text(across, place, words, va="center", ha="right", fontsize=10.5, color=colour, transform=at)


def _save(figure: Figure, name: str, title: str, measured_on: str) -> Path:
    from matplotlib import pyplot as plt

    figure.suptitle(f"{title}\n{measured_on}", fontsize=12, x=0.01, ha="left")
    figure.set_layout_engine("constrained")
    path = FOLDER / f"{name}.svg"
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    # Comments and indents are a fifth of it.
    path.write_text(re.sub(r"\n *", "\n", re.sub(r" *<!--.*?-->\n", "", path.read_text("utf-8"))), encoding="utf-8")
    return path
