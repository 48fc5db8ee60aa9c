"""The picture of experiments/gradient_horizon.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.files import save_figure

FLOOR = 1e-12  # what lies below is not drawn


def draw(path: Path, found: Sequence[Any], memory: Sequence[Any], solved: float) -> None:
    """Horizons at up to three moments, radii, and what was learned at each length."""
    steps = sorted({h.step for h in found})
    moments = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    names = list(dict.fromkeys(h.model for h in found))
    colours = {name: f"C{i}" for i, name in enumerate(names)}
    tasks = list(dict.fromkeys(m.task for m in memory))
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    grid = figure.add_gridspec(2, 6)
    width = 6 // len(moments)
    shared: Axes | None = None
    for i, step in enumerate(moments):
        axes = figure.add_subplot(grid[0, i * width : (i + 1) * width], sharey=shared)
        shared = axes
        chosen = [h for h in found if h.step == step]
        for h in chosen:
            k = np.arange(1, len(h.norms) + 1)
            seen = np.where(h.norms >= FLOOR, h.norms, np.nan)
            axes.plot(k, seen, colours[h.model], label=h.model, lw=1.6)
        axes.set_title(
            "at initialisation" if step == 0 else f"after {step:,} step{'s' * (step > 1)}",
            fontsize=10,
        )
        axes.set_xlabel("k, tokens back from the loss")
        if i == 0:
            axes.set_ylabel(r"$|\partial L_T\,/\,\partial s_{T-k}|$, median of the rows")
        else:
            axes.tick_params(labelleft=False)
        axes.set(yscale="log", xlim=(0, max(len(h.norms) for h in chosen) + 1))
        axes.set_ylim(bottom=FLOOR)
        axes.grid(alpha=0.3)
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=6, frameon=False)
    panels = 1 + len(tasks)
    width = 6 // panels
    _draw_radii(figure.add_subplot(grid[1, :width]), found, moments, colours)
    for i, task in enumerate(tasks, 1):
        axes = figure.add_subplot(grid[1, i * width : (i + 1) * width])
        _draw_memory(axes, [m for m in memory if m.task == task], colours, solved)
        axes.set_title(task, fontsize=10)
    figure.suptitle("How far back the gradient reaches, and how long a network remembers")
    save_figure(path, figure, dpi=130)


def _draw_radii(axes: Axes, found: Sequence[Any], moments: list[int], colours: dict) -> None:
    """One row a gate: from a ring at the first moment to a dot at the last."""
    ends = [
        {(h.model, r.layer, r.gate): r.radius for h in found if h.step == step for r in h.radii}
        for step in (moments[0], moments[-1])
    ]
    rows = list(ends[0])
    several = len({layer for _, layer, _ in rows}) > len({model for model, _, _ in rows})
    for y, key in enumerate(rows):
        before, after = ends[0][key], ends[1][key]
        colour = colours[key[0]]
        axes.plot([before, after], [y, y], colour, lw=1, alpha=0.6)
        axes.plot(before, y, "o", mfc="white", mec=colour, ms=6)
        axes.plot(after, y, "o", color=colour, ms=5)
    labels = [
        f"{layer.split('/')[-2]} {gate}" if several else f"{model}  {gate}"
        for model, layer, gate in rows
    ]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="0.5", lw=0.8, ls="--")
    axes.set_xlabel("spectral radius: first (ring), last (dot)")
    axes.set_title("recurrent matrices", fontsize=10)
    axes.grid(alpha=0.3, axis="x")


def _draw_memory(axes: Axes, memory: Sequence[Any], colours: dict, solved: float) -> None:
    lengths = sorted({m.length for m in memory})
    for name in dict.fromkeys(m.model for m in memory):
        chosen = [m for m in memory if m.model == name]
        x, y = [m.length for m in chosen], [max(m.error, 1e-3) for m in chosen]
        axes.plot(x, y, "o-", color=colours[name], ms=4, lw=1.4)
    axes.axhline(solved, color="0.5", lw=0.8, ls="--")
    place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    axes.annotate("solved", (1, solved), (-3, 3), ha="right", fontsize=8, **place)
    axes.set(
        xscale="log", yscale="log", xlabel="T, steps to remember over", ylabel="error / chance"
    )
    axes.set_xticks(lengths, [str(n) for n in lengths])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
