"""Prompts in, text out: a trained language model, its tokenizer and sampling as one thing."""

import functools
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import data
from data.tokenizers import Tokenizer
from decoding import sampling
from decoding.filters import Filters
from decoding.sampling import Rules, Samples
from errors import ConfigError
from tasks.search import SIZES, padded_width

Array = jax.Array
UNFILTERED = Filters()
UNFINISHED = "\ufffd"  # what bytes that are no character yet are decoded to


class Generation(NamedTuple):
    """One sample of a prompt.

    ids: without EOS; to the end of the stop word where there is one.
    text: what follows the prompt, up to a stop word.
    end: what ended it: "eos", "stop" or "length".
    log_probs: of the ids, and of EOS where there is one, in nats: under the model, before any
        filter.
    drawn_log_probs: under what they were drawn from, after all filters.
    """

    seed: int
    ids: list[int]
    text: str
    end: str
    log_probs: list[float]
    drawn_log_probs: list[float]


@functools.partial(jax.jit, static_argnums=0, static_argnames=("max_new", "rules"))
def begin(
    model: Any,
    variables: Any,
    tokens_BT: Array,
    lengths_B: Array,
    seeds_BN: Array,
    filters: Filters,
    *,
    max_new: int,
    rules: Rules,
) -> Samples:
    """Reads the prompts in one pass and draws the first token of N samples of each."""
    batch_size, width = tokens_BT.shape
    carry = model.init_carry(batch_size, width + max_new)
    read = model.apply(variables, carry, tokens_BT, lengths_B, method="prefill")
    prompts = (*read, tokens_BT, lengths_B)
    carry, logits_RV, tokens_RT, lengths_R = sampling.repeated(prompts, seeds_BN.shape[1])
    return sampling.start(
        carry, logits_RV, seeds_BN.reshape(-1), max_new, filters, rules, tokens_RT, lengths_R
    )


@functools.partial(jax.jit, static_argnums=0, static_argnames="rules", donate_argnames="samples")
def go_on(
    model: Any, variables: Any, samples: Samples, filters: Filters, length: Array, *, rules: Rules
) -> Samples:
    """Draws tokens until each sample has `length` of them or has ended."""

    def step(carry: Any, token_R: Array) -> tuple[Any, Array]:
        return model.apply(variables, carry, token_R, method="step")

    return sampling.advance(step, samples, filters, rules, length)


def mixed(prompt: Sequence[int], seeds: Sequence[int]) -> list[int]:
    """Seeds of a prompt's own, as different as those given: no two prompts share their noise.

    With the seeds as they are, nearly uniform models would write one text for every prompt.
    """
    content = np.array(prompt, "<i4").tobytes()
    return [zlib.crc32(content, seed) for seed in seeds]


