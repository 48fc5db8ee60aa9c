"""Options and embeddings that all recurrent models share."""

from typing import Literal

import jax
import jax.numpy as jnp

from models.base import TiedOutput
from models.layers import DTYPES, Dense, Dropout, Embed, OutputLayer
from models.recurrent.layer import RecurrentStack
from models.recurrent.options import CellOptions
from models.remat import Remat
from registry import PositiveInt, Rate

Array = jax.Array


class Recurrent(TiedOutput, CellOptions):
    """What a recurrent language model and a recurrent encoder-decoder have in common.

    residual: each layer above the first adds its outputs to its inputs (Wu et al. 2016).
    """

    vocab_size: PositiveInt
    embedding_size: PositiveInt = 256
    hidden_size: PositiveInt = 256
    dropout_rate: Rate = 0.2
    tie_embeddings: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Remat = False
    residual: bool = False

    def _setup_embeddings(self) -> None:
        dtype = DTYPES[self.dtype]
        self.embed = Embed(self.vocab_size, self.embedding_size, dtype=dtype)
        self.dropout = Dropout(self.dropout_rate)
        self.readout = Dense((self.embedding_size,), ("hidden", "embed"), dtype=dtype)
        if not self.tie_embeddings:
            self.output = OutputLayer(self.vocab_size, self.embedding_size)

    def _stack(self, num_layers: int) -> RecurrentStack:
        return RecurrentStack(
            self.hidden_size,
            num_layers,
            self.cell_options(),
            self.residual,
            self.dropout_rate,
            DTYPES[self.dtype],
            self.remat,
        )

    def _embed(self, tokens_BT: Array, train: bool) -> Array:
        """Embedded tokens with time first, (T, B, embedding_size)."""
        return self.dropout(self.embed(tokens_BT.T), train)

    def _read(self, parts: list[Array], train: bool = False) -> Array:
        """One tanh layer between the states and the output layer."""
        return jnp.tanh(self.readout(self.dropout(jnp.concatenate(parts, axis=-1), train)))
