"""The picture of experiments/scores_by_length.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.comparison.pictures import bin_names, draw_band, legend, look_of, style
from training.files import save_figure

AXIS_NAMES = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "phoneme_error_rate": "phoneme error rate, %",
    "length_ratio": "length of output / reference",
}


def draw(path: Path, numbers: Mapping[str, Any]) -> None:
    """A panel for each measure, a line for each group; below, how many sentences a bin holds."""
    groups, bins = numbers["groups"], numbers["bins"]
    looks = look_of([group["label"] for group in groups])
    names = list(groups[0]["scores"])
    x = np.arange(len(bins["first"]))
    figure = Figure(figsize=(5 * len(names), 4.6), layout="constrained")
    panels = figure.subplots(2, len(names), sharex=True, height_ratios=(5, 1), squeeze=False)
    ranges = bin_names(bins)
    for name, (upper, lower) in zip(names, panels.T, strict=True):
        for group in groups:
            num = len(group["seeds"])
            label = group["label"] + (f" ({num} seeds)" if num > 1 else "")
            ends = ("mean", "low", "high")
            band = {end: np.array(group["scores"][name][end], float) for end in ends}
            draw_band(upper, x, band, looks[group["label"]], label, marker="o")
        if name == "length_ratio":
            upper.axhline(1, color="0.45", lw=0.9, ls=":")
        else:
            upper.set_ylim(bottom=0)
        upper.set_ylabel(AXIS_NAMES[name])
        bars = lower.bar(x, bins["sentences"], color="0.8", width=0.7)
        lower.bar_label(bars, fmt="{:,.0f}", fontsize=8, color="0.35")
        lower.set_yticks([])
        lower.set_xticks(x, ranges)
        lower.set_xlabel(f"{numbers['unit']} of the source; bars: how many examples")
        style(upper)
        style(lower)
        lower.grid(False)
        lower.margins(y=0.35)
        lower.spines["left"].set_visible(False)
    over = {group["band_over"] for group in groups}
    most = over.pop() if len(over) == 1 else "sentences, and over seeds where a line has several"
    note = f"Bands: {numbers['level']:.0%} bootstrap over {most}."
    figure.supxlabel(note, fontsize=8, color="0.35")
    legend(figure)
    save_figure(path, figure, dpi=140)
