"""Does the fixed vector lose long sentences? Scores of finished runs by the length of the source.

  python experiments/scores_by_length.py runs/lstm runs/lstm-attention --out=runs/by-length

An encoder that hands its decoder one vector has as many numbers for forty words as for four: Cho
et al. (2014b, figure 4) see BLEU fall with the length, Bahdanau et al. (2015, figure 2) see
attention mend it. This draws that figure for runs of one task on the same data: corpus BLEU and
chrF (translation) or phoneme error rate (pronunciation), and the length of the outputs over that
of the references. Lengths are words, or letters of a word, of the source; the bins hold about as
many sentences each. Tokenizers may differ: text is scored.

Runs that differ in their seed alone are one line, the mean over them. Bands are 95 % percentile
bootstraps over sentences and, where there are several, over those runs.

Each run writes the split once, with its own beams; the texts stay in OUT/outputs, one line a
sentence, and a later call, or one after an interruption, generates only what is not there.
Writes scores_by_length.csv, .json and .png.
"""

import hashlib
import json
import math
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sacrebleu
from sacrebleu.metrics.bleu import MAX_NGRAM_ORDER

import data
from analysis import bootstrap
from analysis.lengths import NUM_DRAWN, Score, corpus_band, quantile_bins
from analysis.seeds import LEVEL
from data.sources import SPLITS
from errors import ConfigError, Parser
from experiments import length_picture
from experiments.comparison import runs
from experiments.comparison.plan import say
from tasks.pronunciation import nearest_edits, references_of
from tasks.search import Translator
from trained import load_run, source_of
from training import cores
from training.files import storage_errors, write_atomic, write_csv
from training.progress import ProgressBar

NAME = "scores_by_length"
UNITS = {"translation": "words", "pronunciation": "letters"}  # of the source, by task


class Measure(NamedTuple):
    """What each sentence adds to a score, and the score of sums."""

    stats_NX: np.ndarray
    score: Score


Measures = Callable[[Sequence[str]], dict[str, Measure]]

# ---------------------------------------------------------------- outputs


def outputs_of(run: runs.Run, source: data.Source, split: str, folder: Path) -> list[str]:
    """What a run writes for a split: from its file in the folder, or generated and kept there."""
    made_of = [run.settings, run.result, split, source.split_fingerprint(split)]
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    path = folder / f"{run.path.name}-{split}-{digest[:12]}.txt"
    texts = [example.source for example in source.pairs(split)]
    with storage_errors("read or write", path):
        if path.exists():
            kept = path.read_text(encoding="utf-8").split("\n")[:-1]
            if len(kept) == len(texts):
                say(f"{run.path}: outputs are in {path}")
                return kept
        lines = [" ".join(text.splitlines()) for text in generate(run, texts)]
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, "".join(f"{line}\n" for line in lines))
    return lines


def generate(run: runs.Run, texts: Sequence[str]) -> list[str]:
    """Outputs of the final model of a run by the search of its config."""
    trained = load_run(run.path, "seq2seq")
    names = ("num_beams", "length_penalty", "max_length")
    options = {name: trained.settings["task"][name] for name in names}
    translator = Translator(trained.model, trained.variables, trained.tokenizer, **options)
    say(f"{run.path}: {len(texts)} sentences, beams {options['num_beams']}")
    total = translator.num_searches(texts)
    with ProgressBar(total) as bar:
        begun = iter(range(total))
        outputs = translator.translate(texts, lambda: bar.update(next(begun)))
        bar.update(total)
    return outputs


# ---------------------------------------------------------------- scores


def translation_measures(outputs: Sequence[str], references: Sequence[str]) -> dict[str, Measure]:
    """Corpus BLEU and chrF by sacreBLEU, and the ratio of lengths in words.

    Without a reference of four words even a perfect output has BLEU 0: there it is NaN.
    """
    chrf, bleu_NX = sacrebleu.CHRF(), bootstrap.bleu_statistics(outputs, references)
    longest_N1 = np.maximum(bleu_NX[:, 1:2] + 1 - MAX_NGRAM_ORDER, 0)  # n-grams of references
    # sacreBLEU gives the sums of chrF to its own bootstrap alone.
    chrf_NX = np.array(chrf._extract_corpus_statistics(outputs, [references]))
    found = {
        "bleu": Measure(np.concatenate([bleu_NX, longest_N1], axis=1), bleu_score),
        "chrf": Measure(chrf_NX, lambda x: chrf._compute_score_from_stats(x.tolist()).score),
    }
    lengths = [[len(text.split()) for text in texts] for texts in (outputs, references)]
    return found | {"length_ratio": Measure(np.array(lengths).T, ratio)}


def bleu_score(sums_X: np.ndarray) -> float:
    """BLEU of sums; the last of them counts the longest n-grams of the references."""
    return bootstrap.bleu(sums_X[:-1]) if sums_X[-1] else math.nan


