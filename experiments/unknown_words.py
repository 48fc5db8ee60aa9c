"""Which words of each split a run's tokenizer does not know.

python experiments/unknown_words.py --workdir=runs/toy
"""

import argparse
import sys
from collections.abc import Sequence

from errors import Parser


def report(options: argparse.Namespace) -> None:
    """Prints a paragraph for each side of each split."""
    from analysis.rare_words import count_unknown
    from data.sources import SPLITS
    from trained import load_run, source_of

    run = load_run(options.workdir, "seq2seq")
    source = source_of(run.settings)
    lines = []
    for split in SPLITS:
        for side in ("source", "target"):
            texts = [getattr(example, side) for example in source.pairs(split)]
            found = count_unknown(run.tokenizer, texts, options.show)
            lines.append(
                f"{split} {side}: {found.unknown_words} of {found.words} words unknown "
                f"({found.unknown_words / found.words:.2%}), {found.unknown_types} of "
                f"{found.types} types ({found.unknown_types / found.types:.2%})"
            )
            listed = ", ".join(f"{word} {count}" for word, count in found.most_frequent)
            lines += [f"  {listed}"] if listed else []
    print("\n".join(lines))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("--workdir", required=True, help="run directory of a seq2seq model")
    parser.add_argument("--show", type=int, default=20, help="unknown words listed a side")
    return parser.run(report, argv)


if __name__ == "__main__":
    sys.exit(main())
