"""Which source word each target word looks at: alignments of a trained encoder-decoder.

  python experiments/align.py --workdir=runs/toy
  python experiments/align.py --workdir=runs/toy --split=validation --limit=100 --output=links.json

Reads the references of a split through the model and takes each head of each attention to the
source as an alignment: its entropy, its agreement with the mean of all heads, and, where the
source knows the true links (toy_language), precision, recall and alignment error rate
(Och & Ney 2003). --output keeps the weights between words and the links of every sentence.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from errors import ConfigError, Parser
from training.files import storage_errors, write_atomic


class Sentence(NamedTuple):
    """An example and the weights between its words, (T, S), by head."""

    example: Any
    weights: dict[str, np.ndarray]


def read(options: argparse.Namespace) -> list[Sentence]:
    """The sentences of a split with what each head looks at."""
    import data
    from analysis.alignment import word_of_each_piece, word_weights
    from analysis.attention import attention_of_pairs, heads_across
    from trained import load_run, source_of

    run = load_run(options.workdir, "seq2seq", options.checkpoint)
    settings = run.settings
    source = source_of(settings)
    examples = source.pairs(options.split)[: options.limit]
    sources = run.tokenizer.encode_batch([e.source for e in examples])
    targets = run.tokenizer.encode_targets([e.target for e in examples])
    pieces = list(zip(sources, targets, strict=True))
    pairs = [[np.array([*side, data.EOS], np.int32) for side in sides] for sides in pieces]
    found = {}
    for i, weights in attention_of_pairs(run.model, run.variables, pairs):
        words = [[*word_of_each_piece(run.tokenizer, side), -1] for side in pieces[i]]  # and EOS
        heads = heads_across(weights)
        found[i] = {name: word_weights(map_TS, *words) for name, map_TS in heads.items()}
    return [Sentence(example, found[i]) for i, example in enumerate(examples)]


def measure(sentences: Sequence[Sentence]) -> dict[str, dict[str, float]]:
    """Scores of each head over all sentences."""
    from analysis import alignment
    from analysis.attention import MEAN

    scores = {}
    for name in sentences[0].weights:
        maps = [(s.weights[name], s.weights[MEAN]) for s in sentences]
        scores[name] = {
            "entropy": float(np.mean([alignment.entropy(own) for own, _ in maps])),
            "agreement": float(np.mean([alignment.agreement(*both) for both in maps])),
        }
        counts = alignment.ErrorCounts()
        for sentence in sentences:
            if sentence.example.alignment is not None:
                links = alignment.hard_links(sentence.weights[name])
                counts.add(links, sentence.example.alignment)
        if counts.sure:
            scores[name] |= {"precision": counts.precision, "recall": counts.recall}
            scores[name]["aer"] = counts.error_rate
    return scores


def table(scores: dict[str, dict[str, float]]) -> str:
    """One line for each head."""
    columns = list(next(iter(scores.values())))
    width = max(map(len, scores))
    lines = [" " * width + "".join(f"{column:>11}" for column in columns)]
    for name, row in scores.items():
        lines.append(f"{name:{width}}" + "".join(f"{row[column]:11.4f}" for column in columns))
    return "\n".join(lines)


def save(path: Path, sentences: Sequence[Sentence], scores: dict[str, dict[str, float]]) -> None:
    """Scores, words, links and weights as JSON."""
    from analysis.alignment import hard_links

    rows = [
        {
            "source": s.example.source.split(),
            "target": s.example.target.split(),
            "known": s.example.alignment,
            "links": {name: sorted(hard_links(map_TS)) for name, map_TS in s.weights.items()},
            "weights": {name: np.round(m, 4).tolist() for name, m in s.weights.items()},
        }
        for s in sentences
    ]
    with storage_errors("write", path):
        write_atomic(path, json.dumps({"scores": scores, "sentences": rows}))


def align(options: argparse.Namespace) -> None:
    """Prints the scores of each head, and writes --output."""
    if options.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {options.limit}.")
    if options.output and not options.output.absolute().parent.is_dir():
        raise ConfigError(f"--output {options.output}: there is no such folder.")
    sentences = read(options)
    scores = measure(sentences)
    print(table(scores))
    if options.output:
        save(options.output, sentences, scores)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("--workdir", required=True, help="run directory of a seq2seq model")
    parser.add_argument("--checkpoint", type=int, help="step; default: as the final scores")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--limit", type=int, default=200, help="sentences, at most")
    parser.add_argument("--output", type=Path, help="JSON file for weights and links")
    return parser.run(align, argv)


if __name__ == "__main__":
    sys.exit(main())