def pronunciation_measures(
    outputs: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, Measure]:
    """Phoneme error rate in percent and the ratio of lengths, to the nearest pronunciation."""
    rows = []
    for output, known in zip(outputs, references, strict=True):
        phonemes = output.split()
        edits, nearest = nearest_edits(phonemes, [sound.split() for sound in known])
        rows.append((edits, len(phonemes), nearest))
    stats_NX = np.array(rows)
    return {
        "phoneme_error_rate": Measure(stats_NX[:, [0, 2]], lambda sums_X: 100 * ratio(sums_X)),
        "length_ratio": Measure(stats_NX[:, 1:], ratio),
    }


def ratio(sums_X: np.ndarray) -> float:
    return float(sums_X[0] / sums_X[1])


def measures_of(task: str, source: data.Source, split: str) -> Measures:
    """From outputs for a split to their measures."""
    if task == "pronunciation":
        known = references_of(source, split)
        return lambda outputs: pronunciation_measures(outputs, known)
    references = [example.target for example in source.pairs(split)]
    return lambda outputs: translation_measures(outputs, references)


def scores_of(
    outputs_R: Sequence[Sequence[str]], measures: Measures, bin_N: np.ndarray
) -> dict[str, Any]:
    """Each measure of a group of runs: by bin, with its band, and of all sentences, by run."""
    by_run = [measures(outputs) for outputs in outputs_R]
    found = {}
    for name, (_, score) in by_run[0].items():
        stats_RNX = np.stack([one[name].stats_NX for one in by_run])
        bands = [corpus_band(stats_RNX[:, bin_N == i], score) for i in range(bin_N.max() + 1)]
        found[name] = {
            **{end: [finite(getattr(band, end)) for band in bands] for end in bands[0]._fields},
            "all_sentences": [finite(score(sums_X)) for sums_X in stats_RNX.sum(axis=1)],
        }
    return found


def finite(value: Any) -> float | None:
    """A number for JSON; None where it is not defined."""
    return float(value) if math.isfinite(value) else None


# ---------------------------------------------------------------- the command


def collect(paths: Sequence[str], out: Path, split: str, num_bins: int) -> dict[str, Any]:
    """All numbers, as JSON values.

    Raises:
        ConfigError: no run, one that is not finished or has another task, or unequal data.
    """
    groups = runs.given(paths)
    first = groups[0].runs[0].settings
    for run in [run for group in groups for run in group.runs]:
        if run.settings["task"]["name"] not in UNITS:
            raise ConfigError(
                f"{run.path} has the task {run.settings['task']['name']}: only "
                f"{' and '.join(UNITS)} write sentences that can be scored."
            )
    runs.check_comparable(groups, tokenizers=False)
    task = first["task"]["name"]
    source = source_of(first)
    lengths = np.array([len(example.source.split()) for example in source.pairs(split)])
    bins = quantile_bins(lengths, num_bins)
    measures = measures_of(task, source, split)
    rows = []
    for group in groups:
        outputs = [outputs_of(run, source, split, out / "outputs") for run in group.runs]
        rows.append(
            {
                "label": group.label,
                "runs": [str(run.path) for run in group.runs],
                "seeds": group.seeds,
                "band_over": "sentences and seeds" if len(outputs) > 1 else "sentences",
                "scores": scores_of(outputs, measures, bins.of_N),
            }
        )
    return {
        "task": task,
        "split": split,
        "unit": UNITS[task],
        "level": LEVEL,
        "samples": NUM_DRAWN,
        "bins": {
            "first": bins.first.tolist(),
            "last": bins.last.tolist(),
            "sentences": np.bincount(bins.of_N).tolist(),
        },
        "groups": rows,
    }


def table(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each group and bin."""
    rows = []
    for group in numbers["groups"]:
        for i in range(len(numbers["bins"]["first"])):
            row = {"label": group["label"], "seeds": " ".join(map(str, group["seeds"]))}
            row |= {name: values[i] for name, values in numbers["bins"].items()}
            for name, values in group["scores"].items():
                row |= {name: values["mean"][i]}
                row |= {f"{name}_{end}": values[end][i] for end in ("low", "high")}
            rows.append(row | {"band_over": group["band_over"]})
    return rows


def save(out: Path, numbers: dict[str, Any]) -> None:
    with storage_errors("write the scores to", out):
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / f"{NAME}.json", json.dumps(numbers, indent=1, allow_nan=False) + "\n")
        rows = table(numbers)
        write_csv(out / f"{NAME}.csv", list(rows[0]), (row.values() for row in rows))
        length_picture.draw(out / f"{NAME}.png", numbers)


def compare(options: Namespace) -> None:
    """Generates what is not there, scores it and writes the tables and the picture."""
    if options.bins < 1:
        raise ConfigError(f"--bins must be at least 1, got {options.bins}.")
    cores.split()
    save(options.out, collect(options.runs, options.out, options.split, options.bins))
    print(f"Wrote {options.out}/{NAME}.png and its tables.")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="finished run directories")
    parser.add_argument("--out", required=True, type=Path, help="folder of outputs and scores")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--bins", type=int, default=8, help="of the lengths, at most")
    return parser.run(compare, argv)


if __name__ == "__main__":
    sys.exit(main())
