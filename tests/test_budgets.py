"""Equal budgets: widths for a number of parameters, steps for an amount of work."""

import itertools

import jax
import numpy as np
import pytest

import models
from analysis import budgets
from configs.base import LANGUAGE_MODELS, SEQ2SEQ, WIDTHS
from errors import ConfigError

SMALL = {"num_heads": 2, "d_model": 8, "d_ff": 12}


def test_parameters_without_embeddings_are_those_of_the_matrices():
    """A Transformer's by hand: no vocabulary, tied or not, is among them."""
    d, f, layers = 8, 12, 3
    block = {"name": "transformer_lm", "num_layers": layers, **SMALL}
    attention, feed_forward, norms = 4 * d * d + 4 * d, 2 * d * f + f + d, 4 * d
    expected = layers * (attention + feed_forward + norms) + 2 * d
    for tied in (True, False):
        assert budgets.non_embedding_parameters({**block, "tie_embeddings": tied}) == expected
    model = models.build(block, vocab_size=50)
    shapes = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))
    assert models.num_parameters(shapes) == expected + 50 * d


def pairs(size: str):
    """Every ordered pair of presets of one kind and size."""
    for family in (SEQ2SEQ, LANGUAGE_MODELS):
        blocks = [block for name, block in family.items() if name.endswith(f"-{size}")]
        yield from itertools.permutations(blocks, 2)


def check_pairs(size: str) -> None:
    tried = 0
    for reference, block in pairs(size):
        target = budgets.non_embedding_parameters(reference)
        matched = budgets.match_parameters(block, WIDTHS[block["name"]], target)
        found = budgets.non_embedding_parameters(matched)
        assert abs(found / target - 1) <= budgets.TOLERANCE, (reference, matched)
        w, f = (matched[name] / block[name] for name in WIDTHS[block["name"]])
        assert 0.5 < w / f < 2  # as wide as deep, roughly
        assert matched[WIDTHS[block["name"]][0]] % (2 * block.get("num_heads", 1)) == 0
        assert {k for k in block if block[k] != matched[k]} <= set(WIDTHS[block["name"]])
        tried += 1
    print(f"{size}: {tried} pairs")
    assert tried == 14


def test_any_tiny_preset_matches_any_other_within_two_percent():
    check_pairs("tiny")


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "base"])
def test_any_preset_matches_any_other_within_two_percent(size):
    check_pairs(size)


def test_a_number_of_parameters_out_of_reach_is_refused_in_one_line():
    block = {"name": "transformer_lm", "num_layers": 1, **SMALL}
    with pytest.raises(ConfigError, match="within 2%; the nearest are") as caught:
        budgets.match_parameters(block, WIDTHS["transformer_lm"], 20)
    assert "\n" not in str(caught.value)


def test_steps_come_nearest_to_a_budget():
    random = np.random.default_rng(0)
    for _ in range(200):
        costs = random.integers(1, 9, 50)
        totals = np.cumsum(costs)
        budget = random.uniform(0.5, totals[-1])
        found = budgets.steps_for(iter(costs.tolist()), budget)
        assert abs(totals[found - 1] - budget) == np.abs(totals - budget).min()
    with pytest.raises(ConfigError, match="end before"):
        budgets.steps_for([1, 2], 4)
    assert budgets.spread([100, 102, 101]) == pytest.approx(0.02)
