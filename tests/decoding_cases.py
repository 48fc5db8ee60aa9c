"""Models that are tables, and searches over them by enumeration and over Python lists.

The logits depend on the whole prefix, given as a number in base V, so a search that mixed up
the states of two hypotheses would be seen at once.
"""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import decoding

PAD, BOS, EOS = 0, 2, 3
V, T = 5, 4  # 5^4 strings
ALPHAS = (0.0, 0.6, 1.0, 2.0)


class Hypothesis(NamedTuple):
    tokens: tuple[int, ...]
    score: float
    log_prob: float


def prefix_code(prefix: tuple[int, ...]) -> int:
    code = 0
    for token in prefix:
        code = code * V + token + 1
    return code


def random_models(num_models: int, seed: int, end_bias: float = 0.0, whole: bool = False):
    """logits_BCV: of model B after the prefix with code C. `whole` numbers make many ties."""
    num_codes = prefix_code((V - 1,) * T) + 1
    logits = np.random.default_rng(seed).normal(size=(num_models, num_codes, V)) * 1.5
    logits[..., EOS] += end_bias
    # Adding 0 makes -0.0 a 0.0: they are equal, but not in the order of lax.top_k.
    return (np.round(logits) + 0.0 if whole else logits).astype(np.float32)


def table_step(carry, token_R):
    """Adds the token to the prefix and looks its logits up; BOS at the start adds nothing."""
    state, table_BCV = carry["state"], carry["memory"]["table"]
    table_RCV = jnp.repeat(table_BCV, len(token_R) // len(table_BCV), axis=0)
    first_R = state["length"] == 0
    code_R = jnp.where(first_R, 0, state["code"] * V + token_R + 1)
    logits_RV = jnp.take_along_axis(table_RCV, code_R[:, None, None], axis=1)[:, 0]
    state = {"code": code_R, "length": state["length"] + 1}
    return {"state": state, "memory": carry["memory"]}, logits_RV


def table_carry(table_BCV):
    zeros_B = jnp.zeros(len(table_BCV), jnp.int32)
    memory = {"table": jnp.asarray(table_BCV)}
    return {"state": {"code": zeros_B, "length": zeros_B}, "memory": memory}


def search(table_BCV, max_len: int = T, **options) -> decoding.SearchResult:
    """Beam search if num_beams is given, else greedy, inside jit."""
    arrays = {name: options.pop(name) for name in ("max_len_B",) if name in options}
    return jax.tree.map(np.asarray, _search(table_BCV, arrays, max_len, tuple(options.items())))


@functools.partial(jax.jit, static_argnames=("max_len", "options"))
def _search(table_BCV, arrays, max_len, options):
    run = decoding.beam_search if "num_beams" in dict(options) else decoding.greedy_search
    carry = table_carry(table_BCV)
    return run(table_step, carry, len(table_BCV), max_len, **dict(options), **arrays)


def log_softmax(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    rows = rows - rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))


def log_prob_of(table_CV: np.ndarray, tokens: tuple[int, ...]) -> float:
    return _sum_of(log_softmax(table_CV), tokens)


def _sum_of(log_probs_CV: np.ndarray, tokens: tuple[int, ...]) -> float:
    return sum(log_probs_CV[prefix_code(tokens[:t]), token] for t, token in enumerate(tokens))


def penalty(length: int, alpha: float) -> float:
    return ((5 + length) / 6) ** alpha


def every_hypothesis(table_CV: np.ndarray, alpha: float, limit: int = T) -> list[Hypothesis]:
    """All strings, cut after EOS or at the limit; the finished ones first, the best first."""
    strings = {
        string[: string.index(EOS) + 1] if EOS in string else string
        for string in itertools.product(range(V), repeat=limit)
    }
    found, log_probs_CV = [], log_softmax(table_CV)
    for tokens in strings:
        log_prob = _sum_of(log_probs_CV, tokens)
        found.append(Hypothesis(tokens, log_prob / penalty(len(tokens), alpha), log_prob))
    return sorted(found, key=lambda h: (h.tokens[-1] != EOS, -h.score))


def list_beam_search(table_CV, alpha: float, num_beams: int, limit: int = T) -> list[Hypothesis]:
    """Beam search over Python lists: no arrays, no early exit, nothing shared with decoding/."""
    live, finished, log_probs_CV = [((), 0.0)], [], log_softmax(table_CV)
    for length in range(1, limit + 1):
        candidates = []
        for tokens, log_prob in live:
            for token, step in enumerate(log_probs_CV[prefix_code(tokens)]):
                candidates.append(((*tokens, token), log_prob + step))
        candidates.sort(key=lambda candidate: -candidate[1])
        for tokens, log_prob in candidates[:num_beams]:
            if tokens[-1] == EOS:
                score = log_prob / penalty(length, alpha)
                finished.append(Hypothesis(tokens, score, log_prob))
        live = [candidate for candidate in candidates if candidate[0][-1] != EOS][:num_beams]
    cut_off = [Hypothesis(t, p / penalty(limit, alpha), p) for t, p in live]
    by_score = {"key": lambda h: -h.score}
    return sorted(finished, **by_score) + sorted(cut_off, **by_score)


def padded(tokens: tuple[int, ...], width: int = T) -> list[int]:
    return list(tokens) + [PAD] * (width - len(tokens))


def assert_row(result: decoding.SearchResult, b: int, expected: list[Hypothesis]) -> None:
    for k, hypothesis in enumerate(expected[: result.scores_BK.shape[1]]):
        assert result.tokens_BKT[b, k].tolist() == padded(hypothesis.tokens), (b, k)
        assert result.lengths_BK[b, k] == len(hypothesis.tokens)
        assert math.isclose(result.scores_BK[b, k], hypothesis.score, rel_tol=1e-5, abs_tol=1e-5)
        assert math.isclose(result.log_probs_BK[b, k], hypothesis.log_prob, rel_tol=1e-5)
