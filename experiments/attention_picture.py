"""The maps of all heads on one sentence as a still picture, PNG or PDF."""

import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.attention_page import unpack
from training.files import save_figure

FONTS = ("DejaVu Sans", "Noto Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans Arabic")
SIDES = {
    "encoder": ("source", "source"),
    "decoder": ("reads", "reads"),
    "cross": ("writes", "source"),
    "alignment": ("writes", "source"),
}
MOST_LABELS = 40  # with more tokens they would not be legible
LONGEST = 12  # letters of a token
SIZE = 1.7  # inches of a map
MOST_ACROSS = 4  # maps of several runs in a line


def maps_of(payload: dict[str, Any], sentence: int = 0, run: int = 0) -> list[np.ndarray]:
    """The weights of each head of a run on a sentence, (queries, keys), in the order of heads."""
    view = payload["sentences"][sentence]["views"][run]
    shapes = [
        tuple(len(view[side]) for side in SIDES[head["part"]])
        for head in payload["runs"][run]["heads"]
    ]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    flat = np.split(unpack(view["weights"]), ends)
    return [part.reshape(shape) for part, shape in zip(flat[:-1], shapes, strict=True)]


class Panel(NamedTuple):
    """One map, and what it is of."""

    run: int
    part: str
    layer: int
    head: int
    map_TS: np.ndarray


def lines_of(payload: dict[str, Any]) -> list[list[Panel]]:
    """A line of panels for each layer of each part of each run; runs of a single line, such as
    recurrent ones, share lines."""
    lines: list[list[Panel]] = []
    shared = False
    for run, about in enumerate(payload["runs"]):
        rows: dict[tuple, list[Panel]] = {}
        for head, map_TS in zip(about["heads"], maps_of(payload, run=run), strict=True):
            panel = Panel(run, head["part"], head["layer"], head["head"], map_TS)
            rows.setdefault((panel.part, panel.layer), []).append(panel)
        single = next(iter(rows.values())) if len(rows) == 1 else []
        if single and shared and len(lines[-1]) + len(single) <= MOST_ACROSS:
            lines[-1] += single
        else:
            lines += rows.values()
        shared = bool(single)
    return lines


def draw(path: Path, payload: dict[str, Any]) -> None:
    """Draws the first sentence. The kind of file follows from its name, .png or .pdf."""
    lines, runs = lines_of(payload), payload["runs"]
    width = max(map(len, lines))
    known = {font.name for font in font_manager.fontManager.ttflist}
    with rc_context({"font.family": [name for name in FONTS if name in known]}):
        across, down = SIZE * width + 1, SIZE * len(lines) + 1
        figure = Figure(figsize=(across, down))
        edges = {"left": 0.8 / across, "right": 1 - 0.1 / across, "bottom": 0.7 / down}
        grid = {**edges, "top": 1 - 0.5 / down, "hspace": 0.5}
        grid["wspace"] = 0.3 if any(line[0].run != line[-1].run for line in lines) else 0.1
        all_axes = figure.subplots(len(lines), width, squeeze=False, gridspec_kw=grid)
        for axes in all_axes.flat:
            axes.set_axis_off()
        for axes_of_line, line in zip(all_axes, lines, strict=True):
            for axes, panel in zip(axes_of_line, line, strict=False):
                view = payload["sentences"][0]["views"][panel.run]
                from_to = [view[side] for side in SIDES[panel.part]]
                _draw_map(axes, panel.map_TS, from_to, labelled=panel.head == 0)
                whose = f"{runs[panel.run]['name']}: " if len(runs) > 1 else ""
                name = f"{whose}{panel.part} {panel.layer}.{panel.head}"
                axes.set_title(name, fontsize=6, parse_math=False)
        if len(runs) == 1:
            figure.suptitle(runs[0]["name"], fontsize=9, y=1 - 0.15 / down, parse_math=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # drawn as a box
            save_figure(path, figure, dpi=160)


def _draw_map(axes: Axes, map_TS: np.ndarray, from_to: list[list[str]], labelled: bool) -> None:
    axes.set_axis_on()
    # The root, as in the page: small weights are seen.
    axes.imshow(np.sqrt(map_TS), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set(xticks=[], yticks=[])
    options: dict[str, Any] = {"fontsize": 4, "parse_math": False}  # a token may hold a $
    if labelled and max(map(len, from_to)) <= MOST_LABELS:
        rows, columns = ([text[:LONGEST] for text in texts] for texts in from_to)
        axes.set_yticks(range(len(rows)), rows, **options)
        axes.set_xticks(range(len(columns)), columns, rotation=90, **options)
        axes.tick_params(length=0, pad=1)
