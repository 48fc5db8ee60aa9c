"""Which role each attention head plays: previous token, induction, rare word, alignment, ...

  python experiments/head_roles.py --workdir=RUN

Reads the first --limit sentences of a split, and random sentences that say the same twice, and
scores each head for each role (analysis/roles.py says what they are). Writes RUN/analysis/roles.csv
and prints the best role of each head, with the change of loss without the head where
RUN/analysis/heads.csv (ablate_heads.py) knows it. Subject and verb are known in toy_language.

Exit codes: 0 done, 64 wrong arguments, 65 bad data, 74 disk.
"""

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import data
from analysis import roles
from analysis.attention import Head
from data.sources.toy_language import FUTURE, SOURCE_AND, TARGET_AND, ToyLanguage
from errors import Parser
from experiments.attention_payload import Reading, Shown
from experiments.head_tables import read_effects
from experiments.translate import whole_number
from trained import source_of
from training.files import storage_errors, write_csv

COLUMNS = ("part", "layer", "head", "role", "score", "chance", "queries", "label")
MAX_TOKENS = 128
NUM_RANDOM, RANDOM_LENGTH = 8, 16  # sentences that say the same twice, and how long it is
STEM = 5  # letters of every stem of toy_language


def agreements(source: data.Source, words: Sequence[str], side: int) -> list[tuple[int, int]]:
    """(verb, subject) words of a sentence of toy_language; nothing of other languages.

    Args:
        side: 0 for the source, 1 for the target.
    """
    if not isinstance(source, ToyLanguage):
        return []
    nouns, verbs = ({stem[side] for stem in stems} for stems in (source.nouns, source.verbs))
    subject, found = None, []
    for i, word in enumerate(words):
        if word in (SOURCE_AND, TARGET_AND):
            subject = None
        elif subject is None:
            subject = i if word[:STEM] in nouns else None
        elif word in FUTURE or (word[:STEM] in verbs and len(word) > STEM):
            found.append((i, subject))
    return found


