"""What is trained in the comparisons: a model, its shapes, and the same for the peer."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from configs.base import BERT, GPT

FIRST_WORD = 4  # ids below are PAD, UNK, BOS, EOS


@dataclasses.dataclass(frozen=True)
class Workload:
    """One training step to measure.

    Attributes:
        title: for the table.
        model: the config block.
        vocab_size: of both sides.
        rows, source_length, target_length: shape of the batch; source_length 0 for a
            language model. All places hold tokens: padding would be work of no use.
        label_smoothing: of the loss.
        goal: tokens per second over those of the peer.
        hidden: places of a row of BERT's two texts that are to be found out; 0 for others.
    """

    title: str
    model: Mapping[str, Any]
    vocab_size: int
    rows: int
    source_length: int
    target_length: int
    label_smoothing: float = 0.0
    goal: float | None = None
    hidden: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens of a batch, on both sides."""
        return self.rows * (self.source_length + self.target_length)

    def batch(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Random tokens in the layout of data.PairBatches, LanguageBatches or MaskedBatches."""
        random = np.random.default_rng(seed)

        def tokens(length: int) -> np.ndarray:
            return random.integers(FIRST_WORD, self.vocab_size, (self.rows, length), np.int32)

        places = self.hidden or self.target_length
        batch = {"inputs": tokens(self.target_length), "targets": tokens(places)}
        batch["weights"] = np.ones((self.rows, places), np.float32)
        if self.source_length:
            batch["source"] = tokens(self.source_length)
            return batch
        if self.hidden:
            order = random.permuted(np.tile(np.arange(self.target_length), (self.rows, 1)), axis=1)
            batch["places"] = np.sort(order[:, : self.hidden]).astype(np.int32)
            second = np.arange(self.target_length) >= self.target_length // 2
            batch["types"] = np.tile(second.astype(np.int32), (self.rows, 1))
            batch["is_next"] = np.arange(self.rows, dtype=np.int32) % 2
            batch["pairs"] = np.ones(self.rows, np.float32)
        return batch

    def changed(self, **options: Any) -> "Workload":
        """The same with other options of the model."""
        return dataclasses.replace(self, model={**self.model, **options})


def _shape(width: int, num_heads: int) -> dict[str, int]:
    return {"d_model": width, "num_heads": num_heads, "d_ff": 4 * width}


def transformer_seq2seq(width: int, num_heads: int, layers: int) -> dict[str, Any]:
    """Block of an encoder-decoder with as many layers on both sides."""
    both = {"num_encoder_layers": layers, "num_decoder_layers": layers}
    return {"name": "transformer_seq2seq", **_shape(width, num_heads), **both}


def transformer_lm(width: int, num_heads: int, layers: int) -> dict[str, Any]:
    """Block of a decoder-only language model."""
    return {"name": "transformer_lm", **_shape(width, num_heads), "num_layers": layers}


def lstm_attention(width: int, layers: int = 1) -> dict[str, Any]:
    """Block of an LSTM with additive attention, as many layers on both sides."""
    both = {"num_encoder_layers": layers, "num_decoder_layers": layers}
    return {"name": "recurrent_seq2seq", "embedding_size": width, "hidden_size": width, **both}


ON_CPU = (
    Workload(
        "Transformer encoder-decoder, d 256, 3+3 layers, V 4000, B 64, S = T = 32",
        transformer_seq2seq(256, 4, 3),
        vocab_size=4000,
        rows=64,
        source_length=32,
        target_length=32,
        label_smoothing=0.1,
        goal=1.0,
    ),
    Workload(
        "Transformer LM, d 256, 4 layers, V 8192, B 16, T 128",
        transformer_lm(256, 4, 4),
        vocab_size=8192,
        rows=16,
        source_length=0,
        target_length=128,
        goal=1.0,
    ),
    Workload(
        "LSTM with additive attention, H 256, V 4000, B 64, S = T = 32",
        lstm_attention(256),
        vocab_size=4000,
        rows=64,
        source_length=32,
        target_length=32,
        label_smoothing=0.1,
        goal=1.2,
    ),
)

FAMILIES = (
    Workload(
        "GPT-2 small, V 50257, B 2, T 256",
        GPT["gpt2-small"],
        vocab_size=50257,
        rows=2,
        source_length=0,
        target_length=256,
        goal=1.0,
    ),
    Workload(
        "BERT base, V 30522, B 4, T 128, 19 places hidden",
        BERT["bert-base"],
        vocab_size=30522,
        rows=4,
        source_length=0,
        target_length=128,
        hidden=19,
        goal=1.0,
    ),
)
