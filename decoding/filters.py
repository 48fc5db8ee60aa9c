"""Filters of what a token is drawn from: pure functions logits_RV -> logits_RV.

What a filter leaves out becomes -inf; what it keeps keeps its logit, so that filters compose
and the probabilities are those of a softmax over the rest. Of equal logits at a limit all are
kept. The numbers may be traced, and one for all rows or (R, 1).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from errors import ConfigError


class Filters(NamedTuple):
    """What tokens are drawn from, in the order in which the filters go; None leaves one out.

    A NamedTuple without its Nones is a pytree of numbers: one compiled program serves all
    values.

    repetition_penalty: theta of `discourage_repeats`, more than 0; above 1 discourages.
    temperature: of `with_temperature`, more than 0. None: nothing is random, the token is the
        most probable one.
    top_k: how many tokens are kept, at least 1.
    top_p: the probability that is kept, in (0, 1].
    min_p: least probability over that of the most probable token, in (0, 1].
    """

    repetition_penalty: Any = None
    temperature: Any = 1.0
    top_k: Any = None
    top_p: Any = None
    min_p: Any = None

    def checked(self) -> "Filters":
        """Itself, when its numbers are in their ranges.

        Raises:
            ConfigError: one is not; names it.
        """
        above_0 = (0, float("inf"), "above 0")
        share = (0, 1, "above 0 and at most 1")
        # Logits over less are not finite; the most probable token is a temperature of None.
        ranges = {
            "repetition_penalty": above_0,
            "temperature": (1e-30, float("inf"), "above 1e-30"),
        }
        ranges |= {"top_k": above_0, "top_p": share, "min_p": share}
        for name, (low, high, words) in ranges.items():
            value = getattr(self, name)
            if value is not None and not (low < value <= high and value < float("inf")):
                raise ConfigError(f"{name} must be {words}, got {value}.")
        return self


def filtered(logits_RV: Array, filters: Filters, seen_RV: Array | None = None) -> Array:
    """The logits after all filters that are there."""
    if filters.repetition_penalty is not None:
        assert seen_RV is not None
        logits_RV = discourage_repeats(logits_RV, seen_RV, filters.repetition_penalty)
    for keep, amount in (
        (with_temperature, filters.temperature),
        (keep_top_k, filters.top_k),
        (keep_top_p, filters.top_p),
        (keep_min_p, filters.min_p),
    ):
        if amount is not None:
            logits_RV = keep(logits_RV, amount)
    return logits_RV


def discourage_repeats(logits_RV: Array, seen_RV: Array, theta: Any) -> Array:
    """Tokens that were there before get less: x / theta (Keskar et al. 2019, sec. 4.1).

    A negative logit is multiplied instead, which would be more probable divided.
    """
    less_RV = jnp.where(logits_RV > 0, logits_RV / theta, logits_RV * theta)
    return jnp.where(seen_RV, less_RV, logits_RV)


def with_temperature(logits_RV: Array, temperature: Any) -> Array:
    """softmax(x / temperature): below 1 sharper, above 1 flatter (Ackley et al. 1985)."""
    return logits_RV / temperature


def keep_top_k(logits_RV: Array, k: Any) -> Array:
    """The k most probable tokens (Fan et al. 2018)."""
    return _keep_best(logits_RV, jnp.ones_like(logits_RV), k)


def keep_top_p(logits_RV: Array, p: Any) -> Array:
    """The nucleus: the fewest tokens that have probability p together (Holtzman et al. 2020)."""
    return _keep_best(logits_RV, jax.nn.softmax(logits_RV, axis=-1), p)


def keep_min_p(logits_RV: Array, share: Any) -> Array:
    """Tokens with at least `share` of the probability of the best one (Nguyen et al. 2024)."""
    best_R1 = logits_RV.max(axis=-1, keepdims=True)
    return jnp.where(logits_RV >= best_R1 + jnp.log(share), logits_RV, -jnp.inf)


def _keep_best(logits_RV: Array, weight_RV: Array, amount: Any) -> Array:
    """The fewest of the largest logits whose weights come to `amount`; all where none do.

    Looks for the least logit that is kept by halving the range of all floats 32 times, each a
    pass over the vocabulary: a sort takes several times as long on a CPU.
    """
    key_RV = _ordered(logits_RV)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low_R1, high_R1 = ends
        middle_R1 = (low_R1 & high_R1) + ((low_R1 ^ high_R1) >> 1)  # a sum would overflow
        kept_R1 = jnp.where(key_RV >= middle_R1, weight_RV, 0).sum(axis=-1, keepdims=True)
        enough_R1 = kept_R1 >= amount
        low_R1, high_R1 = (
            jnp.where(enough_R1, middle_R1, low_R1),
            jnp.where(enough_R1, high_R1, middle_R1),
        )
        return low_R1, high_R1

    least, greatest = jnp.iinfo(jnp.int32).min, jnp.iinfo(jnp.int32).max
    ends = tuple(jnp.full_like(key_RV[:, :1], end) for end in (least, greatest))
    least_R1, _ = jax.lax.fori_loop(0, 32, halve, ends)
    return jnp.where(key_RV >= least_R1, logits_RV, -jnp.inf)


def _ordered(logits_RV: Array) -> Array:
    """int32 in the order of the floats."""
    bits_RV = jax.lax.bitcast_convert_type(jnp.where(logits_RV == 0, 0, logits_RV), jnp.int32)
    return bits_RV ^ ((bits_RV >> 31) & jnp.iinfo(jnp.int32).max)
