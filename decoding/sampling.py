"""Drawing tokens from a language model, one after another, inside one jit.

A sample is drawn with a seed of its own: its token t depends on its prompt, its seed and t, and
neither on its neighbours in the batch nor on how many there are. Works on the `step` of the
package, one row a sample; every leaf of `Samples` has the rows first.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from decoding.filters import Filters, filtered
from decoding.scoring import Carry, Step, top_k
from errors import ConfigError


class Rules(NamedTuple):
    """What ends a sample and what may not stand in it; static.

    eos: the id after which a row has ended; pad: what stands after the end.
    banned: ids that are never drawn.
    stops: sequences of ids; a sample that ends in one of them has ended.
    """

    eos: int = 3
    pad: int = 0
    banned: tuple[int, ...] = ()
    stops: tuple[tuple[int, ...], ...] = ()


class Samples(NamedTuple):
    """Samples so far, one a row, and what their next tokens depend on.

    carry: of the model, which has read all tokens but the last.
    seed_R: uint32.
    seen_RV: ids in the prompt or the sample; None where no filter asks for them.
    tokens_RT: the tokens, EOS and stop words included, `pad` after the end.
    log_probs_RT: of each token under the model, before any filter; 0 after the end.
    drawn_log_probs_RT: of each token under what it was drawn from, after all filters; without
        a temperature, when nothing is drawn, after the others.
    length_R: how many tokens there are.
    ended_R: by EOS, a stop word, or the length.
    """

    carry: Carry
    seed_R: Array
    seen_RV: Array | None
    tokens_RT: Array
    log_probs_RT: Array
    drawn_log_probs_RT: Array
    length_R: Array
    ended_R: Array


def start(
    carry: Carry,
    logits_RV: Array,
    seed_R: Array,
    max_len: int,
    filters: Filters,
    rules: Rules,
    prompt_RT: Array,
    prompt_length_R: Array,
) -> Samples:
    """The first token of each sample.

    Args:
        carry, logits_RV: after the prompt, as `prefill` of a language model gives them.
        seed_R: a whole number below 2**32 for each sample.
        max_len: the greatest number of tokens, EOS included; static.
        filters: what the tokens are drawn from.
        prompt_RT, prompt_length_R: what the repetition penalty has seen. A row without a
            prompt is there to fill the batch: it has ended.

    Raises:
        ConfigError: max_len is less than 1, a stop word is empty, or EOS is banned and all
            else, too.
    """
    num_rows, vocab_size = logits_RV.shape
    check(max_len, rules, vocab_size)
    none_RT = jnp.zeros((num_rows, max_len), jnp.float32)
    samples = Samples(
        carry=carry,
        seed_R=seed_R.astype(jnp.uint32),
        seen_RV=None,
        tokens_RT=jnp.full((num_rows, max_len), rules.pad, jnp.int32),
        log_probs_RT=none_RT,
        drawn_log_probs_RT=none_RT,
        length_R=jnp.zeros(num_rows, jnp.int32),
        ended_R=prompt_length_R < 1,
    )
    if filters.repetition_penalty is not None:
        read_RT = jnp.arange(prompt_RT.shape[1]) < prompt_length_R[:, None]
        rows_R1 = jnp.arange(num_rows)[:, None]
        unseen_RV = jnp.zeros((num_rows, vocab_size), bool)
        samples = samples._replace(seen_RV=unseen_RV.at[rows_R1, prompt_RT].max(read_RT))
    return append(samples, logits_RV, filters, rules)


def check(max_len: int, rules: Rules, vocab_size: int) -> None:
    """Refuses rules under which nothing can be drawn; raises ConfigError."""
    if max_len < 1:
        raise ConfigError(f"max_len must be at least 1, got {max_len}.")
    if not all(rules.stops):
        raise ConfigError("A stop word has no tokens.")
    if len(set(rules.banned)) >= vocab_size:
        raise ConfigError(f"All {vocab_size} ids are banned: nothing can be drawn.")


def advance(
    step: Step, samples: Samples, filters: Filters, rules: Rules, length: Array | int
) -> Samples:
    """Goes on until every sample has so many tokens or has ended.

    Ends as soon as all have ended. `length` may be traced: token by token or all at once is
    one compiled program.
    """

    def unfinished(samples: Samples) -> Array:
        return (~samples.ended_R & (samples.length_R < length)).any()

    def one_more(samples: Samples) -> Samples:
        last_R1 = jnp.maximum(samples.length_R - 1, 0)[:, None]
        token_R = jnp.take_along_axis(samples.tokens_RT, last_R1, axis=1)[:, 0]
        carry, logits_RV = step(samples.carry, token_R)
        return append(samples._replace(carry=carry), logits_RV, filters, rules)

    return jax.lax.while_loop(unfinished, one_more, samples)


def append(samples: Samples, logits_RV: Array, filters: Filters, rules: Rules) -> Samples:
    """Draws one more token for each sample that has not ended."""
    num_rows, max_len = samples.tokens_RT.shape
    logits_RV = logits_RV.astype(jnp.float32)
    allowed_RV = without(logits_RV, rules.banned)
    drawn_RV = filtered(allowed_RV, filters, samples.seen_RV)
    token_R = draw(drawn_RV, samples, filters.temperature is None)
    token_R = jnp.where(samples.ended_R, rules.pad, token_R)

    rows_R = jnp.arange(num_rows)
    # What has ended writes outside, which is nowhere.
    place_R = jnp.where(samples.ended_R, max_len, samples.length_R)
    tokens_RT = samples.tokens_RT.at[rows_R, place_R].set(token_R)
    length_R = samples.length_R + ~samples.ended_R
    ended_R = samples.ended_R | (token_R == rules.eos) | (length_R >= max_len)
    for stop in rules.stops:
        ended_R |= ends_with(tokens_RT, length_R, stop)
    seen_RV = samples.seen_RV
    return samples._replace(
        seen_RV=None if seen_RV is None else seen_RV.at[rows_R, token_R].set(True),
        tokens_RT=tokens_RT,
        log_probs_RT=samples.log_probs_RT.at[rows_R, place_R].set(log_prob(logits_RV, token_R)),
        drawn_log_probs_RT=samples.drawn_log_probs_RT.at[rows_R, place_R].set(
            log_prob(drawn_RV, token_R)
        ),
        length_R=length_R,
        ended_R=ended_R,
    )


def without(logits_RV: Array, banned: Sequence[int]) -> Array:
    """The logits with -inf for some ids."""
    banned_V = np.zeros(logits_RV.shape[-1], bool)
    banned_V[list(banned)] = True
    return jnp.where(banned_V, -jnp.inf, logits_RV)


def draw(logits_RV: Array, samples: Samples, greedy: bool) -> Array:
    """A token of each row from softmax(logits), or the most probable one.

    The argmax of the logits plus Gumbel noise is such a draw (Gumbel 1954). The noise belongs
    to seed, place and id: a filter changes a sample only where it forbids what was drawn.
    """
    if not greedy:

        def noise(seed: Array, place: Array) -> Array:
            key = jax.random.fold_in(jax.random.key(seed), place)
            return jax.random.gumbel(key, logits_RV.shape[1:])

        logits_RV = logits_RV + jax.vmap(noise)(samples.seed_R, samples.length_R)
    nothing_V = jnp.zeros(logits_RV.shape[-1], bool)
    return top_k(logits_RV, 1, nothing_V, 0)[1][:, 0].astype(jnp.int32)


def log_prob(logits_RV: Array, token_R: Array) -> Array:
    """The logarithm of softmax(logits) at the tokens."""
    chosen_R = jnp.take_along_axis(logits_RV, token_R[:, None], axis=1)[:, 0]
    return chosen_R - jax.nn.logsumexp(logits_RV, axis=-1)


def ends_with(tokens_RT: Array, length_R: Array, stop: Sequence[int]) -> Array:
    """Whether the last of so many tokens are those of `stop`."""
    first_R = length_R - len(stop)
    place_RL = first_R[:, None] + jnp.arange(len(stop))
    last_RL = jnp.take_along_axis(tokens_RT, jnp.maximum(place_RL, 0), axis=1)
    return (first_R >= 0) & (last_RL == jnp.asarray(stop)).all(axis=1)


def repeated(tree: Any, times: int) -> Any:
    """Each row so many times side by side: the samples of one prompt share its prefill."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, times, axis=0), tree)
