"""The pictures of experiments/ablate_heads.py (heat maps) and prune_heads.py (curves)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.comparison.pictures import draw_band
from experiments.head_pruning import SCRATCH
from training.files import save_figure

ROWS = {
    "change": "one head removed: change of loss, nats per token",
    "only_change": "all others of the layer removed: change of loss",
    "importance_token": "importance by gradient, per token",
}
SIGNIFICANT = 0.05
TITLES = {"encoder": "encoder self", "decoder": "decoder self"}


def grid_of(found: dict[str, Any], part: str, name: str) -> np.ndarray:
    """Values of a column by layer and head; NaN where a layer has fewer heads."""
    heads = found["heads"]
    chosen = [x for x, head in enumerate(heads) if head.part == part]
    shape = [1 + max(heads[x][axis] for x in chosen) for axis in (1, 2)]
    grid = np.full(shape, np.nan)
    for x in chosen:
        grid[heads[x].layer, heads[x].head] = found["columns"][name][x]
    return grid


def draw(path: Path, found: dict[str, Any]) -> None:
    """Parts side by side, one row of maps for each measure, with one scale for a row."""
    parts = list(dict.fromkeys(head.part for head in found["heads"]))
    grids = {part: grid_of(found, part, "change") for part in parts}
    widths = [max(3, grids[part].shape[1]) for part in parts]
    height = max(grid.shape[0] for grid in grids.values())
    size = (1.5 + 0.52 * sum(widths) + 0.6 * len(parts), 0.4 + len(ROWS) * (1.1 + 0.4 * height))
    figure = Figure(figsize=(max(size[0], 7.5), size[1]), layout="constrained")
    places: Any = figure.subfigures(len(ROWS), 1)
    for below, (name, title) in zip(places, ROWS.items(), strict=True):
        below.suptitle(title, x=0.01, ha="left", fontsize=9)
        row = below.subplots(1, len(parts), squeeze=False, width_ratios=widths)[0]
        bound = max(np.abs(found["columns"][name]).max(), 1e-12)
        scale: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": bound}
        if name != "importance_token":
            scale = {"cmap": "RdBu_r", "norm": TwoSlopeNorm(0, -bound, bound)}
        digits = max(0, 1 - int(np.floor(np.log10(bound))))  # two of the largest
        for axes, part in zip(row, parts, strict=True):
            image = _draw_map(axes, found, part, name, scale, digits)
            axes.set_title(TITLES.get(part, part), fontsize=9, fontweight="bold")
        below.colorbar(image, ax=list(row), pad=0.01, aspect=12).ax.tick_params(labelsize=7)
    figure.suptitle(
        f"Loss with all heads {found['loss']:.3f} nats per token; "
        f"star: adjusted p below {SIGNIFICANT:g}",
        fontsize=10,
    )
    save_figure(path, figure, dpi=130)


def curve_of(points: Sequence[Any]) -> dict[str, np.ndarray]:
    """Of the points of one method: heads kept, and the change of loss with its band.

    Several points with as many heads (random orders, penalties of gates) are one: their mean, in
    a band that holds all orders, or all their intervals.
    """
    by_kept: dict[int, list[Any]] = {}
    for point in points:
        by_kept.setdefault(point.kept, []).append(point)
    rows = []
    for kept, found in sorted(by_kept.items()):
        ends = ("change", "change") if found[0].method == "random" else ("low", "high")
        low, high = ([getattr(point, end) for point in found] for end in ends)
        rows.append((kept, np.mean([point.change for point in found]), min(low), max(high)))
    return dict(zip(("kept", "mean", "low", "high"), np.array(rows).T, strict=True))


def draw_curves(path: Path, points: Sequence[Any]) -> None:
    """Loss against heads kept. Bands: all random orders, or 95 % of the bootstrap.

    A star is a model that was trained with so many heads from the beginning (train_pruned.py).
    """
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for i, method in enumerate(dict.fromkeys(point.method for point in points)):
        curve = curve_of([point for point in points if point.method == method])
        colour = "0.45" if method == "random" else f"C{i}"
        label = "random orders, mean and range" if method == "random" else method.replace("_", " ")
        if method == SCRATCH:
            ends = abs(np.array([curve["low"], curve["high"]]) - curve["mean"])
            look: dict[str, Any] = {"color": "k", "zorder": 3, "label": label}
            axes.errorbar(curve["kept"], curve["mean"], ends, fmt="*", ms=11, capsize=3, **look)
        else:
            draw_band(axes, curve["kept"], curve, {"color": colour}, label, marker="o")
    axes.axhline(0, color="0.6", lw=0.8, ls="--")
    axes.set(xlabel="heads kept", ylabel="change of loss, nats per token")
    axes.invert_xaxis()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    save_figure(path, figure, dpi=130)


def _draw_map(
    axes: Axes, found: dict[str, Any], part: str, name: str, scale: dict, digits: int
) -> Any:
    grid = grid_of(found, part, name)
    image = axes.imshow(grid, aspect="auto", **scale)
    p = grid_of(found, part, "p") if name == "change" else np.ones_like(grid)
    for (layer, head), value in np.ndenumerate(grid):
        if np.isnan(value):
            continue
        star = p[layer, head] < SIGNIFICANT
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        axes.text(
            head,
            layer,
            f"{value:z.{digits}f}{'*' if star else ''}",
            ha="center",
            va="center",
            fontsize=7,
            fontweight="bold" if star else "normal",
            color="w" if dark else "k",
        )
    axes.set_xticks(range(grid.shape[1]))
    axes.set_yticks(range(grid.shape[0]))
    axes.set_xlabel("head", fontsize=8)
    axes.set_ylabel("layer", fontsize=8)
    axes.tick_params(labelsize=7, length=2)
    return image
