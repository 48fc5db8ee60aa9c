"""Which attention heads does a trained model need? (Michel et al. 2019, section 3)

  python experiments/ablate_heads.py --workdir=runs/translation
  python experiments/ablate_heads.py --workdir=runs/translation --split=test --kind=mean --bleu

Removes each head alone, and all others of its layer, and measures what the loss of a split gains,
in nats per token, with bootstrap intervals over examples; p is of both sides and adjusted over all
heads (Benjamini & Hochberg 1995). Beside it stand importance by one backward pass, entropy and
confidence of each head. --bleu adds the change of BLEU on the same examples. Works on every model
with attention. Writes heads.csv, heads.json and heads.png into RUN/analysis, or into --output.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from errors import ConfigError, Parser
from training.memory import keep_freed_memory

KINDS = ("zero", "mean", "resample")


def batches_of(task: Any, split: str, limit: int) -> list[dict[str, np.ndarray]]:
    """One pass over a split, or over batches from all of it until they hold `limit` examples."""
    found, examples = [], 0
    steps = np.arange(task.num_batches(split))
    if limit:  # batches lie by length: the first would be the short sentences
        steps = np.random.default_rng(0).permutation(steps)
    for step in steps.tolist():
        found.append(task.batch(split, step))
        examples += task.count(found[-1])["examples"]
        if limit and examples >= limit:
            break
    if not examples:
        raise ConfigError(f"The {split} split has no examples.")
    return found


def examples_of(task: Any, split: str, batches: Sequence[dict[str, np.ndarray]]) -> list[Any]:
    """The pairs of text that stand in batches of a translation, in the order of the split."""
    index = np.concatenate([batch["index"] for batch in batches])
    pairs = task.source.pairs(split)
    return [pairs[i] for i in np.sort(index[index >= 0])]


def ablate(
    run: Any,
    task: Any,
    heads: Any,
    batches: Sequence[dict[str, np.ndarray]],
    options: argparse.Namespace,
    tick: Callable[[], None],
) -> dict:
    """All numbers, {"heads": names, "columns": {name: (X,)}, ...: totals}."""
    from analysis import bootstrap
    from analysis.head_measures import measure, normalised
    from analysis.heads import Ablation

    measures = measure(task, run.model, run.variables, heads, batches, tick)
    begin = time.monotonic()
    ablation = Ablation(task, run.model, run.variables, heads, options.kind, measures.means)
    masks = np.concatenate([np.ones((1, len(heads))), heads.without_each(), heads.only_each()])
    losses_ME, weights_E = ablation.over(masks, batches, tick)
    seconds = time.monotonic() - begin
    changes_ME = losses_ME[1:] - losses_ME[:1]
    without_XE, only_XE = np.split(changes_ME, 2)
    compared = bootstrap.compare_means(without_XE, weights_E, options.resamples, options.seed)
    total = weights_E.sum()
    importance = {
        "importance_token": measures.importance_token,
        "importance_example": measures.importance_example,
    }
    if options.normalise:
        importance = {name: normalised(heads, x) for name, x in importance.items()}
    columns = {
        "loss_without": losses_ME[1 : 1 + len(heads)].sum(1) / total,
        **compared._asdict(),
        "only_change": only_XE.sum(1) / total,
        **importance,
        "entropy": measures.entropy,
        "confidence": measures.confidence,
    }
    if options.bleu:
        examples = examples_of(task, options.split, batches)
        columns |= bleu_changes(ablation, examples, options, tick)
    return {
        "heads": heads.names,
        "columns": columns,
        "loss": float(losses_ME[0].sum() / total),
        "num_examples": len(weights_E),
        "num_tokens": int(total),
        "seconds_per_head": seconds / len(heads),
    }


def bleu_changes(
    ablation: Any, examples: Sequence[Any], options: argparse.Namespace, tick: Callable[[], None]
) -> dict[str, np.ndarray]:
    """BLEU without each head minus BLEU with all, its interval and p."""
    from analysis import bootstrap

    task, heads = ablation.task, ablation.heads
    sources, references = [x.source for x in examples], [x.target for x in examples]

    def statistics(variables: Any) -> np.ndarray:
        outputs = task.translator(ablation.model, variables).translate(sources)
        tick()
        return bootstrap.bleu_statistics(outputs, references)

    # The plain model is searched with a mask as well, so that there is one program.
    masks = [np.ones(len(heads), np.float32), *heads.without_each()]
    found = [statistics(heads.masked(ablation.variables, mask, ablation.means)) for mask in masks]
    compared = bootstrap.compare_scores(
        bootstrap.bleu, found[0], found[1:], min(options.resamples, 1000), options.seed
    )
    without = np.array([bootstrap.bleu(x.sum(0)) for x in found[1:]])
    changes = {f"bleu_{name}": values for name, values in compared._asdict().items()}
    return {"bleu_without": without, **changes}


def check(options: argparse.Namespace, run: Any) -> None:
    """Refuses what does not go together, before anything is computed."""
    for name, least in (("limit", 0), ("resamples", 1)):
        if getattr(options, name) < least:
            raise ConfigError(f"--{name} must be at least {least}, got {getattr(options, name)}.")
    if options.bleu and run.settings["task"]["name"] != "translation":
        raise ConfigError("--bleu needs a run of task translation.")
    if options.bleu and options.kind == "resample":
        raise ConfigError("--bleu needs --kind zero or mean: a search has no other example.")


def save(folder: Path, found: dict, settings: dict[str, Any]) -> None:
    """The table, the settings, and the picture."""
    from experiments import heads_picture
    from training.files import storage_errors, write_atomic, write_csv

    columns = found["columns"]
    table = [
        [*head, *(f"{values[x]:.7g}" for values in columns.values())]
        for x, head in enumerate(found["heads"])
    ]
    rest = {k: v for k, v in found.items() if k not in ("heads", "columns")}
    rows = [
        {**head._asdict(), **{name: float(values[x]) for name, values in columns.items()}}
        for x, head in enumerate(found["heads"])
    ]
    with storage_errors("write into", folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / "heads.csv", ["part", "layer", "head", *columns], table)
        write_atomic(
            folder / "heads.json", json.dumps({**settings, **rest, "heads": rows}, indent=1) + "\n"
        )
        heads_picture.draw(folder / "heads.png", found)


def work(options: argparse.Namespace) -> None:
    """Measures the heads of a run and keeps what was found."""
    from analysis.heads import Heads, require_others
    from trained import TOKEN_PREDICTORS, load_run, load_task
    from training.progress import ProgressBar

    run = load_run(options.workdir, TOKEN_PREDICTORS, options.checkpoint)
    check(options, run)
    task = load_task(run)
    heads = Heads(run.model, run.variables)
    batches = batches_of(task, options.split, options.limit)
    if options.kind == "resample":
        require_others(batches)  # before anything is computed
    searches = (1 + len(heads)) * options.bleu
    with ProgressBar(2 * len(batches) + searches, stream=sys.stderr) as bar:
        found = ablate(run, task, heads, batches, options, bar.advance)
    folder = options.output or Path(options.workdir) / "analysis"
    settings = {
        **{k: v for k, v in vars(options).items() if k != "output"},
        "adjusted": "Benjamini & Hochberg 1995, over all heads",
        "steps": run.steps,
        "fingerprint": task.fingerprint(),
    }
    save(folder, found, settings)
    worst = int(np.argmax(found["columns"]["change"]))
    print(
        f"Loss {found['loss']:.4f} nats per token; without {found['heads'][worst]}: "
        f"{found['columns']['loss_without'][worst]:.4f}. {found['seconds_per_head']:.3f} s a head. "
        f"Wrote {folder}/heads.csv, heads.json and heads.png."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("--workdir", required=True, help="run directory of a model with attention")
    parser.add_argument("--checkpoint", type=int, help="step; default: as the final scores")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="validation")
    parser.add_argument("--limit", type=int, default=0, help="examples, about; 0: all")
    parser.add_argument("--kind", choices=KINDS, default="zero", help="what replaces a head")
    parser.add_argument("--bleu", action="store_true", help="the change of BLEU on them too (slow)")
    parser.add_argument("--normalise", action="store_true", help="importance by its layer's norm")
    parser.add_argument(
        "--resamples", type=int, default=10_000, help="of the bootstrap; BLEU: 1000 at most"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--output", type=Path, help="folder; default: analysis in the run")
    keep_freed_memory()
    return parser.run(work, argv)


if __name__ == "__main__":
    sys.exit(main())
