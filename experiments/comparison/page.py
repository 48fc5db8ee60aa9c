"""The report of a comparison as one HTML file that needs no network, and its tables as files."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.curves import AXES
from errors import python_command
from experiments.comparison.markup import (
    STYLE,
    data_uri,
    escape,
    image,
    number,
    short_number,
    table,
)
from experiments.comparison.pictures import AXIS_NAMES, bin_names, short
from training.files import storage_errors, write_atomic, write_csv


def write_tables(folder: Path, numbers: Mapping[str, Any]) -> None:
    """numbers.json, and points.csv with every row of training and validation."""
    text = json.dumps(numbers, indent=1, allow_nan=False) + "\n"
    with storage_errors("write the report to", folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "numbers.json", text)
        names = list(numbers["runs"][0]["points"][0])
        rows = (
            [run["label"], run["seed"], *map(point.get, names)]
            for run in numbers["runs"]
            for point in run["points"]
        )
        write_csv(folder / "points.csv", ["label", "seed", *names], rows)


def write_page(folder: Path, numbers: Mapping[str, Any], pictures: Mapping[str, Path]) -> Path:
    """report.html, with the pictures in it."""
    images = {name: data_uri(path.read_bytes()) for name, path in pictures.items()}
    path = folder / "report.html"
    with storage_errors("write the report to", folder):
        write_atomic(path, page(numbers, images))
    return path


def page(numbers: Mapping[str, Any], images: Mapping[str, str]) -> str:
    """The whole document. Every text is escaped, and no script, font or link is let in."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'"
    labels = [config["label"] for config in numbers["configs"]]
    title = f"Learning curves: {', '.join(labels)}"
    body = [
        f"<h1>{escape(title)}</h1>",
        *final_section(numbers),
        "<h2>Learning curves</h2>",
        image(images["curves"], "Validation loss against steps, tokens, FLOPs and seconds"),
        "<p class=quiet>Each thin line is a run. The thick one is the mean over seeds where all of "
        "them are known, the band a bootstrap over seeds (with one seed there is none).</p>",
        *budget_section(numbers),
        *target_section(numbers),
        *horizon_section(numbers, images),
        "<h2>Loss by position in the context, and by frequency of the token</h2>",
        image(images["tokens"], "Loss by position and by frequency"),
        *frequency_section(numbers),
        *difference_section(numbers, labels),
        *environment_section(numbers),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def final_section(numbers: Mapping[str, Any]) -> list[str]:
    """The verdict: final losses, differences, and what so few seeds can say."""
    final, floor = numbers["final"], numbers["floor"]
    several = any(len(row["per_seed"]) > 1 for row in final["rows"])
    header = ["config", "seeds", "mean", "band over seeds (95 %)", "deviation"]
    rows = []
    for row in sorted(final["rows"], key=lambda row: row["mean"]):
        band = f"{row['low']:.4f} to {row['high']:.4f}" if len(row["per_seed"]) > 1 else "\u2013"
        cells = [row["label"], len(row["per_seed"]), number(row["mean"]), band]
        cells.append(number(row["deviation"]))
        rows.append([*cells, *([number(row["mean"] - floor["per_token"])] if floor else [])])
    if floor:
        header.append("above the true model")
    where = "where the runs are cut" if numbers["match"]["status"] == "cut" else "at the end"
    out = [f"<h2>Validation loss {where}, nats per token</h2>", table(header, rows)]
    if floor:
        out.append(
            f"<p>The model that made the language loses {floor['per_token']:.4f} nats per token on "
            "just these sentences, and on endless text, where nothing can lose less, "
            f"{floor['entropy']:.4f} (its entropy; simulated, standard error "
            f"{floor['standard_error']:.1g}).</p>"
        )
    if several and final["pairs"]:
        header = ["difference", "mean", "95 % interval", "p", "seeds"]
        pairs = [
            [*difference_cells(pair), number(pair["p"], 3), pair["num_pairs"]]
            for pair in final["pairs"]
        ]
        out.append(table(header, pairs))
    out.append(f"<p class=quiet>{escape(final['said'])}</p>")
    return [*out, *example_section(numbers["examples"])]


def difference_cells(pair: Mapping[str, Any]) -> list[str]:
    """Which two, the mean of their difference, and its interval."""
    return [
        f"{pair['first']} \u2212 {pair['second']}",
        f"{pair['mean']:+.4f}",
        f"{pair['low']:+.4f} to {pair['high']:+.4f}",
    ]


def example_section(found: Mapping[str, Any] | None) -> list[str]:
    """Differences of these very models over the rows of the split."""
    if not found:
        return []
    rows = [[*difference_cells(pair), number(pair["p"])] for pair in found["pairs"]]
    return [
        table(["difference of the final models", "mean", "95 % interval over rows", "p"], rows),
        f"<p class=quiet>Paired bootstrap over the {found['num_rows']:,} rows of the validation "
        f"split ({found['num_tokens']:,} tokens), means over seeds, p adjusted for the number of "
        "pairs: whether these very models would differ on more text of this kind. It says nothing "
        "about other seeds, which the table above does.</p>",
    ]


def budget_section(numbers: Mapping[str, Any]) -> list[str]:
    """What each config has used, and whether that is the same."""
    header = ["config", "model", "non-embedding parameters", "all parameters", *AXIS_NAMES.values()]
    rows = []
    for c in numbers["configs"]:
        sizes = [f"{c['params']:,.0f}", f"{c['num_parameters']:,}", f"{c['step']:,.0f}"]
        work = [short(c["tokens"]), f"{c['flops']:.3g}", f"{c['seconds']:.4g}"]
        rows.append([c["label"], c["model"], *sizes, *work])
    return ["<h2>Budgets</h2>", verdict(numbers["match"]), table(header, rows), *measured(numbers)]


def measured(numbers: Mapping[str, Any]) -> list[str]:
    """The seconds by which steps were chosen, if they were."""
    found = numbers["match"]["measured_seconds_per_step"]
    each = "; ".join(f"{label}: {seconds:.4g} s" for label, seconds in found.items())
    if not found:
        return []
    return [f"<p>Steps were chosen by seconds per step, measured before: {escape(each)}.</p>"]


def verdict(match: Mapping[str, Any]) -> str:
    """One paragraph on the budget contract."""
    if match["status"] == "none":
        return '<p class="warn">No budget was asked to be the same: compare with care.</p>'
    apart = f"{match['spread']:.2%} apart"
    if match["status"] == "matched":
        return f"<p>Matched by {escape(match['by'])}: all runs are at most {apart}.</p>"
    if match["status"] == "cut":
        return (
            f'<p class="warn">Cut at the common budget: runs were {apart} by '
            f"{escape(match['by'])}, and are compared at {match['at']:.6g}, between their "
            "points of validation. The learning rate of the longer ones had not come to its end "
            "there.</p>"
        )
    return (
        f'<p class="warn"><strong>Unmatched</strong>: by {escape(match["by"])} the runs are '
        f"{apart}. A difference may be that of the budgets.</p>"
    )


def target_section(numbers: Mapping[str, Any]) -> list[str]:
    """When each config reaches the target, by axis."""
    target = numbers["time_to_target"]
    header = ["config", "reached by", *AXIS_NAMES.values()]
    rows = []
    for label, axes in target["configs"].items():
        first = axes["step"]
        cells = [label, f"{first['reached']} of {len(first['per_seed'])} seeds"]
        for axis in AXES:
            mean, deviation = axes[axis]["mean"], axes[axis]["deviation"]
            spread = "" if deviation is None else f" \u00b1 {short_number(deviation)}"
            cells.append("not reached" if mean is None else f"{short_number(mean)}{spread}")
        rows.append(cells)
    chosen = " (the worst of the final means)" if target["is_default"] else ""
    return [
        f"<h2>Budget to a loss of {target['target']:.4g}{chosen}</h2>",
        table(header, rows),
        "<p class=quiet>The first point at or below the target, on a straight line from the "
        "point before; mean and standard deviation of the seeds that reach it.</p>",
    ]


def horizon_section(numbers: Mapping[str, Any], images: Mapping[str, str]) -> list[str]:
    """How far back gradients reach, for language models."""
    if not numbers["horizon"]:
        return []
    rows = [
        [label, *(f"{k:.3g}" for k in found["within"].values())]
        for label, found in numbers["horizon"].items()
    ]
    shares = next(iter(numbers["horizon"].values()))["within"]
    return [
        "<h2>Gradient horizon</h2>",
        image(images["horizon"], "Gradient of the last token's loss against the distance"),
        table(["config", *(f"{float(s):.0%} within" for s in shares)], rows),
        "<p class=quiet>Norms of the gradient of the last token's loss with respect to what the "
        "final model carries on k tokens before: the states of a recurrent network, the residual "
        "stream of a Transformer; median over rows of validation text, which a model reads on from "
        "one document to the next. Within so many tokens lies so much of the sum of all norms.</p>",
    ]


def frequency_section(numbers: Mapping[str, Any]) -> list[str]:
    """How many tokens stand behind each bin."""
    first = next(iter(numbers["by_frequency"].values()))
    counts = [
        f"{name}: {count:,}" for name, count in zip(bin_names(first), first["count"], strict=True)
    ]
    total = sum(first["count"])
    return [
        f"<p class=quiet>{total:,} predicted tokens of the validation split under the final model; "
        f"by their number in training: {escape('; '.join(counts))}.</p>"
    ]


def difference_section(numbers: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    """Fields of the configs that are not the same."""
    rows = [
        [row["field"], *(v if isinstance(v, str) else json.dumps(v) for v in row["values"])]
        for row in numbers["differences"]
    ]
    return ["<h2>Differences of the configs</h2>", table(["field", *labels], rows, texts=True)]


def environment_section(numbers: Mapping[str, Any]) -> list[str]:
    """Machines, versions, commits; the runs; and how to make this page again."""
    rows = []
    for found in numbers["environments"]:
        here = found["environment"]
        versions = ", ".join(f"{name} {v}" for name, v in (here["versions"] or {}).items())
        commit = f"{here['commit'] or '?'}{' with changes' if here['dirty'] else ''}"
        machine = f"{here['host']}: {here['cores']} cores, {here['platform']}"
        devices = ", ".join(here["devices"] or [])
        rows.append(["; ".join(found["runs"]), machine, devices, versions, commit])
    runs = [[r["label"], r["seed"], r["path"]] for r in numbers["runs"]]
    words = [*(run["path"] for run in numbers["runs"]), "--out=FOLDER"]
    words += [f"--match={numbers['match']['by']}"]
    status = {"cut": ["--cut"], "unmatched": ["--allow_unmatched"]}
    words += status.get(numbers["match"]["status"], [])
    if not numbers["time_to_target"]["is_default"]:
        words += [f"--target={numbers['time_to_target']['target']!r}"]
    how = python_command("experiments/learning_curves.py", *words)
    return [
        "<h2>Hardware, versions, commit</h2>",
        table(["runs", "machine", "devices", "versions", "commit"], rows, texts=True),
        "<h2>Runs</h2>",
        table(["config", "seed", "run directory"], runs, texts=True),
        "<p>All numbers follow from the run directories, and stand in numbers.json and "
        "points.csv beside this page:</p>",
        f"<p><code>{escape(how)}</code></p>",
    ]
