"""An encoder alone: BERT (Devlin et al. 2019) and what became of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import DTYPES, Dense, Embed
from models.masks import positions_in_segment, self_mask, whole_mask
from models.transformer.base import Transformer
from models.transformer.block import Context, activation_of
from registry import PositiveInt

Array = jax.Array


class TransformerEncoder(Transformer):
    """Reads a sequence in both directions; with the two heads of BERT's training.

    Attributes:
        num_types: of tokens, each with a vector of its own: BERT's sentences A and B.
    """

    kind = "encoder"
    num_layers: PositiveInt = 4
    num_types: PositiveInt = 2

    def setup(self) -> None:
        self._check()
        self._setup_embeddings()
        dtype = DTYPES[self.dtype]
        self.types = Embed(self.num_types, self.d_model, dtype, scaled=False)
        self.encoder = self._stack(*self._heads(), causal=False)
        self.transform = Dense((self.d_model,), ("embed", "mlp"), dtype=dtype)
        self.transform_norm = self._options().make_norm()
        self.pooler = Dense((self.d_model,), ("embed", "mlp"), dtype=dtype)
        self.pair = Dense((2,), ("embed", "hidden"), dtype=dtype)

    @nn.nowrap
    def _attention_layers(self) -> tuple[int, ...]:
        return (self.num_layers,)

    def features(
        self,
        tokens_BT: Array,
        segments_BT: Array | None = None,
        types_BT: Array | None = None,
        train: bool = False,
    ) -> Array:
        """The last layer's output, (B, T, d_model).

        Args:
            segments_BT: 0 is padding; 1, 2, ... are packed documents, which see nothing of one
                another. None: one document without padding.
            types_BT: below num_types; None: zeros.
        """
        mask = whole_mask(tokens_BT, causal=False)
        if segments_BT is None:
            segments_BT = jnp.ones_like(tokens_BT)
        else:
            mask = self_mask(segments_BT, causal=False)
        types_BT = jnp.zeros_like(tokens_BT) if types_BT is None else types_BT
        x_BTD = self.embed(tokens_BT) + self.types(types_BT)
        # Whatever stands in the padding must not reach a sum, not even as 0 * NaN.
        x_BTD = jnp.where((segments_BT != 0)[:, :, None], x_BTD, 0)
        place_BT = positions_in_segment(segments_BT)
        x_BTD = self._embed(self.encoder, x_BTD, place_BT, train)
        terms = self.encoder.terms(place_BT, place_BT)
        context = Context(mask, terms=terms)
        return self._finish(self.encoder(x_BTD, context, train))

    def token_features(self, x: Array) -> Array:
        """What the output layer sees of features (..., D) where a word is to be filled in:
        norm(f(W x + b)) (Devlin et al. 2019, in their code)."""
        return self.transform_norm(activation_of(self.activation)(self.transform(x)))

    def pooled(self, x_BTD: Array) -> Array:
        """One vector a row, tanh(W x_0 + b) of its first place: (B, d_model)."""
        return jnp.tanh(self.pooler(x_BTD[:, 0]))

    def pair_logits(self, pooled_BD: Array) -> Array:
        """Whether the second sentence follows the first (index 1) or is any other: (B, 2)."""
        return self.pair(pooled_BD).astype(jnp.float32)

    def __call__(
        self,
        tokens_BT: Array,
        segments_BT: Array | None = None,
        types_BT: Array | None = None,
        train: bool = False,
    ) -> dict[str, Array]:
        """All of it: {"features": (B, T, D), "pooled": (B, D), "logits": (B, T, V),
        "pair_logits": (B, 2)}."""
        x_BTD = self.features(tokens_BT, segments_BT, types_BT, train)
        pooled_BD = self.pooled(x_BTD)
        return {
            "features": x_BTD,
            "pooled": pooled_BD,
            "logits": self._logits(self.token_features(x_BTD)),
            "pair_logits": self.pair_logits(pooled_BD),
        }
