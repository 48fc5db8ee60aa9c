"""Text pairs for the tests of data/."""

from pathlib import Path

import numpy as np

import data
from data import Example, Source


class Texts(Source):
    """A source of given texts."""

    name = "texts"

    def __init__(self, **splits: list[tuple[str, str]]):
        self.splits = splits

    def read(self, split: str) -> list[Example]:
        return [Example(*pair) for pair in self.splits[split]]


def sentence(number: int, num_words: int, num_different: int = 50) -> str:
    """The words w<i>, another sentence for another number."""
    random = np.random.default_rng(number)
    return " ".join(f"w{i}" for i in random.integers(num_different, size=num_words))


def random_pairs(count: int, seed: int, longest: int = 40) -> list[tuple[str, str]]:
    """Pairs of sentences of related lengths, most of them short."""
    random = np.random.default_rng(seed)
    lengths = np.clip(random.lognormal(2.2, 0.7, count), 1, longest)
    others = np.clip(lengths * random.uniform(0.6, 1.5, count), 1, longest)
    return [
        (sentence(2 * (seed * count + i), int(a)), sentence(2 * (seed * count + i) + 1, int(b)))
        for i, (a, b) in enumerate(zip(lengths, others, strict=True))
    ]


def random_source(num_train: int = 600, num_held_out: int = 50, longest: int = 40) -> Texts:
    """A source of random sentences."""
    return Texts(
        train=random_pairs(num_train, 1, longest),
        validation=random_pairs(num_held_out, 2, longest),
        test=random_pairs(num_held_out, 3, longest),
    )


PAIR_OPTIONS = {"seed": 3, "tokens_per_batch": 512, "max_length": 48, "num_buckets": 4}


def pair_batches(cache: Path, source: Source | None = None, **options) -> data.PairBatches:
    """Batches of a source (a random one), with a tokenizer of their own."""
    source = source or random_source()
    tokenizer = data.build_tokenizer({"name": "words"}, source, cache)
    return data.PairBatches(source, tokenizer, cache, **{**PAIR_OPTIONS, **options})


def epoch_of(batches, epoch: int = 0, split: str = "train") -> list[dict]:
    """All batches of one epoch."""
    size = batches.num_batches(split)
    return [batches.batch(split, epoch * size + place) for place in range(size)]