class Generator:
    """Goes on with prompts.

    Sample i of each prompt is drawn with seed + i: it is the same alone, beside others, and in
    whatever file the prompt stands.

    Args:
        filters: what tokens are drawn from; see decoding/filters.py.
        max_new_tokens: tokens of a sample, at most, its end included.
        stop: texts that end a sample and are not part of it.
        batch_size: samples drawn at once, at most.
        two_sided: the model has learned pairs, and a prompt is the source of one.

    Raises:
        ConfigError: a filter's number is out of its range, or max_new_tokens are more than the
            model has positions for.
    """

    def __init__(
        self,
        model: Any,
        variables: Any,
        tokenizer: Tokenizer,
        *,
        filters: Filters = UNFILTERED,
        max_new_tokens: int = 64,
        stop: Sequence[str] = (),
        batch_size: int = 16,
        two_sided: bool = False,
    ) -> None:
        self.model, self.variables, self.tokenizer = model, variables, tokenizer
        self.filters, self.max_new_tokens = filters.checked(), max_new_tokens
        self.stop, self.batch_size = tuple(stop), batch_size
        self.suffix = [data.BOS] * two_sided  # as data.LanguageBatches writes pairs
        # The text decides, which may be cut into tokens otherwise; these end most samples early.
        stops = tuple(
            tuple(ids)
            for text, ids in zip(stop, tokenizer.encode_batch(self.stop), strict=True)
            if ids and tokenizer.decode(ids) == text
        )
        no_text = (data.PAD, data.BOS, *tokenizer.reserved.values())
        self.rules = Rules(data.EOS, data.PAD, no_text, stops)

        self.longest_prompt = self._room()

    def _room(self) -> int | None:
        """How many tokens of a prompt the model can read besides; None for any."""
        limit = self.model.longest_row()
        if limit is None:
            return None
        room = limit - self.max_new_tokens - 1 - len(self.suffix)  # one is BOS
        if room < 1:
            raise ConfigError(
                f"max_new_tokens must leave room for a prompt: the model has {limit} positions, "
                f"got {self.max_new_tokens}."
            )
        return room

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """The ids of each prompt, BOS before them; of one that is too long the last ones."""
        most = self.longest_prompt
        cut = [ids if most is None else ids[-most:] for ids in self.tokenizer.encode_batch(prompts)]
        return [[data.BOS, *ids, *self.suffix] for ids in cut]

    def generate(
        self, prompts: Sequence[str], num_samples: int = 1, seed: int = 0
    ) -> list[list[Generation]]:
        """num_samples of each prompt, in the order given."""
        encoded = self.encode(prompts)
        found: list[list[Generation]] = [[] for _ in prompts]
        seeds = range(seed, seed + num_samples)
        together = min(num_samples, self.batch_size)
        most = self.batch_size // together
        size = min((size for size in SIZES if len(prompts) <= size < most), default=most)
        for first in range(0, len(prompts), size):
            rows = encoded[first : first + size]
            for start in range(0, num_samples, together):
                chosen = seeds[start : start + together]
                samples = self._start(rows, chosen, size)
                samples = self._until(samples, self.max_new_tokens)
                arrays = jax.device_get(samples._replace(carry={}, seen_RV=None))
                for i, prompt in enumerate(rows):
                    for j, one in enumerate(chosen):
                        generation = self._generation(prompt, one, arrays, i * len(chosen) + j)
                        found[first + i].append(generation)
        return found

    def stream(self, prompt: str, seed: int = 0) -> Iterator[str]:
        """The text of one sample in pieces, each as soon as nothing can change it."""
        (ids,) = self.encode([prompt])
        samples, told = self._start([ids], [seed], 1), 0
        for length in range(1, self.max_new_tokens + 1):
            samples = self._until(samples, length)
            new, ended = jax.device_get((samples.tokens_RT[0], samples.ended_R[0]))
            text, stopped = self._text(ids, new.tolist())
            final = len(text) if ended or stopped else self._num_final(text)
            yield text[told:final]
            told = max(told, final)
            if ended or stopped:
                return

    def _start(self, rows: Sequence[list[int]], seeds: Sequence[int], size: int) -> Samples:
        """The first tokens, of one of few shapes: rows are padded to `size` and a width."""
        width = padded_width(max(map(len, rows)))
        tokens_BT = np.full((size, width), data.PAD, np.int32)
        for place, ids in enumerate(rows):
            tokens_BT[place, : len(ids)] = ids
        filling = [seeds] * (size - len(rows))
        seeds_BN = np.array([mixed(ids, seeds) for ids in rows] + filling, np.uint32)
        lengths_B = np.array([*map(len, rows)] + [0] * (size - len(rows)), np.int32)
        return begin(
            self.model,
            self.variables,
            tokens_BT,
            lengths_B,
            seeds_BN,
            self.filters,
            max_new=self.max_new_tokens,
            rules=self.rules,
        )

    def _until(self, samples: Samples, length: int) -> Samples:
        return go_on(
            self.model, self.variables, samples, self.filters, jnp.int32(length), rules=self.rules
        )

    def _generation(self, prompt: list[int], seed: int, arrays: Samples, row: int) -> Generation:
        length = int(arrays.length_R[row])
        tokens = arrays.tokens_RT[row, :length].tolist()
        text, stopped = self._text(prompt, tokens)
        if stopped:
            length = next(n for n in range(length + 1) if self._text(prompt, tokens[:n])[1])
            tokens = tokens[:length]
        ended = length > 0 and tokens[-1] == data.EOS
        end = "stop" if stopped else "eos" if ended else "length"
        return Generation(
            seed,
            tokens[: length - bool(ended)],
            text,
            end,
            arrays.log_probs_RT[row, :length].tolist(),
            arrays.drawn_log_probs_RT[row, :length].tolist(),
        )

    def _text(self, prompt: list[int], new: Sequence[int]) -> tuple[str, bool]:
        """What follows the prompt, and whether a stop word ended it.

        Decoded behind the prompt, for a first word may be written otherwise at the beginning
        of a text. A character that has not all of its bytes is not part of it.
        """
        before = self.tokenizer.decode(prompt)
        text = self.tokenizer.decode([*prompt, *new])[len(before) :]
        places = [place for stop in self.stop if (place := text.find(stop)) >= 0]
        if places:
            return text[: min(places)], True
        return text.rstrip(UNFINISHED), False

    def _num_final(self, text: str) -> int:
        """How many characters are no part of a stop word that may be coming."""
        begun = [n for stop in self.stop for n in range(1, len(stop)) if text.endswith(stop[:n])]
        return len(text) - max(begun, default=0)
