"""Learning rates by layer: exact values for each kind of model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import models
from errors import ConfigError
from training.freezing import freeze
from training.layer_decay import decay_layers, rates
from training.schema import _check_optimizer
from trees import named_leaves

SMALL = {"d_model": 8, "num_heads": 2, "d_ff": 8}
LSTM = {"embedding_size": 4, "hidden_size": 4}
BLOCKS = {
    "transformer_lm": {"num_layers": 3, **SMALL},
    "transformer_seq2seq": {"num_encoder_layers": 3, "num_decoder_layers": 2, **SMALL},
    "transformer_encoder": {"num_layers": 2, "positions": "learned", **SMALL},
    "recurrent_lm": {"num_layers": 2, **LSTM},
    "recurrent_seq2seq": {"num_encoder_layers": 2, "num_decoder_layers": 2, **LSTM},
    "elmo": LSTM,
}
# Steps below the top, by the beginning of the name.
STEPS = {
    "transformer_lm": {"embed": 4, "decoder/layers_0/": 3, "decoder/layers_2/": 1}
    | {"decoder/norm": 0},
    "transformer_seq2seq": {"embed": 4, "encoder/layers_0/": 3, "encoder/layers_2/": 1}
    | {"decoder/layers_0/": 2, "decoder/layers_1/": 1, "encoder/norm": 0},
    "transformer_encoder": {"embed": 3, "types": 3, "encoder/positions": 3, "pooler": 0}
    | {"encoder/layers_0/": 2, "encoder/layers_1/": 1},
    "recurrent_lm": {"embed": 3, "stack/layers_0/": 2, "stack/layers_1/": 1, "readout": 0},
    "recurrent_seq2seq": {"embed": 3, "encoder_0/": 2, "encoder_1/": 1, "readout": 0},
    "elmo": {"embed": 3, "forward_0/": 2, "backward_0/": 2, "forward_1/": 1, "backward_1/": 1},
}
# No classifier has an encoder-decoder inside.
CASES = [
    (name, inside) for inside in (False, True) for name in BLOCKS if not (inside and "seq2" in name)
]


def shapes_of(block: dict) -> dict:
    model = models.build(block, 11)
    return jax.eval_shape(lambda: models.init(model, jax.random.key(0)))["params"]


@pytest.mark.parametrize(("name", "inside"), CASES)
def test_each_layer_learns_slower_than_the_one_above_it(name, inside):
    block = {"name": name, **BLOCKS[name]}
    block = {"name": "classifier", "inner": block, "head": "lstm"} if inside else block
    shapes = {k: v.shape for k, v in named_leaves(shapes_of(block)).items()}
    found = {k: float(v) for k, v in rates(shapes, 0.5).items()}
    for start, steps in STEPS[name].items():
        start = f"inner/{start}" if inside else start
        chosen = [v for k, v in found.items() if k.startswith(start)]
        assert set(chosen) == {0.5**steps} or (inside and not chosen), start
    if inside:
        heads = [v for k, v in found.items() if not k.startswith("inner/")]
        assert set(heads) == {1.0}
        assert len(heads) > 4


def test_layers_under_a_scan_have_the_same_rates():
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 3}
    block = {"name": "transformer_seq2seq", "scan_layers": True, **layers, **SMALL}
    shapes = {k: v.shape for k, v in named_leaves(shapes_of(block)).items()}
    for name, rate in rates(shapes, 0.5).items():
        if "/layers/" in name:
            expected = [0.25, 0.5] if name.startswith("encoder") else [0.125, 0.25, 0.5]
            assert rate.shape == (len(expected), *[1] * (len(shapes[name]) - 1))
            np.testing.assert_array_equal(rate.ravel(), expected)


def test_updates_are_scaled_frozen_ones_stay_and_one_changes_nothing():
    params = {"embed": jnp.ones(2), "stack": {"layers_0": {"w": jnp.ones(2)}}, "head": jnp.ones(2)}
    params["embed"] = {"embedding": params["embed"]}
    frozen = freeze(optax.sgd(1.0), params, ("head",))
    optimizer = decay_layers(frozen, params, 0.5)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    found = {name: float(leaf[0]) for name, leaf in named_leaves(updates).items()}
    assert found == {"embed/embedding": -0.25, "stack/layers_0/w": -0.5, "head": 0.0}
    assert decay_layers(frozen, params, 1.0) is frozen


def test_a_decay_out_of_range_is_refused_and_older_runs_have_none():
    block = {"name": "adamw", "learning_rate": 1.0, "clip_norm": 1.0}
    block["schedule"] = {"name": "constant"}
    assert _check_optimizer(block)["layer_decay"] == 1.0
    for wrong in (0.0, 1.5):
        with pytest.raises(ConfigError, match=r"config\.optimizer\.layer_decay must be"):
            _check_optimizer({**block, "layer_decay": wrong})
