"""Text in, text out: a trained encoder-decoder, its tokenizer and a search as one thing."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import data
import decoding

Array = jax.Array

# A search compiles for each shape, in seconds, so that there are few: widths to which sources
# are padded (their multiples by powers of two after the last), and numbers of rows.
WIDTHS = (16, 24, 32, 48)
SIZES = (1, 4, 16)
CELLS_PER_BATCH = 8192  # source tokens times hypotheses searched at once, at most
AXIS = "rows"


def output_length(source_length: Any) -> Any:
    """The greatest number of tokens generated for a source of so many, or for each of many."""
    return 3 * source_length // 2 + 10


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5), static_argnames="mesh")
def search(
    model: Any,
    variables: Any,
    source_BS: Array,
    max_len: int,
    num_beams: int,
    penalty: float,
    *,
    mesh: Mesh | None = None,
) -> decoding.SearchResult:
    """The best output for each row by beam search, or greedily with one beam.

    Args:
        mesh: devices that share the rows; each goes on until its own are done.
    """

    def rows(variables: Any, source_BS: Array) -> decoding.SearchResult:
        return _search_rows(model, variables, source_BS, max_len, num_beams, penalty)

    return spread(rows, mesh)(variables, source_BS) if mesh else rows(variables, source_BS)


def spread(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """function(variables, rows) with the rows spread over the devices of the mesh."""
    each, whole = PartitionSpec(AXIS), PartitionSpec()
    # A loop's first carry is the same on all devices and its last is not; JAX would refuse it.
    return jax.shard_map(
        function, mesh=mesh, in_specs=(whole, each), out_specs=each, check_vma=False
    )


def mesh_for(num_rows: int) -> Mesh:
    """As many of this host's devices as share so many rows evenly."""
    devices = jax.local_devices()
    number = max(n for n in range(1, len(devices) + 1) if num_rows % n == 0)
    return Mesh(np.array(devices[:number]), (AXIS,))


def _search_rows(
    model: Any, variables: Any, source_BS: Array, max_len: int, num_beams: int, penalty: float
) -> decoding.SearchResult:
    encoded = model.apply(variables, source_BS, method="encode")
    carry = model.apply(variables, encoded, max_len, num_beams, method="init_carry")

    def step(carry: Any, token_B: Array) -> tuple[Any, Array]:
        return model.apply(variables, carry, token_B, method="step")

    limit_B = output_length((source_BS != data.PAD).sum(axis=1)).astype(jnp.int32)
    limits: dict[str, Any] = {
        "max_len_B": jnp.minimum(limit_B, max_len),
        "banned": (data.PAD, data.BOS),
    }
    if num_beams == 1:
        return decoding.greedy_search(step, carry, source_BS.shape[0], max_len, **limits)
    return decoding.beam_search(
        step,
        carry,
        source_BS.shape[0],
        max_len,
        num_beams=num_beams,
        length_penalty=penalty,
        **limits,
    )


def padded_width(length: int) -> int:
    """The first of 16, 24, 32, 48, 64, 96, 128, ... that holds so many tokens."""
    ladder = (*WIDTHS, *(base << n for n in range(1, 16) for base in WIDTHS[2:]))
    return next(width for width in ladder if width >= length)


class Translator:
    """Translates lines of text with a seq2seq model.

    Args:
        max_length: source tokens beyond it are cut off.
    """

    def __init__(
        self,
        model: Any,
        variables: Any,
        tokenizer: Any,
        *,
        num_beams: int = 5,
        length_penalty: float = 1.0,
        max_length: int = 256,
    ) -> None:
        self.model, self.variables, self.tokenizer = model, variables, tokenizer
        self.num_beams, self.length_penalty = num_beams, length_penalty
        self.max_length = max_length
        self._placed: dict[Mesh, Any] = {}

    def _variables_on(self, mesh: Mesh) -> Any:
        if mesh not in self._placed:
            everywhere = NamedSharding(mesh, PartitionSpec())
            self._placed[mesh] = jax.device_put(self.variables, everywhere)
        return self._placed[mesh]

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Source ids of each line, EOS at the end."""
        ids = self.tokenizer.encode_batch(texts)
        return [np.append(np.asarray(i[: self.max_length - 1], np.int32), data.EOS) for i in ids]

    def translate_ids(
        self, sources: Sequence[np.ndarray], poll: Callable[[], None] = lambda: None
    ) -> list[np.ndarray]:
        """Output ids of each source, without EOS and padding, in the order given."""
        results: list[np.ndarray] = [np.zeros(0, np.int32)] * len(sources)
        for rows, source_BS in self._batches(sources):
            poll()
            mesh = mesh_for(len(source_BS))
            found = search(
                self.model,
                self._variables_on(mesh),
                source_BS,
                output_length(source_BS.shape[1]),
                self.num_beams,
                self.length_penalty,
                mesh=mesh,
            )
            tokens_BT = np.asarray(found.tokens_BKT)[:, 0]
            for row, tokens_T in zip(rows, tokens_BT, strict=False):
                results[row] = tokens_T[(tokens_T != data.PAD) & (tokens_T != data.EOS)]
        return results

    def num_searches(self, texts: Sequence[str]) -> int:
        """How often `translate` calls poll()."""
        return sum(1 for _ in self._batches(self.encode([text for text in texts if text.strip()])))

    def translate(self, texts: Sequence[str], poll: Callable[[], None] = lambda: None) -> list[str]:
        """One output line for each input line; an empty line gives an empty line."""
        full = [i for i, text in enumerate(texts) if text.strip()]
        outputs = self.translate_ids(self.encode([texts[i] for i in full]), poll)
        lines = [""] * len(texts)
        for i, ids in zip(full, outputs, strict=True):
            lines[i] = self.tokenizer.decode([int(t) for t in ids])
        return lines

    def _batches(self, sources: Sequence[np.ndarray]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Rows of like lengths, padded to one of a handful of shapes."""
        widths = [padded_width(len(source)) for source in sources]
        in_order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        for width in sorted(set(widths)):
            rows = [i for i in in_order if widths[i] == width]
            full = max(1, CELLS_PER_BATCH // (width * self.num_beams))
            full -= full % min(full, jax.local_device_count())
            size = min((size for size in SIZES if len(rows) <= size < full), default=full)
            for start in range(0, len(rows), size):
                chosen = rows[start : start + size]
                source_BS = np.zeros((size, width), np.int32)
                for place, row in enumerate(chosen):
                    source_BS[place, : len(sources[row])] = sources[row]
                yield chosen, source_BS
