"""What the attention of trained models looks at, as one HTML file that opens from disk.

  python experiments/show_attention.py --workdir=RUN
  python experiments/show_attention.py --workdir=RUN --workdir=OTHER --sentence="Nel principio"
  python experiments/show_attention.py --workdir=RUN --input=sentences.txt --output=page.html
  python experiments/show_attention.py --workdir=RUN --png=maps.png --pdf=maps.pdf

Shows every head of every layer as a small map, and one of them large, as lines and as a matrix.
Several runs (checkpoints, architectures) stand beside each other on the same sentences. Without
--sentence and --input they are the first --limit of --split of the first run. A line is a source,
or a source, a tab and its target; without a target, a model that translates writes its own.

Row t of a map across is the look before target token t was written. Where the source of the data
knows the true links (toy_language, copy, ...), they are framed, and each head has its alignment
error rate (Och & Ney 2003). What RUN/analysis/heads.csv (ablate_heads.py) and roles.csv
(head_roles.py) say of a head stands beside it.

Exit codes: 0 done, 64 wrong arguments, 65 bad data, 74 disk.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from errors import ConfigError, DataError, Parser
from experiments.translate import whole_number

MAX_TOKENS = 128


def examples_of(options: argparse.Namespace, settings: dict[str, Any]) -> list[Any]:
    """The sentences to read.

    Raises:
        DataError: --input cannot be read, or there is no sentence in it.
    """
    import data
    from trained import source_of

    lines = list(options.sentence)
    if options.input:
        try:
            lines += Path(options.input).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise DataError(f"{options.input}: cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{options.input}: not UTF-8 ({error.reason}).") from error
    if lines or options.input:
        pairs = [line.partition("\t")[::2] for line in lines if line.strip()]
        if not pairs or not all(source.strip() for source, _ in pairs):
            raise DataError(f"{options.input or '--sentence'}: a sentence is empty.")
        return [data.Example(source, target.strip()) for source, target in pairs]
    source = source_of(settings)
    return source.pairs(options.split)[: options.limit]


def show(options: argparse.Namespace) -> None:
    """Writes what is asked for and prints the files."""
    if options.checkpoint and len(options.checkpoint) != len(options.workdir):
        raise ConfigError("--checkpoint: give one for each --workdir, or none.")
    for kind in ("png", "pdf"):
        picture = getattr(options, kind)
        if picture and picture.suffix.lower() != f".{kind}":
            raise ConfigError(f"--{kind} {picture}: its name must end in .{kind}.")
    from experiments.attention_page import render
    from experiments.attention_payload import Shown, build
    from training.files import storage_errors, write_atomic

    steps = options.checkpoint or [None] * len(options.workdir)
    shown = [
        Shown(workdir, step, options.max_tokens)
        for workdir, step in zip(options.workdir, steps, strict=True)
    ]
    examples = examples_of(options, shown[0].run.settings)
    payload = build(shown, examples)
    path = options.output or Path(options.workdir[0]) / "analysis" / "attention.html"
    with storage_errors("write", path):
        if options.output is None:
            path.parent.mkdir(exist_ok=True)
        write_atomic(path, render(payload))
    pictures = [picture for picture in (options.png, options.pdf) if picture]
    if pictures:
        from experiments.attention_picture import draw

        for picture in pictures:
            draw(picture, payload)
    print(*[path, *pictures], sep="\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--workdir", required=True, action="append", help="run directory; again for another")
    add("--checkpoint", type=int, action="append", help="step, one for each --workdir")
    add("--sentence", action="append", default=[], help="source, or source<TAB>target; repeat")
    add("--input", metavar="FILE", help="such lines from a file")
    add("--split", choices=("train", "validation", "test"), default="test")
    add("--limit", type=whole_number(1), default=8, help="sentences of the split [8]")
    add("--max_tokens", type=whole_number(2), default=MAX_TOKENS, help="of a side [128]")
    add("--output", type=Path, help="the page [RUN/analysis/attention.html]")
    add("--png", type=Path, help="a picture of all heads on the first sentence")
    add("--pdf", type=Path, help="the same as PDF")
    return parser.run(show, argv)


if __name__ == "__main__":
    sys.exit(main())