def as_tokens(pairs: Sequence[tuple[int, int]], words: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of words as pairs of all their tokens; `words` has the word of each token."""
    wanted, places = set(pairs), range(len(words))
    return [(q, k) for q in places for k in places if (words[q], words[k]) in wanted]


def sentence_of(source: data.Source, example: data.Example, reading: Reading) -> roles.Sentence:
    """What is known of a sentence that a model read."""
    sides = {"source": (example.source, 0), "target": (example.target, 1)}
    pairs = [
        as_tokens(agreements(source, sides[name][0].split(), sides[name][1]), words)
        if name in sides
        else []
        for name, words in zip(reading.sides, reading.words, strict=True)
    ]
    return roles.Sentence(
        reading.maps,
        reading.source.tolist(),
        [data.BOS, *reading.target.tolist()][:-1],
        links=[(target, word) for word, target in reading.links],
        # BOS comes before what the decoder reads
        agreements={"encoder": pairs[0], "decoder": [(q + 1, k + 1) for q, k in pairs[1]]},
    )


def random_sentences(shown: Shown, seed: int = 0) -> Iterator[roles.Sentence]:
    """Different random tokens, twice in the same order."""
    rng = np.random.default_rng(seed)
    for _ in range(NUM_RANDOM):
        once = rng.permutation(shown.run.tokenizer.text_ids())[:RANDOM_LENGTH]
        ids = np.array([*once, *once, data.EOS], np.int32)
        source = shown.enclosed(ids[:-1].tolist()) if shown.kind == "encoder" else ids
        reads = [data.BOS, *ids[:-1].tolist()]
        yield roles.Sentence(shown.maps(source, ids), source.tolist(), reads, is_random=True)


def measure(options: argparse.Namespace) -> dict[Head, dict[str, roles.Score]]:
    """Scores of all heads of a run."""
    shown = Shown(options.workdir, options.checkpoint, MAX_TOKENS)
    source = source_of(shown.run.settings)
    examples = source.pairs(options.split)[: options.limit]
    read = [sentence_of(source, example, shown.read(example)) for example in examples]
    counts = token_counts(shown.run.tokenizer, source.pairs("train"))
    return roles.find_roles([*read, *random_sentences(shown)], counts)


def token_counts(tokenizer: Any, examples: Iterable[data.Example]) -> Counter[int]:
    """How often each token stands in a text; ids that are no text count as once a line."""
    texts = [text for example in examples for text in (example.source, example.target) if text]
    ends = (data.BOS, data.EOS, *tokenizer.reserved.values())
    counts = Counter(itertools.chain.from_iterable(tokenizer.encode_batch(texts)))
    return counts + Counter(dict.fromkeys(ends, len(texts)))


def rows_of(scores: Mapping[Head, Mapping[str, roles.Score]]) -> Iterator[list[Any]]:
    """One row for each head and role, the best role of a head first."""
    for head, by_role in scores.items():
        for role, found in ranked(by_role):
            label = "yes" if found.is_role else "no"
            numbers = f"{found.score:.6f}", f"{found.chance:.6f}", found.queries
            yield [*head, role, *numbers, label]


def ranked(by_role: Mapping[str, roles.Score]) -> list[tuple[str, roles.Score]]:
    """Roles with their scores, the one most above chance first."""
    return sorted(by_role.items(), key=lambda item: item[1].chance - item[1].score)


def table(
    scores: Mapping[Head, Mapping[str, roles.Score]], effects: Mapping[Head, Mapping[str, float]]
) -> str:
    """One line for each head: its best role, whether it may be called so, its ablation."""
    lines = [f"{'head':<18}{'role':<16}{'score':>7}{'chance':>8}   label"]
    lines[0] += "   loss without it" if effects else ""
    for head, by_role in scores.items():
        for role, found in ranked(by_role)[:1]:
            name = f"{head.part} {head.layer}.{head.head}"
            line = f"{name:<18}{role:<16}{found.score:7.3f}{found.chance:8.3f}   "
            line += f"{'yes' if found.is_role else '-':<5}"
            line += f"{effects[head]['change']:+18.4f}" if head in effects else ""
            lines.append(line.rstrip())
    return "\n".join(lines)


def sentence_about_worst(
    scores: Mapping[Head, Mapping[str, roles.Score]], effects: Mapping[Head, Mapping[str, float]]
) -> str:
    """What the head is whose removal hurts most; nothing without a table of effects."""
    known = [head for head in scores if head in effects]
    if not known:
        return ""
    worst = max(known, key=lambda head: effects[head]["change"])
    named = [role for role, found in ranked(scores[worst]) if found.is_role]
    what = f"the {named[0]} head" if named else "a head without a role"
    return (
        f"The head that is missed most, {worst.part} {worst.layer}.{worst.head}, is {what}: "
        f"{effects[worst]['change']:+.4f} nats per token without it."
    )


def run(options: argparse.Namespace) -> None:
    """Writes the table and prints the best role of each head."""
    effects = read_effects(options.workdir)
    scores = measure(options)
    path = options.output or Path(options.workdir) / "analysis" / "roles.csv"
    with storage_errors("write", path):
        if options.output is None:
            path.parent.mkdir(exist_ok=True)
        write_csv(path, COLUMNS, rows_of(scores))
    print(table(scores, effects))
    print(sentence_about_worst(scores, effects) or f"Written to {path}.")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(__doc__)
    add: Any = parser.add_argument
    add("--workdir", required=True, help="run directory of a model with attention")
    add("--checkpoint", type=int, help="step; default: as the final scores")
    add("--split", choices=data.SPLITS, default="test")
    add("--limit", type=whole_number(1), default=100, help="sentences, at most [100]")
    add("--output", type=Path, help="the table [RUN/analysis/roles.csv]")
    return parser.run(run, argv)


if __name__ == "__main__":
    sys.exit(main())
