"""What a run shows at its end: a picture of its learning and a page of text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training import goodput
from training.files import save_figure
from training.metrics import read_metrics


def draw_curve(directory: Path) -> Path:
    """Draws perplexity against tokens seen, training and validation, into curve.png.

    Where nothing has a perplexity, as in regression, it is the loss.
    """
    from matplotlib.figure import Figure  # here, because it takes half a second to import

    rows = read_metrics(directory)
    measure = "perplexity" if any(row.get("perplexity") for row in rows) else "loss"
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    styles = {"train": ("C0", "training (running mean)"), "validation": ("C1", "validation")}
    for split, (colour, label) in styles.items():
        chosen = [row for row in rows if row["split"] == split and row.get(measure)]
        x = [row["tokens"] for row in chosen]
        y = [row[measure] for row in chosen]
        marker = "o" if split == "validation" else None
        axes.plot(x, y, colour, label=label, marker=marker, markersize=3, linewidth=1.5)
        if chosen:
            axes.annotate(f"{y[-1]:.3g}", (x[-1], y[-1]), (4, 0), textcoords="offset points")
    axes.set_yscale("log")
    axes.set_xlabel("target tokens seen")
    axes.set_ylabel(f"{measure} per token" if measure == "perplexity" else measure)
    axes.set_title(directory.name)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    axes.margins(x=0.08)
    path = directory / "curve.png"
    save_figure(path, figure, dpi=150)
    return path


def final_text(result: Mapping[str, Any], directory: Path) -> str:
    """Scores with their signatures, samples and paths, for a person to read."""
    lines = [""]
    for sample in result.get("samples", []):
        lines += [f"{name + ':':<11}{text}" for name, text in sample.items()] + [""]
    split = result["split"]
    for name, value in result["scores"].items():
        signature = result.get("notes", {}).get(f"{name}_signature", "")
        lines.append(f"{split} {name:<12} {value:10.4g}   {signature}".rstrip())
    if "goodput" in result:
        lines.append(f"wall clock        {goodput.summary(result['goodput']['seconds'])}")
    lines += [f"run directory     {directory}", f"learning curve    {directory / 'curve.png'}"]
    return "\n".join(lines)
