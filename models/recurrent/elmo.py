"""Two language models that read from both ends, and the mixture of their layers: ELMo."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from errors import ConfigError
from models import masks
from models.base import TiedOutput
from models.layers import DTYPES, Dropout, Embed, OutputLayer
from models.recurrent.characters import CharacterEmbed
from models.recurrent.layer import RecurrentLayer
from models.recurrent.options import CellOptions
from registry import NonNegativeInt, PositiveInt, Rate

Array = jax.Array

CELL = CellOptions(cell="projected_lstm")  # type: ignore[arg-type]  # no choice of a config


class ELMo(TiedOutput):
    """A bidirectional language model (Peters et al. 2018, section 3.1).

      p(forward) = prod_t p(w_t | w_1 .. w_t-1)     p(backward) = prod_t p(w_t | w_t+1 .. w_n)

    Each direction is a stack of LSTMs of its own with projections (Sak et al. 2014) and, from
    the second layer on, residual connections; both share the vectors of the words and the output
    layer. No state sees both sides of its word: only their mixture does.

    Attributes:
        embedding_size: width of the words' vectors, of the projections and of the output layer.
        hidden_size: of the cells.
        embedding: "table" looks ids up; "characters" makes vectors of the characters of words,
            and wants (B, T, W) of them instead of (B, T) ids.
        filters: (characters seen, number of filters) of each convolution over characters.
        character_size, num_highway: width of a character, highway layers.
    """

    kind = "bidirectional_lm"

    vocab_size: PositiveInt
    embedding_size: PositiveInt = 256
    hidden_size: PositiveInt = 512
    num_layers: PositiveInt = 2
    dropout_rate: Rate = 0.1
    tie_embeddings: bool = True
    embedding: Literal["table", "characters"] = "table"
    filters: tuple[tuple[PositiveInt, PositiveInt], ...] = ((1, 32), (2, 32), (3, 64), (4, 128))
    character_size: PositiveInt = 16
    num_highway: NonNegativeInt = 2
    dtype: Literal["float32", "bfloat16"] = "float32"

    def setup(self) -> None:
        dtype, size = DTYPES[self.dtype], self.embedding_size
        if self.embedding == "characters":
            if self.tie_embeddings:
                raise ConfigError(
                    "config.model.tie_embeddings=True needs embedding='table': vectors made of "
                    "characters are no matrix of words."
                )
            self.embed = CharacterEmbed(
                size, self.filters, self.character_size, self.num_highway, dtype
            )
        else:
            self.embed = Embed(self.vocab_size, size, dtype=dtype)
        if not self.tie_embeddings:
            self.output = OutputLayer(self.vocab_size, size)
        self.dropout = Dropout(self.dropout_rate)
        self.forward, self.backward = (
            [
                RecurrentLayer(self.hidden_size, CELL, reverse, dtype, size)
                for _ in range(self.num_layers)
            ]
            for reverse in (False, True)
        )

    def __call__(
        self,
        tokens_BT: Array,
        targets_BT: Array | None = None,
        segments_BT: Array | None = None,
        train: bool = False,
    ) -> Array:
        """Logits of both directions, (B, 2 T, vocab_size); see features."""
        targets_BT = tokens_BT if targets_BT is None else targets_BT
        x_BTE = self.features(tokens_BT, targets_BT, segments_BT, train)
        return self._logits(x_BTE)

    def features(
        self,
        inputs_BT: Array,
        targets_BT: Array,
        segments_BT: Array | None = None,
        train: bool = False,
    ) -> Array:
        """What the output layer sees: (B, 2 T, embedding_size).

        Place t of the first half has read inputs up to t and predicts targets[t]; place t of the
        second half has read targets from their end down to t and predicts inputs[t].
        """
        forward = self._read(self.forward, inputs_BT, segments_BT, train)[-1]
        backward = self._read(self.backward, targets_BT, segments_BT, train)[-1]
        return self.dropout(jnp.concatenate([forward, backward], axis=1), train)

    def layers(
        self, tokens_BT: Array, segments_BT: Array | None = None, train: bool = False
    ) -> list[Array]:
        """The words' vectors twice, then the states of both directions of each layer: num_layers
        + 1 arrays (B, T, 2 * embedding_size)."""
        both = zip(
            self._read(self.forward, tokens_BT, segments_BT, train),
            self._read(self.backward, tokens_BT, segments_BT, train),
            strict=True,
        )
        return [jnp.concatenate(pair, axis=-1) for pair in both]

    def _read(
        self,
        stack: list[RecurrentLayer],
        tokens_BT: Array,
        segments_BT: Array | None,
        train: bool,
    ) -> list[Array]:
        """The words' vectors and what each layer of a direction makes of them, (B, T, E)."""
        x_BTE, resets_TB = self.embed(tokens_BT), None
        if segments_BT is not None:  # padding must not reach a sum, not even as 0 * NaN
            x_BTE = jnp.where((segments_BT != 0)[:, :, None], x_BTE, 0)
            turn = -1 if stack[0].reverse else 1
            resets_TB = masks.starts(segments_BT[:, ::turn])[:, ::turn].T
        found = [x_BTE]
        x_TBE = x_BTE.transpose(1, 0, 2)
        for i, layer in enumerate(stack):
            below_TBE = self.dropout(x_TBE, train)
            _, x_TBE = layer(below_TBE, None, train, resets_TB)
            x_TBE = x_TBE + below_TBE if i else x_TBE
            found.append(x_TBE.transpose(1, 0, 2))
        return found


class ScalarMix(nn.Module):
    """gamma * sum_j softmax(w)_j h_j over layers of one shape (Peters et al. 2018, eq. 1).

    It begins as their mean.
    """

    num_layers: int

    @nn.compact
    def __call__(self, layers: list[Array]) -> Array:
        unnamed = nn.with_logical_partitioning
        weights = self.param("weights", unnamed(nn.initializers.zeros, (None,)), (self.num_layers,))
        gamma = self.param("gamma", nn.initializers.ones, ())
        shares = jax.nn.softmax(weights).astype(layers[0].dtype)
        mixed = sum(share * layer for share, layer in zip(shares, layers, strict=True))
        return gamma.astype(mixed.dtype) * mixed
