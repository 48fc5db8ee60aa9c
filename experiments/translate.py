"""Translates lines of text with a trained model: text in, text out.

  python experiments/translate.py --workdir=RUN < source.txt > target.txt
  python experiments/translate.py --workdir=RUN --input=source.txt --attention=weights.npz

Writes one line for each line read, in order, as soon as it is known, and nothing else to
standard output. An empty line gives an empty line. Lines that have arrived are translated
together (at most --batch_size), and a line that comes alone does not wait for others.

--replace_unknown writes, where the model has no word, the source word that it looks at, or what
--lexicon has for that (Luong et al. 2015).

--attention keeps what the model looked at. The file holds for line 7 of the input
  7/source, 7/target            tokens, "</s>" at the end
  7/LAYER                       weights, (heads, len(target), len(source)) for cross-attention:
                                row t is the look before target token t was written
and is read by numpy.load. Exit codes: 0 done, 64 wrong arguments, 65 bad data, 74 disk.
"""

import argparse
import contextlib
import logging
import math
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import registry
from errors import ConfigError, DataError, Parser, StorageError

CHUNK = 1 << 16  # bytes


def whole_number(minimum: int) -> Any:
    """The type of an argument that counts something."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {minimum}, got {text!r}"
            )
        return int(text)

    return parse


def non_negative(text: str) -> float:
    """The type of an argument that is a number of at least 0."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__, overrides=True)
    add = parser.add_argument
    add("--workdir", required=True, help="run directory of a seq2seq model")
    add("--input", metavar="FILE", help="read this file instead of standard input")
    add("--num_beams", type=whole_number(1), help="1 is greedy; default: the run's config")
    add("--length_penalty", type=non_negative, help="alpha of Wu et al. 2016; default: likewise")
    add("--attention", metavar="FILE.npz", help="keep the attention weights")
    add("--replace_unknown", action="store_true", help="unknown words from the source instead")
    add("--lexicon", metavar="FILE", help="word<TAB>translation, for --replace_unknown")
    add("--batch_size", type=whole_number(1), default=32, help="lines at a time (default 32)")
    add("--max_length", type=whole_number(2), help="source tokens; longer lines are cut")
    add("--checkpoint", type=whole_number(0), metavar="STEP", help="instead of the final one")
    return parser


def arriving_lines(stream: BinaryIO, limit: int) -> Iterator[list[bytes]]:
    """Lines in lists of at most `limit`: those that have arrived, without waiting for more."""
    descriptor, unfinished, lines = stream.fileno(), b"", []
    while chunk := os.read(descriptor, CHUNK):
        *whole, unfinished = (unfinished + chunk).split(b"\n")
        lines += whole
        while len(lines) >= limit:
            yield lines[:limit]
            lines = lines[limit:]
        if lines and not select.select([descriptor], [], [], 0)[0]:
            yield lines
            lines = []
    if unfinished:
        lines.append(unfinished)
    if lines:
        yield lines


