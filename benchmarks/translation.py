"""Beam search against Hugging Face's `generate`, on the same weights.

  python -m benchmarks.translation

A Transformer of 6+6 layers translates 32 sentences of 24 tokens into 32 tokens with five
beams; the lengths are forced, so that both sides do the same work on untrained weights.
"""

import sys
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import decoding
import models
from benchmarks import harness, texts
from benchmarks.workloads import FIRST_WORD, transformer_seq2seq
from tasks.search import mesh_for, spread
from training import cores

TITLE = "Translation with five beams, against Hugging Face generate"
BLOCK = {**transformer_seq2seq(256, 8, 6), "layer_norm": "post"}
VOCAB_SIZE, SENTENCES, SOURCE_LENGTH, TARGET_LENGTH, NUM_BEAMS = 8000, 32, 24, 32, 5
GOAL = 2.0
SCALE = 2.0


def fresh_model(block: dict[str, Any], vocab_size: int) -> tuple[Any, Any]:
    """A model and its variables, the same in every process."""
    model = models.build(block, vocab_size)
    variables = models.init(model, jax.random.key(0))
    # Fresh weights repeat one token for ever; larger ones write varied sentences.
    return model, jax.tree.map(lambda x: SCALE * x if x.ndim > 1 else x, variables)


class Search:
    """Our beam search, compiled for one shape; calling it gives (B, T) token ids."""

    def __init__(
        self, block: dict[str, Any], vocab_size: int, source_BS: np.ndarray, length: int
    ) -> None:
        self.model, self.variables = fresh_model(block, vocab_size)
        self.source_BS, self.length = source_BS, length
        mesh = mesh_for(len(source_BS))
        self._search = jax.jit(spread(self._translate, mesh))
        self.variables = jax.device_put(self.variables, NamedSharding(mesh, PartitionSpec()))

    def _translate(self, variables: Any, source_BS: jax.Array) -> jax.Array:
        apply = self.model.apply
        encoded = apply(variables, source_BS, method="encode")
        carry = apply(variables, encoded, self.length, NUM_BEAMS, method="init_carry")

        def step(carry: Any, token_B: jax.Array) -> tuple[Any, jax.Array]:
            return apply(variables, carry, token_B, method="step")

        found = decoding.beam_search(
            step,
            carry,
            source_BS.shape[0],
            self.length,
            num_beams=NUM_BEAMS,
            min_len=self.length - 1,
        )
        return found.tokens_BKT[:, 0]

    def __call__(self) -> np.ndarray:
        return np.asarray(self._search(self.variables, self.source_BS))


def sources(rows: int, length: int, vocab_size: int) -> np.ndarray:
    """Random sentences, (B, S)."""
    random = np.random.default_rng(0)
    return random.integers(FIRST_WORD, vocab_size, (rows, length), np.int32)


def main() -> int:
    """Measures, prints and keeps the table."""
    options = harness.arguments(__doc__, rounds=9).parse_args()
    cores.split()
    source_BS = sources(SENTENCES, SOURCE_LENGTH, VOCAB_SIZE)
    job = texts.Job(
        TITLE,
        worker="translation",
        build=lambda: Search(BLOCK, VOCAB_SIZE, source_BS, TARGET_LENGTH),
        what=f"{SENTENCES} sentences, {SOURCE_LENGTH} -> {TARGET_LENGTH} tokens, 6+6 layers, d 256",
        units=SENTENCES,
        unit="sentences",
        goal=GOAL,
        wrote="translations",
    )
    return texts.compare(job, options)


if __name__ == "__main__":
    sys.exit(main())
