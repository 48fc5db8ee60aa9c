"""Every number of a report, from the run directories alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from analysis import budgets, seeds
from analysis.curves import AXES, Binned, mean_curve, reached
from errors import ConfigError
from experiments.comparison.examples import paired_differences
from experiments.comparison.horizon import horizon_of, horizons
from experiments.comparison.runs import Group, config_differences
from experiments.comparison.tokens import TokenLosses, floor_of, token_losses
from trained import load_run, load_task

BUDGET_OF = {"params": "params", "flops": "flops", "walltime": "seconds", "tokens": "tokens"}


def collect(
    groups: Sequence[Group],
    match: str,
    *,
    cut: bool = False,
    allow_unmatched: bool = False,
    target: float | None = None,
    measured: Mapping[str, float] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Everything that the report shows, as JSON values.

    Args:
        match: a name of analysis.budgets.MATCHES, or "none".
        cut: compare at the largest budget that all runs have reached.
        allow_unmatched: say so instead of refusing budgets that differ.
        target: loss to reach; None for the worst of the final means.
        measured: seconds per step of a warm-up, by which steps were chosen.

    Raises:
        ConfigError: the budgets are not the same.
    """
    contract = budget_contract(groups, match, cut, allow_unmatched)
    finals = {g.label: [final_loss(run, contract) for run in g.runs] for g in groups}
    chosen = max(map(np.mean, finals.values())) if target is None else target
    floor = floor_of(groups[0].runs[0].settings)
    tokens, reaches = {}, {}
    for group in groups:
        for run in group.runs:
            say(f"loss of each token: {run.path}")
            trained = load_run(run.path, None)
            task = load_task(trained)
            tokens.setdefault(group.label, []).append(token_losses(trained, task))
            reaches.setdefault(group.label, []).append(horizon_of(trained, task, say))
    return {
        "match": contract | {"measured_seconds_per_step": dict(measured or {})},
        "configs": [config_row(group) for group in groups],
        "runs": [run_row(group.label, run) for group in groups for run in group.runs],
        "curves": {axis: {g.label: curve_of(g, axis) for g in groups} for axis in AXES},
        "final": final_table(finals, groups),
        "time_to_target": {
            "target": float(chosen),
            "is_default": target is None,
            "configs": {g.label: time_to_target(g, float(chosen)) for g in groups},
        },
        # of the final models, which are not what is compared where runs are cut
        "examples": None if contract["at"] is not None else paired_differences(tokens),
        "by_position": bins_of(tokens, TokenLosses.by_position),
        "by_frequency": bins_of(tokens, TokenLosses.by_frequency),
        "horizon": horizons(reaches),
        "floor": floor and floor._asdict(),
        "differences": config_differences(groups),
        "environments": environments(groups),
    }


# ---------------------------------------------------------------- the budget


def budget_contract(
    groups: Sequence[Group], match: str, cut: bool, allow_unmatched: bool
) -> dict[str, Any]:
    """Whether the runs have had the same budget, within budgets.TOLERANCE.

    Returns:
        {"by", "status": "matched", "cut", "unmatched" or "none", "spread", "at"}; `at` is the
        budget at which cut runs are compared.
    """
    if match == "none":
        return {"by": "none", "status": "none", "spread": None, "at": None}
    key = BUDGET_OF[match]
    used = {str(run.path): run.budget[key] for group in groups for run in group.runs}
    spread = budgets.spread(used.values())
    contract = {"by": match, "spread": spread, "at": None}
    if spread <= budgets.TOLERANCE:
        return contract | {"status": "matched"}
    if cut and match != "params":
        return contract | {"status": "cut", "at": min(used.values())}
    if allow_unmatched:
        return contract | {"status": "unmatched"}
    most, least = max(used, key=used.__getitem__), min(used, key=used.__getitem__)
    ways = "--allow_unmatched" if match == "params" else "--cut or --allow_unmatched"
    raise ConfigError(
        f"--match={match}: {most} has {used[most]:.6g} {key}, {least} {used[least]:.6g}: "
        f"{spread:.1%} apart, at most {budgets.TOLERANCE:.0%}. Train them alike, or say {ways}."
    )


def final_loss(run: Any, contract: Mapping[str, Any]) -> float:
    """The validation loss at the end of a run, or where it is cut.

    Raises:
        ConfigError: it was not evaluated before the cut.
    """
    at = contract["at"]
    if at is None:
        return float(run.curve("step").y[-1])
    key = BUDGET_OF[contract["by"]]
    curve = run.curve(key)
    if at < curve.x[0]:
        raise ConfigError(
            f"{run.path} was first evaluated at {curve.x[0]:.6g} {key}, after the common budget of "
            f"{at:.6g}. Lower config.eval_every, or say --allow_unmatched without --cut."
        )
    return float(np.interp(at, *curve))


