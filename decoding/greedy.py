"""Greedy search: the most probable token at every step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from decoding.scoring import Carry, SearchResult, Step, best_tokens, make_limits


class Path(NamedTuple):
    """All that changes from step to step: one hypothesis a row."""

    t: Array  # tokens generated so far
    state: Any
    memory: Any
    token_B: Array  # the last one
    tokens_BT: Array
    log_prob_B: Array
    length_B: Array
    ended_B: Array


def greedy_search(
    step: Step,
    carry: Carry,
    batch_size: int,
    max_len: int,
    *,
    bos: int = 2,
    eos: int = 3,
    pad: int = 0,
    min_len: int = 0,
    max_len_B: Array | None = None,
    banned: Sequence[int] = (),
) -> SearchResult:
    """Takes the most probable token (of equals the lowest id) until EOS or the length limit.

    The loop ends as soon as every row has ended. For the arguments see the package.

    Returns:
        SearchResult with one hypothesis a row (K = 1); its score is its log-probability.

    Raises:
        ConfigError: if no hypothesis could end within the limits.
    """
    limits = make_limits(batch_size, max_len, max_len_B, min_len, eos, banned)

    def advance(path: Path) -> Path:
        new, logits_BV = step({"state": path.state, "memory": path.memory}, path.token_B)
        best_BK, ids_BK = best_tokens(logits_BV, 1, limits, path.t)
        token_B = jnp.where(path.ended_B, pad, ids_BK[:, 0])
        return Path(
            t=path.t + 1,
            state=new["state"],
            memory=new["memory"],
            token_B=token_B,
            tokens_BT=path.tokens_BT.at[:, path.t].set(token_B),
            log_prob_B=path.log_prob_B + jnp.where(path.ended_B, 0.0, best_BK[:, 0]),
            length_B=jnp.where(path.ended_B, path.length_B, path.t + 1),
            ended_B=path.ended_B | (token_B == eos) | (path.t + 1 >= limits.max_len_B),
        )

    start = Path(
        t=jnp.int32(0),
        state=carry["state"],
        memory=carry["memory"],
        token_B=jnp.full(batch_size, bos, jnp.int32),
        tokens_BT=jnp.full((batch_size, max_len), pad, jnp.int32),
        log_prob_B=jnp.zeros(batch_size, jnp.float32),
        length_B=jnp.zeros(batch_size, jnp.int32),
        ended_B=jnp.zeros(batch_size, bool),
    )
    path = jax.lax.while_loop(lambda path: ~path.ended_B.all(), advance, start)
    log_prob_BK = path.log_prob_B[:, None]
    return SearchResult(path.tokens_BT[:, None], log_prob_BK, log_prob_BK, path.length_B[:, None])
