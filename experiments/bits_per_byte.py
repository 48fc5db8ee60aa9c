"""Does a language model compress better than xz? Bits for each byte of a split's text.

  python experiments/bits_per_byte.py --workdir=runs/lm

A model that gives a text the probability p compresses it to -log2 p bits (Shannon 1948), by
arithmetic coding with the model on both sides. Unlike perplexity this does not depend on the
tokenizer. Each document counts with the line end that follows it, which EOS stands for.

xz reads the same bytes in the same order: the split by itself, and behind the training text, of
which the model has learned too (what the split adds to the archive). The size of the model
is left out, as that of xz is. A token that the tokenizer does not know loses text, so that the
bits are too few; their share is said.
"""

import argparse
import lzma
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from errors import ConfigError, Parser


class Compressed(NamedTuple):
    """Bits for each byte of a text, by the model and by xz.

    Attributes:
        xz: of the text alone; xz_primed: behind the training text.
        unknown_rate: share of the tokens that stand for text that is lost.
    """

    num_bytes: int
    model: float
    xz: float
    xz_primed: float
    unknown_rate: float


def xz_bytes(text: bytes) -> int:
    """The size of a text under the strongest setting, without the frame of a file."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return len(lzma.compress(text, lzma.FORMAT_RAW, filters=filters))


def compressed(
    nll_N: np.ndarray, target_N: np.ndarray, texts: Sequence[str], training: Sequence[str]
) -> Compressed:
    """The bits of a split.

    Args:
        nll_N, target_N: of every token of the texts, EOS included: nats, and ids.
    """
    import data

    split, before = ("".join(f"{t}\n" for t in side).encode() for side in (texts, training))
    primed = xz_bytes(before + split) - xz_bytes(before)
    return Compressed(
        len(split),
        float(nll_N.sum() / np.log(2) / len(split)),
        8 * xz_bytes(split) / len(split),
        8 * primed / len(split),
        float((target_N == data.UNK).mean()),
    )


def report(options: argparse.Namespace) -> None:
    """Prints the bits of a split under a run's model and under xz."""
    from experiments.comparison.tokens import predictions
    from trained import load_run, load_task, source_of

    run = load_run(options.workdir, "language_model")
    side = run.settings["task"].get("side")
    if run.settings["task"]["name"] != "language_modelling" or side == "both":
        raise ConfigError(
            f"--workdir {options.workdir}: only a model that predicts all of a text has bits for "
            "all of its bytes; this needs task language_modelling with side source or target."
        )
    source = source_of(run.settings)
    nll_N, _, target_N, _ = predictions(run, load_task(run), options.split)
    sides = ([getattr(e, side) for e in source.pairs(name)] for name in (options.split, "train"))
    found = compressed(nll_N, target_N, *sides)
    print(
        f"{options.split}: {found.num_bytes:,} bytes, {len(nll_N):,} tokens "
        f"({found.unknown_rate:.2%} unknown)\n"
        f"bits per byte: model {found.model:.3f}, xz {found.xz:.3f}, "
        f"xz behind the training text {found.xz_primed:.3f}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("--workdir", required=True, help="run directory of a language model")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    return parser.run(report, argv)


if __name__ == "__main__":
    sys.exit(main())