def read_batches(path: str | None, limit: int) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, lines without their ends), in order.

    Raises:
        DataError: the file cannot be read, or a line is not UTF-8.
    """
    name, number = path or "Standard input", 1
    try:
        with open(path, "rb") if path else contextlib.nullcontext(sys.stdin.buffer) as stream:
            for batch in arriving_lines(stream, limit):
                lines = []
                for line in batch:
                    try:
                        lines.append(line.removesuffix(b"\r").decode())
                    except UnicodeDecodeError as error:
                        raise DataError(
                            f"{name}, line {number + len(lines)}: not UTF-8 ({error.reason} at "
                            f"byte {error.start + 1})."
                        ) from error
                yield number, lines
                number += len(lines)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}.") from error


def build_translator(options: argparse.Namespace) -> Any:
    """The translator of a run directory with the options of the command line."""
    from tasks.search import Translator
    from trained import load_run  # here, so that wrong arguments are named at once
    from training import cores

    cores.split()
    run = load_run(options.workdir, "seq2seq", options.checkpoint)
    names = ("num_beams", "length_penalty", "max_length")
    found = {name: run.settings["task"][name] for name in names if name in run.settings["task"]}
    asked = {name: getattr(options, name) for name in names}
    found |= {name: value for name, value in asked.items() if value is not None}
    return Translator(run.model, run.variables, run.tokenizer, **found)


def warn_of_long_lines(translator: Any, name: str, number: int, lines: Sequence[str]) -> None:
    """Names the lines that the translator cuts."""
    limit = translator.max_length - 1  # and EOS
    for i, ids in enumerate(translator.tokenizer.encode_batch(lines)):
        if len(ids) > limit:
            logging.warning(
                "%s, line %d: %d tokens, cut to %d (--max_length %d with the end).",
                name,
                number + i,
                len(ids),
                limit,
                translator.max_length,
            )


def without_unknown(
    translator: Any, line: str, source: Any, target: Any, lexicon: dict[str, str]
) -> str:
    """The translation with its unknown words replaced through the alignment."""
    import numpy as np

    import data
    from analysis.attention import MEAN, attention_weights, heads_across
    from analysis.rare_words import replace_unknown

    ended = np.append(target, np.int32(data.EOS))
    weights = attention_weights(translator.model, translator.variables, source, ended)
    mean_TS = heads_across(weights)[MEAN]
    sides = source[:-1].tolist(), target.tolist()
    return replace_unknown(translator.tokenizer, line, *sides, mean_TS, lexicon)


def translate(options: argparse.Namespace, output: BinaryIO) -> None:
    """Reads, translates and writes until the input ends."""
    import data
    from analysis.rare_words import read_lexicon
    from experiments.attention_file import AttentionFile

    lexicon = read_lexicon(options.lexicon) if options.lexicon else {}
    with contextlib.ExitStack() as stack:
        weights = options.attention and stack.enter_context(AttentionFile(options.attention))
        translator = build_translator(options)
        for number, lines in read_batches(options.input, options.batch_size):
            warn_of_long_lines(translator, options.input or "Standard input", number, lines)
            full = [i for i, line in enumerate(lines) if line.strip()]
            sources = translator.encode([lines[i] for i in full])
            found = translator.translate_ids(sources)
            texts = [""] * len(lines)
            for i, source, target in zip(full, sources, found, strict=True):
                text = translator.tokenizer.decode([int(token) for token in target])
                if options.replace_unknown and data.UNK in target:
                    text = without_unknown(translator, lines[i], source, target, lexicon)
                texts[i] = " ".join(text.splitlines())  # a byte model may write a line end
                if weights:
                    weights.add(number + i, translator, source, target)
            write(output, texts)


def write(output: BinaryIO, texts: Sequence[str]) -> None:
    """One line for each text, at once."""
    try:
        output.write("".join(f"{text}\n" for text in texts).encode())
        output.flush()
    except OSError as error:
        raise StorageError(f"Standard output: {error.strerror or error}.") from error


def run_filter(
    parser: Parser,
    work: Callable[[argparse.Namespace, BinaryIO], None],
    argv: Sequence[str] | None,
) -> int:
    """Does the work with the arguments and standard output, where nothing else is written.

    Args:
        parser: with `overrides`, so that an unknown argument gets the nearest known one.

    Returns:
        The exit code.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    output = sys.stdout.buffer

    def quietly(options: argparse.Namespace) -> None:
        if options.overrides:
            known = sorted(action.option_strings[-1] for action in parser._actions)
            got = options.overrides[0].partition("=")[0]
            raise ConfigError(registry.unknown("argument", got, known))
        with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints
            work(options, output)

    try:
        return parser.run(quietly, argv)
    except KeyboardInterrupt:
        return 130


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_filter(make_parser(), translate, argv)


if __name__ == "__main__":
    sys.exit(main())