# ---------------------------------------------------------------- tables


def config_row(group: Group) -> dict[str, Any]:
    """What a config is and what its runs have used: means over seeds."""
    used = [run.budget for run in group.runs]
    return {
        "label": group.label,
        "model": group.runs[0].settings["model"]["name"],
        "seeds": group.seeds,
        "num_parameters": group.runs[0].result["num_parameters"],
        **{name: float(np.mean([one[name] for one in used])) for name in used[0]},
    }


def run_row(label: str, run: Any) -> dict[str, Any]:
    """A run and all its points."""
    names = ("step", "split", "loss", "perplexity", "accuracy", *AXES[1:], "examples")
    points = [
        {name: _finite(row.get(name)) for name in names}
        for row in run.rows
        if row["split"] in ("train", "validation")
    ]
    scores = {name: _finite(value) for name, value in run.result["scores"].items()}
    return {
        "label": label,
        "seed": run.seed,
        "path": str(run.path),
        "split": run.result["split"],
        "scores": scores,
        "points": points,
    }


def curve_of(group: Group, axis: str) -> dict[str, list[float]]:
    """Mean validation loss and its band against an axis."""
    x, band = mean_curve([run.curve(axis) for run in group.runs])
    return {"x": x.tolist(), **{name: value.tolist() for name, value in band._asdict().items()}}


def final_table(finals: dict[str, list[float]], groups: Sequence[Group]) -> dict[str, Any]:
    """Final losses, and every pair of configs over the seeds that both have."""
    rows = []
    for label, losses in finals.items():
        band = seeds.band(np.array(losses))
        deviation = float(np.std(losses, ddof=1)) if len(losses) > 1 else None
        rows.append(
            {"label": label, "per_seed": losses, "deviation": deviation}
            | {name: float(value) for name, value in band._asdict().items()}
        )
    by_seed = {g.label: dict(zip(g.seeds, finals[g.label], strict=True)) for g in groups}
    pairs, labels = [], list(finals)
    for i, first in enumerate(labels):
        for second in labels[i + 1 :]:
            both = sorted(by_seed[first].keys() & by_seed[second].keys())
            if both:
                values = [[by_seed[name][seed] for seed in both] for name in (first, second)]
                found = seeds.difference(*values)._asdict()
                pairs.append({"first": first, "second": second, "seeds": both, **found})
    fewest = min(len(values) for values in by_seed.values())
    said = seeds.what_can_be_said(min((pair["num_pairs"] for pair in pairs), default=fewest))
    return {"rows": rows, "pairs": pairs, "said": said}


def time_to_target(group: Group, target: float) -> dict[str, Any]:
    """By axis, when each seed is first at or below the target; None is 'not reached'."""
    found = {}
    for axis in AXES:
        times = [reached(run.curve(axis), target) for run in group.runs]
        known = [time for time in times if time is not None]
        found[axis] = {
            "per_seed": times,
            "reached": len(known),
            "mean": float(np.mean(known)) if known else None,
            "deviation": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        }
    return found


def bins_of(
    tokens: Mapping[str, Sequence[TokenLosses]], bins: Callable[[TokenLosses], Binned]
) -> dict[str, Any]:
    """Mean loss of each bin with its band over seeds; bins without a token are left out."""
    found = {}
    for label, of_seeds in tokens.items():
        each = [bins(one) for one in of_seeds]
        filled = each[0].num_values > 0
        band = seeds.band(np.array([one.mean[filled] for one in each]))
        found[label] = {
            "first": each[0].first[filled].tolist(),
            "last": each[0].last[filled].tolist(),
            "count": each[0].num_values[filled].tolist(),
            **{name: value.tolist() for name, value in band._asdict().items()},
        }
    return found


def environments(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Machines and versions, each with the runs that had them."""
    names = ("host", "platform", "cores", "devices", "versions", "commit", "dirty")
    found: list[dict[str, Any]] = []
    for group in groups:
        for run in group.runs:
            here = {name: run.environment.get(name) for name in names}
            same = next((one for one in found if one["environment"] == here), None)
            if same is None:
                same = {"environment": here, "runs": []}
                found.append(same)
            same["runs"].append(f"{group.label} seed {run.seed}")
    return found


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
