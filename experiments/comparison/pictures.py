"""The pictures of a comparison."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.files import save_figure

# Okabe & Ito (2008): told apart by most eyes, and in grey by their styles.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
STYLES = ("-", "--", "-.", ":")
AXIS_NAMES = {
    "step": "steps",
    "tokens": "predicted tokens",
    "flops": "model FLOPs",
    "seconds": "seconds of training",
}


def draw_all(folder: Path, numbers: Mapping[str, Any]) -> dict[str, Path]:
    """Writes the PNGs; returns them by name."""
    looks = look_of([config["label"] for config in numbers["configs"]])
    drawn = {"curves": draw_curves(numbers, looks), "tokens": draw_tokens(numbers, looks)}
    if numbers["horizon"]:
        drawn["horizon"] = draw_horizon(numbers, looks)
    paths = {}
    for name, figure in drawn.items():
        paths[name] = folder / f"{name}.png"
        save_figure(paths[name], figure, dpi=140)
    return paths


def look_of(labels: list[str]) -> dict[str, dict[str, Any]]:
    """Colour and style of each config."""
    return {
        label: {"color": COLOURS[i % len(COLOURS)], "ls": STYLES[i // len(COLOURS) % len(STYLES)]}
        for i, label in enumerate(labels)
    }


def draw_curves(numbers: Mapping[str, Any], looks: Mapping[str, Any]) -> Figure:
    """Validation loss against steps, tokens, FLOPs and seconds."""
    figure = Figure(figsize=(10, 7.2), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True).flat
    target, floor = numbers["time_to_target"]["target"], numbers["floor"]
    for axes, (axis, curves) in zip(panels, numbers["curves"].items(), strict=True):
        for run in numbers["runs"]:
            seen = [point for point in run["points"] if point["split"] == "validation"]
            x, y = ([point[key] for point in seen] for key in (axis, "loss"))
            axes.plot(x, np.array(y, float), lw=0.6, alpha=0.5, **looks[run["label"]])
        for label, curve in curves.items():
            draw_band(axes, curve["x"], curve, looks[label], label)
        axes.axhline(target, color="0.45", lw=0.9, ls=":", label=f"target {target:.4g}")
        if floor:
            name = f"true model on these sentences {floor['per_token']:.4g}"
            axes.axhline(floor["per_token"], color="0.2", lw=1.1, ls=(0, (6, 3)), label=name)
        if axis == numbers_axis(numbers):
            axes.axvline(numbers["match"]["at"], color="0.45", lw=0.9, label="cut")
        axes.set_xlabel(AXIS_NAMES[axis])
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(lambda value, _: short(value))
        style(axes)
    for axes in figure.axes[::2]:
        axes.set_ylabel("validation loss, nats per token")
    legend(figure)
    return figure


def numbers_axis(numbers: Mapping[str, Any]) -> str | None:
    """The axis along which the runs are cut, if they are."""
    if numbers["match"]["status"] != "cut":
        return None
    return {"walltime": "seconds"}.get(numbers["match"]["by"], numbers["match"]["by"])


def draw_tokens(numbers: Mapping[str, Any], looks: Mapping[str, Any]) -> Figure:
    """Final loss against the place in the context, and against the frequency of the token."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, bins in numbers["by_position"].items():
        x = np.sqrt(np.array(bins["first"]) * np.array(bins["last"]))
        draw_band(left, x, bins, looks[label], label, marker="o")
    if numbers["floor"]:
        bins = next(iter(numbers["by_position"].values()))
        x = np.sqrt(np.array(bins["first"]) * np.array(bins["last"]))
        floor = np.array(numbers["floor"]["by_position"])
        ends = zip(bins["first"], bins["last"], strict=True)
        least = [floor[first - 1 : last].mean() for first, last in ends]
        left.plot(x, least, color="0.2", lw=1.1, ls=(0, (6, 3)), label="true model")
    left.set(xscale="log", xlabel="position of the token in its context")
    left.set_ylabel("validation loss, nats per token")
    last = max(bins["last"][-1] for bins in numbers["by_position"].values())
    powers = [2**i for i in range(int(last).bit_length())]
    left.minorticks_off()
    left.set_xticks(powers, [str(power) for power in powers])
    frequencies = numbers["by_frequency"]
    firsts = {first for bins in frequencies.values() for first in bins["first"]}
    names = {
        first: name
        for bins in frequencies.values()
        for first, name in zip(bins["first"], bin_names(bins), strict=True)
    }
    places = {names[first]: i for i, first in enumerate(sorted(firsts))}
    for label, bins in frequencies.items():
        x = np.array([places[name] for name in bin_names(bins)], float)
        draw_band(right, x, bins, looks[label], label, marker="o")
    right.set_xticks(list(places.values()), list(places))
    right.set_xlim(-0.4, len(places) - 0.6)
    right.set_xlabel("times that an epoch of training has the token")
    for axes in (left, right):
        style(axes)
    legend(figure)
    return figure


def draw_horizon(numbers: Mapping[str, Any], looks: Mapping[str, Any]) -> Figure:
    """The gradient against the distance, and what share of it lies within a distance."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, found in numbers["horizon"].items():
        k = np.arange(1, len(found["mean"]) + 1)
        draw_band(left, k, found, looks[label], label)
        right.plot(k, found["share"], lw=1.6, label=label, **looks[label])
    left.set(yscale="log", ylabel=r"$|\partial L_T\,/\,\partial s_{T-k}|$, median of the rows")
    right.set(ylim=(0, 1.02), ylabel="share of all norms within k")
    for axes in (left, right):
        axes.set_xlabel("k, tokens back from the loss")
        style(axes)
    legend(figure)
    return figure


def bin_names(bins: Mapping[str, Any]) -> list[str]:
    """'0', '1-9', '10-99', '1k-10k', ..."""
    ends = zip(bins["first"], bins["last"], strict=True)
    return [short(a) if a == b else f"{short(a)}\u2013{short(b + (b > 999))}" for a, b in ends]


def short(number: float) -> str:
    """'999', '10k', '2.5M': three digits at most."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            value = int(number / factor * 10) / 10
            return f"{value:g}{letter}" if value < 100 else f"{int(value)}{letter}"
    return f"{number:g}"


def draw_band(
    axes: Axes, x: Any, band: Mapping[str, Any], look: Mapping[str, Any], label: str, **more: Any
) -> None:
    """A mean with its band; points where they are few."""
    if len(x) < 30:
        more.setdefault("marker", ".")
    axes.plot(x, band["mean"], lw=1.6, ms=4, label=label, **look, **more)
    axes.fill_between(x, band["low"], band["high"], color=look["color"], alpha=0.18, lw=0)


def style(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02)


def legend(figure: Figure) -> None:
    """One legend above all panels."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    columns = min(len(entries), 4)
    figure.legend(
        entries.values(), entries.keys(), loc="outside upper center", ncols=columns, frameon=False
    )
