"""What See et al. (2017) add to an attending decoder: a pointer that copies, a coverage loss."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention.scores.base import wide
from models.layers import Dense

Array = jax.Array


class Pointer(nn.Module):
    """Writes a word of the vocabulary or copies one of the source (See et al. 2017, eq. 8 and 9).

      p_gen = sigma(w . x_t + b)     P(w) = p_gen P_vocab(w) + (1 - p_gen) sum_{i: x_i = w} a_i

    x_t is what the decoder knows: its state, its last word and the context, side by side. The
    paper has one head; of several, a is the mean. Weights that do not sum to one (local_p) are
    divided by their sum.

    Both sides have one vocabulary and it is not extended by the words of a source: what is
    copied is an id. A source word that the tokenizer does not know is UNK and is copied as UNK,
    which `--replace_unknown` of experiments/translate.py then replaces through the alignment.

    p_gen_BT is sown under 'intermediates'.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, logits_BTV: Array, x_BTD: Array, weights_BHTS: Array, source_BS: Array
    ) -> Array:
        """ln P(w), (B, T, V); finite, for P_vocab is nowhere 0.

        Args:
            logits_BTV: of P_vocab.
            weights_BHTS: attention to source_BS, the ids; none where a source is empty, and
                then P sums to p_gen.
        """
        gate_BT1 = wide(Dense((1,), ("hidden", "heads"), dtype=self.dtype, name="gate")(x_BTD))
        self.sow("intermediates", "p_gen", jax.nn.sigmoid(gate_BT1[..., 0]))
        weights_BTS = wide(weights_BHTS).mean(1)
        total_BT1 = weights_BTS.sum(-1, keepdims=True)
        weights_BTS = weights_BTS / jnp.where(total_BT1 > 0, total_BT1, 1)
        # A product with one-hot vectors: unlike a scatter, it adds up in one order everywhere.
        places_BSV = jax.nn.one_hot(source_BS, logits_BTV.shape[-1], dtype=weights_BTS.dtype)
        return log_mixture(logits_BTV, weights_BTS @ places_BSV, gate_BT1)


def log_mixture(logits_BTV: Array, copied_BTV: Array, gate_BT1: Array) -> Array:
    """ln(sigma(gate) softmax(logits) + (1 - sigma(gate)) copied), with no logarithm of zero."""
    written_BTV = jax.nn.log_sigmoid(gate_BT1) + jax.nn.log_softmax(logits_BTV)
    # 1 / copied, which the gradient multiplies with, has to stay finite.
    has_BTV = copied_BTV > jnp.finfo(copied_BTV.dtype).tiny
    logs_BTV = jax.nn.log_sigmoid(-gate_BT1) + jnp.log(jnp.where(has_BTV, copied_BTV, 1))
    return jnp.where(has_BTV, jnp.logaddexp(written_BTV, logs_BTV), written_BTV)


def coverage_loss(weights_BHTS: Array) -> Array:
    """What attention looks at again, sum_i min(a_i^t, c_i^t) with c^t = sum of a^t' over t' < t.

    (B, T), between 0 and 1, of the mean over heads (See et al. 2017, eq. 12).
    """
    weights_BTS = wide(weights_BHTS).mean(1)
    covered_BTS = jnp.cumsum(weights_BTS, axis=1) - weights_BTS
    return jnp.minimum(weights_BTS, covered_BTS).sum(-1)
