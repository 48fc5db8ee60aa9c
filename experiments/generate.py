"""Goes on with prompts by a trained language model: text in, text out.

  python experiments/generate.py --workdir=RUN --prompt="In the beginning" --top_p=0.9
  python experiments/generate.py --workdir=RUN --num_samples=3 < prompts.txt > texts.txt

Reads one prompt a line, unless --prompt gives one, and writes a line for each of its samples:
what follows the prompt, line ends as spaces. On a terminal the text appears word by word behind
the prompt. --logprobs writes a line of JSON for each sample instead:

  prompt, sample, seed, text    seed: with --seed of that number it is the first sample
  end                           "eos", "stop" (one of --stop) or "length"
  ids                           the tokens, without EOS
  log_probs                     of each token and of EOS, in nats, under the model
  drawn_log_probs               the same under what they were drawn from: after temperature,
                                --top_k and the other filters

Sample i of every prompt is drawn with seed SEED + i, so that it depends neither on the other
prompts nor on --batch_size. Exit codes: 0 done, 64 wrong arguments, 65 bad data, 74 disk.
"""

import argparse
import contextlib
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from errors import ConfigError, Parser, StorageError
from experiments.translate import (
    non_negative,
    read_batches,
    run_filter,
    whole_number,
    write,
)

# What a terminal takes as a command; a model may write any of them.
CONTROLS = {n: "\ufffd" for n in (*range(32), *range(127, 160)) if chr(n) not in "\n\t"}


def above_zero(most: float = math.inf) -> Callable[[str], float]:
    """The type of an argument that is a number above 0 and at most `most`."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if 0 < float(text) <= most and float(text) < math.inf:
                return float(text)
        limit = f" and at most {most:g}" if most < math.inf else ""
        raise argparse.ArgumentTypeError(f"must be a number above 0{limit}, got {text!r}")

    return parse


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__, overrides=True)
    add = parser.add_argument
    add("--workdir", required=True, help="run directory of a language model")
    add("--prompt", help="the one prompt, instead of lines")
    add("--input", metavar="FILE", help="read prompts from this file, not standard input")
    add("--num_samples", type=whole_number(1), default=1, help="of each prompt (default 1)")
    add("--temperature", type=non_negative, default=1.0, help="0: the most probable (default 1)")
    add("--top_k", type=whole_number(1), help="draw from the k most probable tokens only")
    add("--top_p", type=above_zero(1.0), help="from the fewest with probability p together")
    add("--min_p", type=above_zero(1.0), help="from those with p times that of the best one")
    add("--repetition_penalty", type=above_zero(), help="of tokens there before; above 1: less")
    add("--seed", type=whole_number(0), default=0, help="of the first sample (default 0)")
    add("--max_new_tokens", type=whole_number(1), default=64, help="of a sample (default 64)")
    add("--stop", action="append", default=[], help="text that ends a sample; may be repeated")
    add("--logprobs", action="store_true", help="JSON lines with log-probabilities")
    add("--batch_size", type=whole_number(1), default=16, help="samples at a time (default 16)")
    add("--checkpoint", type=whole_number(0), metavar="STEP", help="instead of the final one")
    return parser


def check(options: argparse.Namespace) -> None:
    """Refuses arguments that do not go together; raises ConfigError."""
    if options.prompt is not None and options.input is not None:
        raise ConfigError("--prompt and --input: only one of them can be given.")
    if "" in options.stop:
        raise ConfigError("Argument --stop: must be a text that is not empty.")
    if options.seed + options.num_samples > 2**32:
        raise ConfigError(f"Argument --seed: must be below 2^32, got {options.seed}.")


def build_generator(options: argparse.Namespace) -> Any:
    """The generator of a run directory with the options of the command line."""
    from decoding.filters import Filters
    from tasks.generation import Generator
    from trained import load_run  # here, so that wrong arguments are named at once

    run = load_run(options.workdir, "language_model", options.checkpoint)
    names = ("repetition_penalty", "top_k", "top_p", "min_p")
    filters = Filters(
        temperature=options.temperature or None,
        **{name: getattr(options, name) for name in names},
    )
    return Generator(
        run.model,
        run.variables,
        run.tokenizer,
        filters=filters,
        max_new_tokens=options.max_new_tokens,
        stop=options.stop,
        batch_size=options.batch_size,
        two_sided=run.settings["task"].get("side") == "both",
    )


def prompts_of(options: argparse.Namespace) -> Iterator[tuple[int, list[str]]]:
    """(number of the first prompt, prompts that have arrived together), in order."""
    if options.prompt is not None:
        yield 1, [options.prompt]
    else:
        most = max(1, options.batch_size // options.num_samples)
        yield from read_batches(options.input, most)


def warn_of_long_prompts(generator: Any, name: str, number: int, prompts: Sequence[str]) -> None:
    """Names the prompts of which only the end is read."""
    most = generator.longest_prompt
    for i, ids in enumerate(generator.tokenizer.encode_batch(prompts)):
        if most is not None and len(ids) > most:
            message = "%s, line %d: %d tokens, cut to the last %d (the model has %d positions)."
            limit = generator.model.longest_row()
            logging.warning(message, name, number + i, len(ids), most, limit)


def lines_for(prompt: str, samples: Sequence[Any], as_json: bool) -> Iterator[str]:
    """What is written of the samples of a prompt."""
    for i, sample in enumerate(samples):
        if as_json:
            record = {"prompt": prompt, "sample": i, **sample._asdict()}
            yield json.dumps(record, ensure_ascii=False)
        else:
            yield " ".join(sample.text.splitlines())


def say(output: BinaryIO, text: str) -> None:
    """Writes to a terminal at once."""
    try:
        output.write(text.translate(CONTROLS).encode())
        output.flush()
    except OSError as error:
        raise StorageError(f"Standard output: {error.strerror or error}.") from error


def generate(options: argparse.Namespace, output: BinaryIO) -> None:
    """Reads prompts, goes on with them and writes until the input ends."""
    check(options)
    generator = build_generator(options)
    name = "--prompt" if options.prompt is not None else options.input or "Standard input"
    for number, prompts in prompts_of(options):
        warn_of_long_prompts(generator, name, number, prompts)
        if output.isatty() and not options.logprobs:
            for prompt in prompts:
                for seed in range(options.seed, options.seed + options.num_samples):
                    say(output, prompt)
                    for piece in generator.stream(prompt, seed):
                        say(output, piece)
                    say(output, "\n")
            continue
        found = generator.generate(prompts, options.num_samples, options.seed)
        for prompt, samples in zip(prompts, found, strict=True):
            write(output, list(lines_for(prompt, samples, options.logprobs)))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_filter(make_parser(), generate, argv)


if __name__ == "__main__":
    sys.exit(main())
