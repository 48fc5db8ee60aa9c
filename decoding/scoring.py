"""What greedy and beam search share: the result, the ranking of tokens, the length penalty.

Dimension letters: B batch, K hypotheses of one row, R = B * K rows of the model,
T target length, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from errors import ConfigError

Carry = Mapping[str, Any]  # {"state": what step changes, "memory": what it only reads}
Step = Callable[[Carry, Array], tuple[Carry, Array]]  # (carry, token_R) -> (carry, logits_RV)

BLOCK = 64  # columns; 32 to 80 are equally fast for a vocabulary of 8,000


class SearchResult(NamedTuple):
    """Hypotheses of each batch row, the best first.

    tokens_BKT: token ids without BOS; PAD after EOS. A hypothesis without EOS was cut off by
        the length limit.
    scores_BK: log-probability divided by the length penalty; -inf where there is no hypothesis.
    log_probs_BK: natural logarithm of the probability that the model gives to those tokens.
    lengths_BK: number of tokens, EOS included.
    """

    tokens_BKT: Array
    scores_BK: Array
    log_probs_BK: Array
    lengths_BK: Array


def length_penalty_of(length: Array | int, alpha: float) -> Array:
    """lp(Y) = ((5 + |Y|) / 6) ** alpha (Wu et al. 2016, eq. 14), |Y| with EOS."""
    return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** alpha


class Limits(NamedTuple):
    """What ends a hypothesis and what may not stand in it."""

    eos: int
    min_len: int
    banned: tuple[int, ...]
    max_len_B: Array  # at least 1

    @property
    def num_forbidden(self) -> int:
        """How many ids `forbidden` may name."""
        return len(self.banned) + (self.min_len > 0)

    def forbidden(self, vocab_size: int, length: Array) -> Array:
        """forbidden_V, True for ids that may not follow `length` tokens."""
        forbidden_V = np.zeros(vocab_size, bool)
        forbidden_V[list(self.banned)] = True
        return jnp.asarray(forbidden_V).at[self.eos].set(length < self.min_len)


def make_limits(
    batch_size: int,
    max_len: int,
    max_len_B: Array | None,
    min_len: int,
    eos: int,
    banned: Sequence[int],
) -> Limits:
    """Limits of a search; raises ConfigError if no hypothesis could end within them."""
    if max_len < 1:
        raise ConfigError(f"max_len must be at least 1, got {max_len}.")
    if not 0 <= min_len < max_len:
        raise ConfigError(f"min_len must be in [0, max_len = {max_len}), got {min_len}.")
    if eos in banned:
        raise ConfigError(f"banned contains the EOS id {eos}: no hypothesis could end.")
    if max_len_B is None:
        max_len_B = jnp.full(batch_size, max_len, jnp.int32)
    max_len_B = jnp.clip(jnp.asarray(max_len_B, jnp.int32), 1, max_len)
    return Limits(eos, min_len, tuple(banned), max_len_B)


def best_tokens(logits_RV: Array, k: int, limits: Limits, length: Array) -> tuple[Array, Array]:
    """The k most probable tokens to follow `length` others, and their log-probabilities.

    Forbidden tokens get -inf; the others keep the model's own probability (no
    renormalisation). Tokens are ranked by their logits, before anything is added to them, so
    that rounding makes no ties; of equal logits the lower id goes first.

    Returns:
        (log_probs_RK float32, ids_RK int32).
    """
    logits_RV = logits_RV.astype(jnp.float32)
    log_normalizer_R = jax.nn.logsumexp(logits_RV, axis=-1)
    forbidden_V = limits.forbidden(logits_RV.shape[-1], length)
    best_RK, ids_RK = top_k(logits_RV, k, forbidden_V, limits.num_forbidden)
    return best_RK - log_normalizer_R[:, None], ids_RK


def top_k(values_RV: Array, k: int, forbidden_V: Array, num_forbidden: int) -> tuple[Array, Array]:
    """jax.lax.top_k of a matrix without some columns, several times faster on CPU.

    The k largest values lie in the k blocks with the largest maxima, so only those blocks are
    searched; the maxima are one vectorised pass over the matrix. Forbidden columns may have the
    maxima of num_forbidden blocks more; in the result they are -inf. Of equal values the lower
    column goes first, as in lax.top_k.
    """
    num_rows, width = values_RV.shape
    num_chosen, whole = k + num_forbidden, width // BLOCK * BLOCK
    if whole <= 2 * num_chosen * BLOCK:
        return jax.lax.top_k(jnp.where(forbidden_V, -jnp.inf, values_RV), k)
    maxima_RN = values_RV[:, :whole].reshape(num_rows, -1, BLOCK).max(axis=-1)
    _, blocks_RN = jax.lax.top_k(maxima_RN, num_chosen)
    blocks_RN = jnp.sort(blocks_RN, axis=-1)  # columns in their old order, for the sake of ties
    columns_RC = (blocks_RN[:, :, None] * BLOCK + jnp.arange(BLOCK)).reshape(num_rows, -1)
    rest_RC = jnp.broadcast_to(jnp.arange(whole, width), (num_rows, width - whole))
    columns_RC = jnp.concatenate([columns_RC, rest_RC], axis=1)
    candidates_RC = jnp.take_along_axis(values_RV, columns_RC, axis=1, mode="promise_in_bounds")
    candidates_RC = jnp.where(forbidden_V[columns_RC], -jnp.inf, candidates_RC)
    best_RK, places_RK = jax.lax.top_k(candidates_RC, k)
    return best_RK, jnp.take_along_axis(columns_RC, places_RK, axis=1)
