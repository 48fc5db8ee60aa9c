"""What is trained in the comparisons: a model, its shapes, and the same for the peer."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

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
    """

    title: str
    model: Mapping[str, Any]
    vocab_size: int
    rows: int
    source_length: int
    target_length: int
    label_smoothing: float = 0.0
    goal: float | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of a batch, on both sides."""
        return self.rows * (self.source_length + self.target_length)

    def batch(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Random tokens in the layout of data.PairBatches or data.LanguageBatches."""
        random = np.random.default_rng(seed)

        def tokens(length: int) -> np.ndarray:
            return random.integers(FIRST_WORD, self.vocab_size, (self.rows, length), np.int32)

        batch = {"inputs": tokens(self.target_length), "targets": tokens(self.target_length)}
        batch["weights"] = np.ones((self.rows, self.target_length), np.float32)
        if self.source_length:
            batch["source"] = tokens(self.source_length)
        else:
            batch["segments"] = np.ones((self.rows, self.target_length), np.int32)
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


def lstm_attention(width: int) -> dict[str, Any]:
    """Block of an LSTM with additive attention, one layer on both sides."""
    return {"name": "recurrent_seq2seq", "embedding_size": width, "hidden_size": width}


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
