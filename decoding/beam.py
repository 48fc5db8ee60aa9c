"""Beam search with a length penalty over anything that can make a step.

The best K unfinished hypotheses of each row are extended together (R = B * K rows of the model,
those of one batch row side by side). Finished ones wait in a pool of their own, the best N of
each row, so they never take the place of a live one.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from decoding.scoring import (
    Carry,
    Limits,
    SearchResult,
    Step,
    best_tokens,
    length_penalty_of,
    make_limits,
)
from errors import ConfigError


class Beams(NamedTuple):
    """All that changes from step to step: K live and N finished hypotheses a row."""

    t: Array  # tokens generated so far
    state: Any  # of the model, R rows
    memory: Any  # of the model, B rows
    live_tokens_BKT: Array
    live_log_probs_BK: Array  # best first; -inf where there are fewer than K
    length_B: Array  # of the live hypotheses
    done_B: Array  # no step can change the row's result any more
    finished: SearchResult  # N a row, best first; scores -inf where there are fewer


class Candidates(NamedTuple):
    """The 2K best extensions of the live hypotheses of each row, best first (C = 2K)."""

    tokens_BC: Array
    parents_BC: Array  # which live hypothesis each of them extends
    log_probs_BC: Array


def beam_search(
    step: Step,
    carry: Carry,
    batch_size: int,
    max_len: int,
    *,
    num_beams: int,
    length_penalty: float = 0.0,
    num_results: int = 1,
    bos: int = 2,
    eos: int = 3,
    pad: int = 0,
    min_len: int = 0,
    max_len_B: Array | None = None,
    banned: Sequence[int] = (),
) -> SearchResult:
    """Looks for the hypotheses with the best log P(Y) / lp(Y) (Wu et al. 2016, eq. 14).

    A hypothesis is finished when EOS is among the num_beams best extensions of its row. A row
    is done when its N-th finished hypothesis cannot be beaten: probabilities only fall, so no
    live hypothesis can pass its log-probability over the penalty of the longest result. One
    beam without a length penalty is greedy search. For the other arguments see the package.

    Args:
        num_beams: K, live hypotheses a row.
        length_penalty: alpha of lp(Y) = ((5 + |Y|) / 6) ** alpha, 0 or more. 0 ranks by
            log-probability, which prefers short hypotheses.
        num_results: N, hypotheses returned a row, at most num_beams.

    Returns:
        SearchResult of N hypotheses a row: finished ones first; then, if there are too few,
        the best of those cut off by the length limit.

    Raises:
        ConfigError: if an option is out of its range.
    """
    check_options(num_beams, length_penalty, num_results)
    limits = make_limits(batch_size, max_len, max_len_B, min_len, eos, banned)
    state = jax.tree.map(lambda leaf: jnp.repeat(leaf, num_beams, axis=0), carry["state"])
    tokens_BKT = jnp.full((batch_size, num_beams, max_len), pad, jnp.int32)
    start = first_beams(state, carry["memory"], tokens_BKT, num_results)

    def advance(beams: Beams) -> Beams:
        now = {"state": beams.state, "memory": beams.memory}
        new, logits_RV = step(now, last_token(beams, bos))
        candidates = extend(beams, logits_RV, limits)
        finished = add_finished(beams, candidates, eos, length_penalty)
        beams = keep_live(beams, candidates, eos, new)
        return settle(beams._replace(finished=finished), limits, length_penalty)

    beams = jax.lax.while_loop(lambda beams: ~beams.done_B.all(), advance, start)
    return best_first(beams, length_penalty)


def check_options(num_beams: int, length_penalty: float, num_results: int) -> None:
    """Refuses options out of their range; raises ConfigError."""
    if num_beams < 1:
        raise ConfigError(f"num_beams must be at least 1, got {num_beams}.")
    if not 1 <= num_results <= num_beams:
        raise ConfigError(
            f"num_results must be in [1, num_beams = {num_beams}], got {num_results}."
        )
    if not 0 <= length_penalty < float("inf"):
        raise ConfigError(f"length_penalty must be 0 or more, got {length_penalty}.")


def first_beams(state: Any, memory: Any, tokens_BKT: Array, num_results: int) -> Beams:
    """One empty live hypothesis a row, and none finished."""
    batch_size, num_beams, _ = tokens_BKT.shape
    none_BN = jnp.full((batch_size, num_results), -jnp.inf)
    finished = SearchResult(
        tokens_BKT[:, :num_results], none_BN, none_BN, jnp.zeros_like(none_BN, jnp.int32)
    )
    return Beams(
        t=jnp.int32(0),
        state=state,
        memory=memory,
        live_tokens_BKT=tokens_BKT,
        live_log_probs_BK=jnp.full((batch_size, num_beams), -jnp.inf).at[:, 0].set(0.0),
        length_B=jnp.zeros(batch_size, jnp.int32),
        done_B=jnp.zeros(batch_size, bool),
        finished=finished,
    )


def last_token(beams: Beams, bos: int) -> Array:
    """token_R: what the step reads."""
    tokens_BK = jax.lax.dynamic_index_in_dim(
        beams.live_tokens_BKT, jnp.maximum(beams.t - 1, 0), axis=2, keepdims=False
    )
    return jnp.where(beams.t == 0, bos, tokens_BK).reshape(-1)


def extend(beams: Beams, logits_RV: Array, limits: Limits) -> Candidates:
    """The 2K best extensions of each row: at most K of them end, so K can live on."""
    batch_size, num_beams = beams.live_log_probs_BK.shape
    # Of one hypothesis no more than K + 1 can matter: K to live on and one that ends.
    width = min(num_beams + 1, logits_RV.shape[-1])
    log_probs_RW, ids_RW = best_tokens(logits_RV, width, limits, beams.t)
    log_probs_BKW = log_probs_RW.reshape(batch_size, num_beams, width)
    totals_BKW = beams.live_log_probs_BK[:, :, None] + log_probs_BKW
    log_probs_BC, places_BC = jax.lax.top_k(
        totals_BKW.reshape(batch_size, -1), min(2, width) * num_beams
    )
    tokens_BC = rows_of(ids_RW.reshape(batch_size, -1), places_BC)
    return Candidates(tokens_BC, places_BC // width, log_probs_BC)


def add_finished(beams: Beams, candidates: Candidates, eos: int, alpha: float) -> SearchResult:
    """The N best of those that have finished before and those that end now."""
    num_beams = beams.live_log_probs_BK.shape[1]
    num_results = beams.finished.scores_BK.shape[1]
    # As in greedy search, an end that is not among the K best choices is not chosen.
    tokens_BK, parents_BK, log_probs_BK = (array[:, :num_beams] for array in candidates)
    length = beams.t + 1
    scores_BK = log_probs_BK / length_penalty_of(length, alpha)
    new = SearchResult(
        rows_of(beams.live_tokens_BKT, parents_BK).at[:, :, beams.t].set(eos),
        jnp.where((tokens_BK == eos) & ~beams.done_B[:, None], scores_BK, -jnp.inf),
        log_probs_BK,
        jnp.broadcast_to(length, tokens_BK.shape),
    )
    both = jax.tree.map(lambda *arrays: jnp.concatenate(arrays, axis=1), beams.finished, new)
    _, places_BN = jax.lax.top_k(both.scores_BK, num_results)  # of equals, the older one
    return jax.tree.map(lambda array: rows_of(array, places_BN), both)


def keep_live(beams: Beams, candidates: Candidates, eos: int, carry: Carry) -> Beams:
    """Goes on with the K best candidates that do not end, and their rows of the state."""
    batch_size, num_beams = beams.live_log_probs_BK.shape
    going_on_BC = jnp.where(candidates.tokens_BC == eos, -jnp.inf, candidates.log_probs_BC)
    log_probs_BK, places_BK = jax.lax.top_k(going_on_BC, num_beams)
    parents_BK = rows_of(candidates.parents_BC, places_BK)
    tokens_BK = rows_of(candidates.tokens_BC, places_BK)
    tokens_BKT = rows_of(beams.live_tokens_BKT, parents_BK).at[:, :, beams.t].set(tokens_BK)
    row_R = (jnp.arange(batch_size)[:, None] * num_beams + parents_BK).reshape(-1)
    state = jax.tree.map(lambda leaf: leaf[row_R], carry["state"])

    done_B = beams.done_B
    return beams._replace(
        t=beams.t + 1,
        state=state,
        memory=carry["memory"],
        live_tokens_BKT=jnp.where(done_B[:, None, None], beams.live_tokens_BKT, tokens_BKT),
        live_log_probs_BK=jnp.where(done_B[:, None], beams.live_log_probs_BK, log_probs_BK),
        length_B=jnp.where(done_B, beams.length_B, beams.t + 1),
    )


def settle(beams: Beams, limits: Limits, alpha: float) -> Beams:
    """Marks rows as done that are at their limit or whose results cannot be beaten."""
    longest_B = length_penalty_of(limits.max_len_B, alpha)
    attainable_B = beams.live_log_probs_BK[:, 0] / longest_B
    unbeaten_B = beams.finished.scores_BK[:, -1] >= attainable_B
    return beams._replace(done_B=beams.done_B | unbeaten_B | (beams.length_B >= limits.max_len_B))


def best_first(beams: Beams, alpha: float) -> SearchResult:
    """The finished hypotheses, then those cut off by the length limit."""
    num_results = beams.finished.scores_BK.shape[1]
    log_probs_BK = beams.live_log_probs_BK
    lengths_BK = jnp.broadcast_to(beams.length_B[:, None], log_probs_BK.shape)
    scores_BK = log_probs_BK / length_penalty_of(lengths_BK, alpha)
    live = SearchResult(beams.live_tokens_BKT, scores_BK, log_probs_BK, lengths_BK)
    both = jax.tree.map(lambda *arrays: jnp.concatenate(arrays, axis=1), beams.finished, live)
    # Both are sorted already: a stable sort on "there is one" closes the gap between them.
    order_BN = jnp.argsort(both.scores_BK == -jnp.inf, axis=1, stable=True)[:, :num_results]
    return jax.tree.map(lambda array: rows_of(array, order_BN), both)


def rows_of(array: Array, index_BK: Array) -> Array:
    """array[b, index[b, k]] for arrays (B, N) or (B, N, T)."""
    index = index_BK.reshape(index_BK.shape + (1,) * (array.ndim - 2))
    return jnp.take_along_axis(array, index, axis=1)
